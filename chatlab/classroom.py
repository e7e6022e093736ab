"""The room for a class: its page, its room code, and what the terminal shows so that phones find it.

Whoever opens the page is a member like any other. The page is three files in `room_page/`, without a library, that
show what the room sends as text, never as markup. The rest is for `chatlab serve room --lan`, which opens the room to
the local network: a code to come in with, the address to type or to scan, and a plain word on what is open to whom.

Left out: encryption and accounts. This is for an hour among people who see each other.
"""

from __future__ import annotations

import secrets
import socket
from importlib import resources
from io import StringIO

from chatlab.console import can_show

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
    return secrets.compare_digest(given.strip().upper().encode(), code.upper().encode())


def page_file(path: str) -> tuple[bytes, dict[str, str]]:
    """Return one file of the page, and the headers that keep everybody else's script out of it."""
    name, kind = PAGE[path]
    return resources.files("chatlab").joinpath("room_page", name).read_bytes(), {**PAGE_HEADERS, "Content-Type": kind}


CODE_LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # without 0 O, 1 I L, which look alike on a projector


def new_code() -> str:
    """A room code of six letters and digits: easy to read out, one of 887 million."""
    return "".join(secrets.choice(CODE_LETTERS) for _ in range(6))


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
