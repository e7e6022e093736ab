"""The room for a class: its page, its room code, and what the terminal shows so that phones find it.

Whoever opens the page is a member like any other. The page is three files in `room/page/`, without a library, that
show what the room sends as text, never as markup. The rest is for `chatlab serve room --lan`, which opens the room to
the local network: a code to come in with, the address to type or to scan, and a plain word on what is open to whom.

Left out: encryption and accounts. This is for an hour among people who see each other.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from importlib import resources
from io import StringIO
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil, log

from chatlab.console import can_show
from chatlab.errors import HandshakeError

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/room.js": ("room.js", "text/javascript; charset=utf-8"),
    "/room.css": ("room.css", "text/css; charset=utf-8"),
}
# These files and WebSockets, nothing else; no frame around them. In older Safaris 'self' does not cover ws: and wss:.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def same_code(given: str, code: str) -> bool:
    """Compare room codes as people type them, in a time that does not tell how much of it was right."""
    return secrets.compare_digest(_as_compared(given), _as_compared(code))


def _as_compared(code: str) -> bytes:
    return code.strip().upper().encode(errors="replace")


@dataclass(slots=True)
class _Wrong:
    """Wrong codes lately. `count` and, slower, `tries` shrink with time; `not_before` is on the guard's clock."""

    count: float = 0.0
    tries: float = 0.0
    at: float = 0.0
    not_before: float = 0.0
    last: bytes = b""  # a digest of the last one

    def forget(self, now: float, seconds: float) -> None:
        """Take back one wrong try for each `seconds` that have passed."""
        self.count = max(0.0, self.count - (now - self.at) / seconds)
        self.tries = max(0.0, self.tries - (now - self.at) / (60 * seconds))
        self.at = now

    def add(self, now: float, free: int, longest: float) -> None:
        """Count one more; beyond `free`, the next has to wait, twice as long each time."""
        self.count = min(self.count + 1, free + 10)
        self.tries += 1
        if self.count > free:
            self.not_before = now + min(longest, 2 ** (self.count - free - 1))


class CodeGuard:
    """The room code, and a brake on guessing it: a few tries are free, then each costs a wait that grows.

    The wait has a limit, so that a class behind one address gets in although somebody there guesses; the code is long
    enough for that (`new_code`). In all, it is counted as well: but an address that has hardly tried is let try, or a
    guesser elsewhere could keep everybody out. One network of IPv6 (/64) counts as one address, since each machine has
    as many as it likes. Nothing here is logged or kept that would tell the code.
    """

    FREE = 12  # wrong codes from one address; a class mistypes, too
    LONGEST = 15.0  # seconds until its next try
    FREE_IN_ALL = 60
    LONGEST_IN_ALL = 2.0
    SPARED = 3  # wrong codes of an address, and as many an hour, that others cannot keep it from
    FORGOTTEN = 20.0  # seconds after which one wrong code no longer counts
    MAX_ADDRESSES = 4096

    def __init__(self, code: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.code = code
        self.braked = 0  # tries turned away unseen
        self._clock = clock
        self._all = _Wrong()
        self._by_address: dict[str, _Wrong] = {}

    def check(self, given: str, address: str = "") -> None:
        """Return if `given` is the code. HandshakeError 403 if not, 429 if it is too soon to say."""
        now = self._clock()
        wrong = self._of(network_of(address), now)
        if given.strip() and (wait := self._wait(wrong, now)) > 0:
            self.braked += 1
            seconds = str(ceil(wait))
            message = f"too many wrong room codes from this address; try again in {seconds} s"
            raise HandshakeError(message, HTTPStatus.TOO_MANY_REQUESTS, (("Retry-After", seconds),))
        if same_code(given, self.code):
            wrong.count /= 2
            return
        self._count(given, wrong, now)
        raise HandshakeError("wrong room code", HTTPStatus.FORBIDDEN)

    def _of(self, network: str, now: float) -> _Wrong:
        wrong = self._by_address.pop(network, None) or _Wrong(at=now)
        self._by_address[network] = wrong  # the last now: those before it have been quiet for longer
        if len(self._by_address) > self.MAX_ADDRESSES:
            del self._by_address[next(iter(self._by_address))]
        wrong.forget(now, self.FORGOTTEN)
        return wrong

    def _wait(self, wrong: _Wrong, now: float) -> float:
        in_all = self._all.not_before if wrong.tries > self.SPARED - 1 else 0.0
        return max(wrong.not_before, in_all) - now

    def _count(self, given: str, wrong: _Wrong, now: float) -> None:
        """Count a wrong code, unless it is none, or the last one again: the page asks twice, to learn why."""
        digest = sha256(_as_compared(given)).digest()
        if not given.strip() or secrets.compare_digest(digest, wrong.last):
            return
        wrong.last = digest
        wrong.add(now, self.FREE, self.LONGEST)
        self._all.forget(now, self.FORGOTTEN / 10)
        self._all.add(now, self.FREE_IN_ALL, self.LONGEST_IN_ALL)


def network_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 network of an IPv6 address (RFC 4291, 2.5.4)."""
    try:
        known = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, IPv6Address):
        mapped = known.ipv4_mapped
        return str(mapped) if mapped is not None else str(ip_network((known, 64), strict=False))
    return str(known)


def page_file(path: str) -> tuple[bytes, dict[str, str]]:
    """Return one file of the page, and the headers that keep everybody else's script out of it."""
    name, kind = PAGE[path]
    return resources.files("chatlab").joinpath("room", "page", name).read_bytes(), {
        **PAGE_HEADERS,
        "Content-Type": kind,
    }


CODE_LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # without 0 O, 1 I L, which look alike on a projector


SHORTEST = 6  # letters: easy to read out, one of 887 million
GUESSES_AN_HOUR = 2000  # about what `CodeGuard` lets through, whoever and however many guess
LUCK = 1e-5  # the chance that guessing all the time may have


def new_code(hours: float = 2.0) -> str:
    """Return a room code of six letters and digits, or of more if the room is open for longer than an afternoon."""
    length = max(SHORTEST, ceil(log(max(hours, 1.0) * GUESSES_AN_HOUR / LUCK, len(CODE_LETTERS))))
    return "".join(secrets.choice(CODE_LETTERS) for _ in range(length))


# What stands for all addresses of a machine, by family: the address to open on this machine, and one that is nobody's
# (RFC 5737, RFC 3849).
EVERYWHERE = {
    "0.0.0.0": (socket.AF_INET, "127.0.0.1", "192.0.2.1"),
    "::": (socket.AF_INET6, "::1", "2001:db8::1"),
}


def lan_address(everywhere: str = "0.0.0.0") -> str:
    """This machine's address on the local network, or its loopback address without one; nothing is sent.

    For a server on `::`, an IPv6 address.
    """
    family, here, nobody = EVERYWHERE[everywhere]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((nobody, 9))  # only a route is looked up
            return str(probe.getsockname()[0])
    except OSError:
        return here


def host_to_open(host: str) -> str:
    """The host to open on this machine: `host` itself, unless it stands for all addresses, which is none to open."""
    return EVERYWHERE[host][1] if host in EVERYWHERE else host


def in_url(host: str) -> str:
    """A host as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def banner(page_url: str, encoding: str = "utf-8") -> str:
    """What to show a class: how to come in, as text and as a QR code, and what has been opened to whom.

    `page_url` as RoomServer.page_url(lan_address()) gives it, with the room code behind the #; `encoding` is that of
    the terminal.
    """
    address, _, code = page_url.partition("#")
    return f"""\
{qr_code(page_url, encoding)}
  address    {address}
  room code  {code or "none: whoever finds the address is in"}

This room is open to every device on this network that can reach that address, until you stop it (Ctrl-C).
It is not encrypted: others on the network can read along. Names are what people type.
"""


def qr_code(text: str, encoding: str = "utf-8") -> str:
    """A QR code in block characters, or how to get one."""
    if not can_show("▀▄█", encoding):
        return f"(no QR code: {encoding}, the encoding of this output, has no blocks; PYTHONIOENCODING=utf-8 has them)"
    try:
        import segno
    except ImportError:
        return '(for a QR code here: pip install "chatlab[lab]")'
    out = StringIO()
    segno.make(text, error="m", micro=False).terminal(out, border=4, compact=True)
    return out.getvalue()
