"""Admission to a room: what is checked before an HTTP request may become a member."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from chatlab.classroom import CodeGuard
from chatlab.errors import HandshakeError
from chatlab.room.lines import required_name
from chatlab.websocket import handshake
from chatlab.websocket.handshake import Agreement, Request, Response

PATH = "/room"


@dataclass(frozen=True)
class Admission:
    """Decides which requests may become members: by path, room code and name, then by the rules of every handshake."""

    origins: Sequence[str] = ()
    guard: CodeGuard | None = None
    compression: bool = False
    names: Collection[str] = ("*",)

    def __call__(self, request: Request, address: str = "") -> tuple[Response, Agreement]:
        """Return the response that accepts `request`; raise `HandshakeError` with the status that refuses it.

        `address` is the client's address, by which wrong room codes are counted.
        """
        handshake.check_host(request, self.names, self.origins)
        if _path(request.target) != PATH:
            raise HandshakeError(f"nothing here; the room is at {PATH}", status=404)
        if self.guard is not None:
            self.guard.check(query(request.target, "code") or "", address)
        asked_name(request.target)
        return handshake.accept(request, origins=self.origins, names=self.names, compression=self.compression)


def _path(target: str) -> str:
    try:
        return urlsplit(target).path
    except ValueError:
        raise HandshakeError("target is not a URL") from None  # it is not shown, as it may hold the room code


def query(target: str, name: str) -> str | None:
    """Return the last value of a query parameter, or None."""
    try:
        return parse_qs(urlsplit(target).query, max_num_fields=10).get(name, [None])[-1]
    except ValueError:
        raise HandshakeError("more than 10 query parameters") from None


def asked_name(target: str) -> str | None:
    """Return the name a request asks for. Raise `HandshakeError` if it could pass for something else."""
    return required_name(query(target, "name") or "")


def peer_address(peer: Sequence[object] | None) -> str:
    """Return the client's address for logs and metrics, as in 127.0.0.1:50123."""
    host, port, *_ = peer or ("?", 0)
    return f"{host}:{port}"
