"""Chat clients a cell or a panel can hold: connect, send, and keep a log of what happened.

A client owns one task, the reader, and a log of `Line`s. It never prints: whoever wants to know looks at the log, waits
with `heard()`, or registers in `on_change`. How a chat is spoken is the business of the subclasses: `RoomClient` sends
plain texts over a WebSocket, and its end is its end; `StompMember` speaks STOMP, and comes back when it is cut off.
"""

from __future__ import annotations

import asyncio
import enum
import json
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from chatlab.clients.stomp import Backoff, ClientSubscription, StompClient
from chatlab.clients.stomp import ClientState as StompState
from chatlab.errors import ChatlabError, MessageRefused
from chatlab.stomp.frames import Frame

__all__ = ["ChatClient", "Line", "MemberState", "Reading", "RoomClient", "StompMember"]

JSON = {"content-type": "application/json"}

RECEIPT_SECONDS = 3  # before a text is sent again under the same id
CLOSE_SECONDS = 2  # for a reader to see the end of its connection

Way = Literal["sent", "received", "note"]


class MemberState(enum.Enum):
    """The state of a client's link; the sign goes before the word, so that nothing depends on colour."""

    CLOSED = "○ closed"
    CONNECTING = "◌ connecting"
    OPEN = "● open"


class Reading(enum.Enum):
    """How a client takes what the server sends: the fault one reader can be."""

    NORMALLY = "reads"
    SLOWLY = "one a second"
    NOT_AT_ALL = "does not read"


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of a log: when (seconds, `time.monotonic()`), which way, and the text."""

    at: float
    way: Way
    text: str


class ChatClient:
    """What every client shares: a name, a state, a log, and the one task that reads.

    Subclasses say how to open the link, how to send a text and how to receive the next one.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self.state = MemberState.CLOSED
        self.lines: list[Line] = []
        self.on_change: list[Callable[[], None]] = []
        self._reading = Reading.NORMALLY
        self._reader: asyncio.Task[None] | None = None

    # What a subclass says.

    async def _open(self) -> None:
        raise NotImplementedError

    async def _send(self, text: str) -> None:
        raise NotImplementedError

    async def _receive(self) -> str:
        """Return the next text; raise `ConnectionClosed` or `ChatlabError` when there will be none."""
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError

    def _abort(self) -> None:
        raise NotImplementedError

    # What a cell or a panel calls.

    async def connect(self) -> None:
        """Open the link and start reading; does nothing when it is open already. Errors go into the log, and on."""
        if self.state is not MemberState.CLOSED:
            return
        self._move_to(MemberState.CONNECTING)
        try:
            await self._open()
        except (OSError, InvalidHandshake, ConnectionClosed, ChatlabError) as error:
            self._move_to(MemberState.CLOSED, f"could not connect: {error}")
            raise
        self._move_to(MemberState.OPEN, "connected")
        self.read(self._reading)

    async def send(self, text: str) -> None:
        """Send one text. Raises `ConnectionClosed` when the link is not open."""
        if self.state is not MemberState.OPEN:
            raise ConnectionError(f"{self.name} is not connected; connect first")
        await self._send(text)
        self.note(text, "sent")

    async def close(self) -> None:
        """Leave politely: the close handshake, then nothing more."""
        if self.state is MemberState.OPEN:
            self.read(Reading.NORMALLY)
            await self._close()
        await self._end_reader()

    async def vanish(self) -> None:
        """Drop the connection without a close handshake, as a lost phone does."""
        if self.state is MemberState.OPEN:
            self.note("vanished, without a close")
            self._abort()
            self.read(Reading.NORMALLY)  # so that it notices its own end
        await self._end_reader()

    aclose = close

    def read(self, how: Reading) -> None:
        """Read normally, slowly, or not at all, from now on."""
        self._reading = how
        if how is Reading.NOT_AT_ALL:
            if self._reader is not None:
                self._reader.cancel()
                self._reader = None
        elif self._reader is None and self.state is MemberState.OPEN:
            self._reader = asyncio.create_task(self._read(), name=f"reader of {self.name}")
        self._changed_now()

    def stop_reading(self) -> None:
        """Read nothing from now on, and leave it to the sockets to fill up."""
        self.read(Reading.NOT_AT_ALL)

    @property
    def reading(self) -> Reading:
        """How this client reads now."""
        return self._reading

    @property
    def received(self) -> list[str]:
        """The texts received so far, oldest first."""
        return [line.text for line in self.lines if line.way == "received"]

    @property
    def sent(self) -> list[str]:
        """The texts sent so far, oldest first."""
        return [line.text for line in self.lines if line.way == "sent"]

    async def heard(self, text: str, *, times: int = 1, timeout: float = 5) -> None:
        """Wait until `text` has been received `times` times. Raises `TimeoutError` after `timeout` seconds."""
        await self.until(lambda: sum(text in heard for heard in self.received) >= times, timeout=timeout)

    async def until(self, condition: Callable[[], bool], *, timeout: float = 5) -> None:
        """Wait until `condition()` holds, looking again at each change. Raises `TimeoutError`."""
        changed = asyncio.Event()
        self.on_change.append(changed.set)
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    changed.clear()
                    await changed.wait()
        finally:
            self.on_change.remove(changed.set)

    # What happens by itself.

    async def _read(self) -> None:
        try:
            while True:
                self.note(await self._receive(), "received")
                if self._reading is Reading.SLOWLY:
                    await asyncio.sleep(1)
        except ConnectionClosed as end:
            self._move_to(MemberState.CLOSED, _why_closed(end))
        except (OSError, ChatlabError) as error:
            self._move_to(MemberState.CLOSED, f"closed: {error}")

    async def _end_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is None:
            return
        await asyncio.wait([reader], timeout=CLOSE_SECONDS)
        reader.cancel()

    def _move_to(self, state: MemberState, why: str = "") -> None:
        self.state = state
        if why:
            self.note(why)
        else:
            self._changed_now()

    def note(self, text: str, way: Way = "note") -> None:
        """Add a line to the log, and tell whoever listens."""
        self.lines.append(Line(time.monotonic(), way, text))
        self._changed_now()

    def _changed_now(self) -> None:
        for listener in list(self.on_change):
            listener()


class RoomClient(ChatClient):
    """A member of a room: plain texts over a WebSocket, without compression, so that the bytes can be read.

    `receive_buffer` is the size in bytes of the socket's receive buffer; a small one lets a stalled reader be noticed
    soon, because the kernel takes in less on its behalf. `origin` is sent as a browser would send it.
    """

    def __init__(
        self, url: str, name: str, *, receive_buffer: int | None = None, origin: str | None = None, code: str = ""
    ) -> None:
        super().__init__(url, name)
        self.receive_buffer = receive_buffer
        self.origin = origin
        self.code = code
        self._connection: ClientConnection | None = None

    async def _open(self) -> None:
        query = f"?name={quote(self.name)}" + (f"&code={quote(self.code)}" if self.code else "")
        # max_queue=1: what this client has not read yet waits in the sockets, where the server can notice it.
        self._connection = await connect(
            self.url + query,
            compression=None,
            max_queue=1,
            origin=self.origin,  # type: ignore[arg-type]  # websockets wants its NewType of str
            sock=await self._small_socket() if self.receive_buffer else None,
            proxy=None,
        )

    async def _small_socket(self) -> socket.socket:
        parts = urlsplit(self.url)
        sock = socket.socket(socket.AF_INET)
        # Before connect: the window offered to the server is fixed there (listen(2), tcp(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer or 0)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (parts.hostname, parts.port))
        return sock

    async def _send(self, text: str) -> None:
        await self._link.send(text)

    async def _receive(self) -> str:
        message = await self._link.recv()
        return message if isinstance(message, str) else message.decode(errors="replace")

    async def _close(self) -> None:
        await self._link.close()

    def _abort(self) -> None:
        self._link.transport.abort()

    @property
    def _link(self) -> ClientConnection:
        if self._connection is None:
            raise ConnectionError(f"{self.name} is not connected; connect first")
        return self._connection


class StompMember(ChatClient):
    """A member of a chat that speaks STOMP: JSON to `/app/chat.sendMessage`, and what the room's topic brings.

    `send` returns when the server has said that the message is stored (RECEIPT). When the connection is lost, it comes
    back by itself and is sent what it missed, unless `reconnect` is off. A text received reads "sender: content"; what
    the server says on `/user/queue/errors` is noted in the log. `subscribe` is for SUBSCRIBE's headers.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        room: str = "public",
        reconnect: bool = True,
        subscribe: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, name)
        self.room = room
        self.messages: list[Frame] = []  # as they came, headers and all
        self.stored: list[str] = []  # texts for which a RECEIPT came: the chat has promised to keep them
        self._subscribe_headers = dict(subscribe or {})
        self._options = {
            "login": name,
            "client_key": uuid.uuid4().hex,  # the same guest each time it connects
            "reconnect": reconnect,
            "backoff": Backoff(first=0.05, longest=1.0),
            **options,
        }
        self._stomp: StompClient | None = None
        self._subscription: ClientSubscription | None = None
        self._errors: asyncio.Task[None] | None = None

    @property
    def destination(self) -> str:
        """The topic of this member's room."""
        return "/topic/public" if self.room == "public" else f"/topic/room.{self.room}"

    @property
    def stomp(self) -> StompClient:
        """The client behind it. Raises `ConnectionError` before the first `connect`."""
        if self._stomp is None:
            raise ConnectionError(f"{self.name} is not connected; connect first")
        return self._stomp

    async def vanish(self) -> None:
        """Drop the connection without a goodbye, and do not come back."""
        if self._stomp is not None and self.state is not MemberState.CLOSED:
            self.note("vanished, without a close")
            self._stomp.drop()
            await self._leave(timeout=0)
        await self._end_reader()

    def drop(self) -> None:
        """Lose the connection, as in a tunnel; the client notices, and comes back."""
        self.stomp.drop()

    async def _open(self) -> None:
        self._stomp = StompClient(self.url, on_change=self._follow, **self._options)
        await self._stomp.connect()
        errors = await self._stomp.subscribe("/user/queue/errors")
        self._errors = asyncio.create_task(self._note_errors(errors), name=f"errors of {self.name}")
        self._subscription = await self._stomp.subscribe(self.destination, headers=self._subscribe_headers)

    async def send_until_stored(self, text: str) -> None:
        """Send `text`; if its RECEIPT does not come, again under the same id, so that it is stored once."""
        client_id = uuid.uuid4().hex
        self.note(text, "sent")
        while True:
            try:
                async with asyncio.timeout(RECEIPT_SECONDS):
                    return await self._send_once(text, client_id)
            except (ConnectionError, TimeoutError, MessageRefused):  # stored or not: only a repeat can tell
                await asyncio.sleep(0.05)

    async def send(self, text: str) -> None:
        """Send one text; return when its RECEIPT has come.

        Raises `ConnectionError` when the link is not open, `MessageRefused` when the chat does not take it.
        """
        if self.state is not MemberState.OPEN:
            raise ConnectionError(f"{self.name} is not connected; connect first")
        self.note(text, "sent")  # before the RECEIPT, which may come after the message itself
        await self._send_once(text, uuid.uuid4().hex)

    async def _send_once(self, text: str, client_id: str) -> None:
        content = {"content": text, "room": self.room, "client_id": client_id}
        await self.stomp.send("/app/chat.sendMessage", json.dumps(content, ensure_ascii=False).encode(), JSON)
        self.stored.append(text)

    async def _receive(self) -> str:
        assert self._subscription is not None
        try:
            message = await anext(self._subscription)
        except StopAsyncIteration:
            raise ConnectionError("closed") from None
        self.messages.append(message)
        said = json.loads(message.body)
        return f"{said.get('sender') or 'somebody'}: {said.get('content')}"

    async def _close(self) -> None:
        await self._leave(timeout=2)

    async def _leave(self, timeout: float) -> None:
        if self._errors is not None:
            self._errors.cancel()
        await self.stomp.aclose(timeout)

    async def _note_errors(self, errors: ClientSubscription) -> None:
        async for error in errors:
            self.note(f"error: {error.body.decode(errors='replace')}")

    def _follow(self) -> None:
        """Show what the client underneath does by itself: lose the connection, and come back."""
        if self.state is MemberState.OPEN and self.stomp.state is StompState.WAITING:
            self._move_to(MemberState.CONNECTING, "connection lost; coming back")
        elif self.state is MemberState.CONNECTING and self._subscription and self.stomp.state is StompState.OPEN:
            self._move_to(MemberState.OPEN, "back again")


def _why_closed(end: ConnectionClosed) -> str:
    """The close code and reason in words a learner can look up (RFC 6455, section 7.4)."""
    if end.rcvd is None:
        return "closed: the connection ended without a close frame (1006)"
    return f"closed: {end.rcvd.code} {end.rcvd.reason}".rstrip()
