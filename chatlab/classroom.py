"""The room for a class: its page, its room code, and what the terminal shows so that phones find it.

Anyone who opens the page is a member like any other. The page is three files in `room/page/`, without a library; it
shows what the room sends as text, never as markup. The rest is for `chatlab serve room --lan`, which opens the room to
the local network: a room code, the address to type or scan, and a notice about who can come in.

Left out: encryption and accounts. This is for an hour among people who can see each other.
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
from chatlab.locale import _
from chatlab.locale.pages import translated_html, words_script

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/words.js": ("room.js", "text/javascript; charset=utf-8"),  # what room.js says, in the page's language
    "/room.js": ("room.js", "text/javascript; charset=utf-8"),
    "/room.css": ("room.css", "text/css; charset=utf-8"),
}
# These files and WebSockets, nothing else; never inside a frame. In older Safaris 'self' does not cover ws: and wss:.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'"  # not shown: a header
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def same_code(given: str, code: str) -> bool:
    """Compare room codes as people type them, in constant time."""
    return secrets.compare_digest(_as_compared(given), _as_compared(code))


def _as_compared(code: str) -> bytes:
    return code.strip().upper().encode(errors="replace")


@dataclass(slots=True)
class _Wrong:
    """Recent wrong codes. `count` and, slower, `tries` shrink with time; `not_before` is on the guard's clock."""

    count: float = 0.0
    tries: float = 0.0
    at: float = 0.0
    not_before: float = 0.0
    last: bytes = b""  # a digest of the last one

    def forget(self, now: float, seconds: float) -> None:
        """Forget one wrong try for each `seconds` that have passed."""
        self.count = max(0.0, self.count - (now - self.at) / seconds)
        self.tries = max(0.0, self.tries - (now - self.at) / (60 * seconds))
        self.at = now

    def add(self, now: float, free: int, longest: float) -> None:
        """Count one more; after `free` of them the wait before the next try doubles each time."""
        self.count = min(self.count + 1, free + 10)
        self.tries += 1
        if self.count > free:
            self.not_before = now + min(longest, 2 ** (self.count - free - 1))


class CodeGuard:
    """The room code, and a limit on guessing it: a few tries are free, then each costs a growing wait.

    The wait is capped, so that a class behind one address gets in even if someone there is guessing; the code is long
    enough for that (`new_code`). Tries from all addresses together are limited too, but an address with few wrong tries
    is exempt; otherwise one guesser could lock everyone out. An IPv6 network (/64) counts as one address, because a
    machine can take as many addresses as it likes. Nothing that reveals the code is logged or kept.
    """

    FREE = 12  # wrong codes from one address: a class also mistypes
    LONGEST = 15.0  # seconds until its next try
    FREE_IN_ALL = 60
    LONGEST_IN_ALL = 2.0
    SPARED = 3  # wrong codes that an address may try, and again each hour, whatever others do
    FORGOTTEN = 20.0  # seconds after which one wrong code no longer counts
    MAX_ADDRESSES = 4096

    def __init__(self, code: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.code = code
        self._clock = clock
        self._all = _Wrong()
        self._by_address: dict[str, _Wrong] = {}

    def check(self, given: str, address: str = "") -> None:
        """Return if `given` is the code; raise HandshakeError 403 if it is wrong, 429 if it is too soon to try."""
        now = self._clock()
        wrong = self._of(network_of(address), now)
        if given.strip() and (wait := self._wait(wrong, now)) > 0:
            seconds = str(ceil(wait))
            message = f"too many wrong room codes from this address; try again in {seconds} s"  # not shown: on the wire
            raise HandshakeError(message, HTTPStatus.TOO_MANY_REQUESTS, (("Retry-After", seconds),))
        if same_code(given, self.code):
            wrong.count /= 2
            return
        self._count(given, wrong, now)
        raise HandshakeError("wrong room code", HTTPStatus.FORBIDDEN)  # not shown: on the wire

    def _of(self, network: str, now: float) -> _Wrong:
        wrong = self._by_address.pop(network, None) or _Wrong(at=now)
        self._by_address[network] = wrong  # moved to the end: the first is the least recently used
        if len(self._by_address) > self.MAX_ADDRESSES:
            del self._by_address[next(iter(self._by_address))]
        wrong.forget(now, self.FORGOTTEN)
        return wrong

    def _wait(self, wrong: _Wrong, now: float) -> float:
        in_all = self._all.not_before if wrong.tries > self.SPARED - 1 else 0.0
        return max(wrong.not_before, in_all) - now

    def _count(self, given: str, wrong: _Wrong, now: float) -> None:
        """Count a wrong code, unless it is empty or a repeat: the page asks again to learn why it was refused."""
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
    """Return one file of the page, translated, with the headers that keep other sites' scripts out of it."""
    name, kind = PAGE[path]
    text = resources.files("chatlab").joinpath("room", "page", name).read_text("utf-8")
    text = {"/": translated_html, "/words.js": words_script}.get(path, str)(text)
    return text.encode(), {**PAGE_HEADERS, "Content-Type": kind}


CODE_LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # without 0 O, 1 I L, which look alike on a projector


SHORTEST = 6  # characters: easy to read out, one of 887 million
GUESSES_AN_HOUR = 2000  # about what `CodeGuard` lets through, from any number of addresses
LUCK = 1e-5  # the highest accepted chance of success for constant guessing


def new_code(hours: float = 2.0) -> str:
    """Return a room code of six letters and digits, or more if the room is open for longer than an afternoon."""
    length = max(SHORTEST, ceil(log(max(hours, 1.0) * GUESSES_AN_HOUR / LUCK, len(CODE_LETTERS))))
    return "".join(secrets.choice(CODE_LETTERS) for __ in range(length))


# Each wildcard address: its family, the address to open on this machine, and an address reserved for documentation
# (RFC 5737, RFC 3849), which nobody has.
WILDCARDS = {
    "0.0.0.0": (socket.AF_INET, "127.0.0.1", "192.0.2.1"),
    "::": (socket.AF_INET6, "::1", "2001:db8::1"),
}


def lan_address(wildcard: str = "0.0.0.0") -> str:
    """Return this machine's address on the local network, or its loopback address if it has none. Sends nothing.

    For a server on `::`, an IPv6 address.
    """
    family, here, unused = WILDCARDS[wildcard]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((unused, 9))  # only a route is looked up
            return str(probe.getsockname()[0])
    except OSError:
        return here


def host_to_open(host: str) -> str:
    """Return the host to open on this machine: `host` itself, or the loopback address if `host` is a wildcard."""
    return WILDCARDS[host][1] if host in WILDCARDS else host


def in_url(host: str) -> str:
    """Return a host as it is written in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def banner(page_url: str, encoding: str = "utf-8") -> str:
    """Return what to show a class: the address as text and as a QR code, the room code, and who can come in.

    `page_url` is RoomServer.page_url(lan_address()), with the room code after the #; `encoding` is the terminal's.
    """
    address, __, code = page_url.partition("#")
    text = _("""\
  address    {address}
  room code  {code}

This room is open to every device on this network that can reach that address, until you stop it (Ctrl-C).
It is not encrypted: others on the network can read along. Names are what people type.
""")
    code = code or _("none: anyone who finds the address can come in")
    return f"{qr_code(page_url, encoding)}\n{text.format(address=address, code=code)}"


def qr_code(text: str, encoding: str = "utf-8") -> str:
    """Return a QR code in block characters, or a note on how to get one."""
    if not can_show("▀▄█", encoding):
        text = _(
            "(no QR code: {encoding}, the encoding of this output, has no blocks; PYTHONIOENCODING=utf-8 has them)"
        )
        return text.format(encoding=encoding)
    try:
        import segno
    except ImportError:
        return _('(for a QR code here: pip install "chatlab[lab]")')
    out = StringIO()
    segno.make(text, error="m", micro=False).terminal(out, border=4, compact=True)
    return out.getvalue()
