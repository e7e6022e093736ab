"""Writing to a connection's socket without its transport, for as long as nothing is in the way.

A transport's `write()` costs several calls in Python before it comes to the system call. Where the same bytes go to
hundreds of connections, that is most of what Python does. While a transport has nothing buffered, is not closing and
does not encrypt, `os.write()` to its descriptor does the same. `Direct` stands between the event loop and the
connection's own protocol, so it is told by the loop itself when that begins to hold and when it ends:

    event loop ──► Direct ──► the protocol that was there: aiohttp's, websockets'
                     │ pause_writing      something is buffered      descriptor = None
                     │ resume_writing     all is written             descriptor = 7
                     └ connection_lost    about to be closed         descriptor = None, for good

Left out: what is written, and to whom (fanout.py); Windows, where a socket is no file; TLS.
"""

from __future__ import annotations

import asyncio
import os
from typing import cast


class Direct(asyncio.Protocol):
    """A protocol in front of another: all it is told, it passes on. `heard`: something came since it was set False.

    `descriptor` may be written to whenever it is not None, from the event loop's thread: whole messages only, and if
    the kernel takes part of one, the rest must go to the transport at once.
    """

    descriptor: int | None = None

    def __init__(self, transport: asyncio.Transport) -> None:
        self.heard = True
        self.lost = False
        self.transport = transport
        self._behind = cast(asyncio.Protocol, transport.get_protocol())
        self._usable = _descriptor_of(transport)
        transport.set_write_buffer_limits(high=0)  # so that the first buffered byte is told
        transport.set_protocol(self)
        self.try_directly()

    def try_directly(self) -> None:
        """Look whether the descriptor may be written to; to be called after writing to the transport."""
        in_the_way = self._usable is None or self.transport.get_write_buffer_size() or self.transport.is_closing()
        self.descriptor = None if in_the_way else self._usable

    def never_directly(self) -> None:
        """From now on, everything goes through the transport: the connection is about to close."""
        self.descriptor = self._usable = None

    def abort(self) -> None:
        """Drop the connection with all that is buffered. No matter if it is lost already."""
        self.never_directly()
        if not self.lost:  # asyncio's transport raises then
            self.transport.abort()

    # --- What the event loop calls ---

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        self.heard = True
        self._behind.data_received(data)

    def eof_received(self) -> bool | None:
        """The other end will send no more."""
        return self._behind.eof_received()

    def pause_writing(self) -> None:
        """The kernel took less than it was given."""
        self.descriptor = None
        self._behind.pause_writing()

    def resume_writing(self) -> None:
        """What was buffered is written."""
        self.try_directly()
        self._behind.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed as soon as this returns; its number may be another connection's then."""
        self.never_directly()
        self.lost = True
        self._behind.connection_lost(exc)


def _descriptor_of(transport: asyncio.Transport) -> int | None:
    sock = transport.get_extra_info("socket")
    plain = sock is not None and transport.get_extra_info("sslcontext") is None
    return sock.fileno() if plain and os.name == "posix" else None
