"""Chat clients for a cell or a panel: connect, send, and keep a log of what happened.

A client owns one task, the reader, and a log of `Line`s. It never prints: read the log, wait with `heard()`, or add a
callback to `on_change`. Subclasses speak the protocol. `RoomClient` sends plain texts over a WebSocket and stays closed
when the connection ends; `StompMember` speaks STOMP and reconnects after it loses the connection.
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
from typing import Literal
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from chatlab.clients.stomp import Backoff, ClientSubscription, StompClient
from chatlab.clients.stomp import ClientState as StompState
from chatlab.errors import ChatlabError, MessageRefused
from chatlab.locale import _
from chatlab.stomp.frames import Frame

__all__ = ["ChatClient", "Line", "MemberState", "Reading", "RoomClient", "StompMember"]

JSON = {"content-type": "application/json"}

TCP_ENDED = (7, 8)  # in Linux's tcp_info: CLOSE, CLOSE_WAIT
WATCH_SECONDS = 0.25  # between two looks at the connection of a client that does not read
RECEIPT_SECONDS = 3  # to wait for a RECEIPT before a text is sent again under the same id
CLOSE_SECONDS = 2  # to wait for a reader to see the end of its connection

Way = Literal["sent", "received", "note"]


class MemberState(enum.Enum):
    """The state of a client's connection; a symbol precedes the word, so that nothing depends on colour."""

    CLOSED = _("○ closed")
    CONNECTING = _("◌ connecting")
    OPEN = _("● open")


class Reading(enum.Enum):
    """How a client reads from the server; a slow reader is one of the faults to try."""

    NORMALLY = _("reads")
    SLOWLY = _("one a second")
    NOT_AT_ALL = _("does not read")


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of a log: the time (seconds, `time.monotonic()`), the direction, and the text."""

    at: float
    way: Way
    text: str


class ChatClient:
    """The base of all clients: a name, a state, a log, and the task that reads.

    Subclasses open the connection, send a text, and receive the next one.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self.state = MemberState.CLOSED
        self.lines: list[Line] = []
        self.on_change: list[Callable[[], None]] = []
        self._reading = Reading.NORMALLY
        self._reader: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None  # while the client does not read

    # For subclasses to implement.

    async def _open(self) -> None:
        raise NotImplementedError

    async def _send(self, text: str) -> None:
        raise NotImplementedError

    async def _receive(self) -> str:
        """Return the next text; raise `ConnectionClosed` or `ChatlabError` when there are no more."""
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError

    def _abort(self) -> None:
        raise NotImplementedError

    def _is_cut_off(self) -> bool:
        """Return whether the peer has ended the connection, seen without reading from it; False if unknown."""
        return False

    # For cells and panels to call.

    async def connect(self) -> None:
        """Open the connection and start reading, unless it is open already. Errors are logged and raised again."""
        if self.state is not MemberState.CLOSED:
            return
        self._move_to(MemberState.CONNECTING)
        try:
            await self._open()
        except (OSError, InvalidHandshake, ConnectionClosed, ChatlabError) as error:
            self._move_to(MemberState.CLOSED, _("could not connect: {error}").format(error=error))
            raise
        self._move_to(MemberState.OPEN, _("connected"))
        self.read(self._reading)

    async def send(self, text: str) -> None:
        """Send one text. Raises `ConnectionError` when the connection is not open."""
        if self.state is not MemberState.OPEN:
            raise _not_connected(self.name)
        await self._send(text)
        self.note(text, "sent")

    async def close(self) -> None:
        """Close the connection with the closing handshake, and stop reading."""
        if self.state is MemberState.OPEN:
            self.read(Reading.NORMALLY)
            await self._close()
        await self._end_reader()

    async def vanish(self) -> None:
        """Drop the connection without a closing handshake, as a phone does that loses its network."""
        if self.state is MemberState.OPEN:
            self.note(_("vanished, without a close"))
            self._abort()
            self.read(Reading.NORMALLY)  # so that it notices the end of its connection
        await self._end_reader()

    aclose = close

    def read(self, how: Reading) -> None:
        """Read normally, slowly, or not at all, from now on."""
        self._reading = how
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
        if how is Reading.NOT_AT_ALL:
            if self._reader is not None:
                self._reader.cancel()
                self._reader = None
            self._watcher = asyncio.create_task(self._watch(), name=f"watcher-{self.name}")
        elif self.state is MemberState.OPEN and (self._reader is None or self._reader.done()):
            self._reader = asyncio.create_task(self._read(), name=f"reader-{self.name}")
        self._changed_now()

    def stop_reading(self) -> None:
        """Stop reading, so that the sockets' buffers fill up."""
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
        await self.until(lambda: sum(text in received for received in self.received) >= times, timeout=timeout)

    async def until(self, condition: Callable[[], bool], *, timeout: float = 5) -> None:
        """Wait until `condition()` holds, checked after each change. Raises `TimeoutError`."""
        changed = asyncio.Event()
        self.on_change.append(changed.set)
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    changed.clear()
                    await changed.wait()
        finally:
            self.on_change.remove(changed.set)

    # In the background.

    async def _read(self) -> None:
        try:
            while True:
                self.note(await self._receive(), "received")
                if self._reading is Reading.SLOWLY:
                    await asyncio.sleep(1)
        except ConnectionClosed as end:
            self._move_to(MemberState.CLOSED, _why_closed(end))
        except (OSError, ChatlabError) as error:
            self._move_to(MemberState.CLOSED, _("closed: {error}").format(error=error))

    async def _watch(self) -> None:
        """Log when the peer ends a connection that nobody reads: the client itself would not notice."""
        while self.state is MemberState.OPEN:
            if self._is_cut_off():
                self.note(_("the server has ended the connection; a client that does not read has not noticed"))
                return
            await asyncio.sleep(WATCH_SECONDS)

    async def _end_reader(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None
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
        """Add a line to the log and notify the listeners."""
        self.lines.append(Line(time.monotonic(), way, text))
        self._changed_now()

    def _changed_now(self) -> None:
        for listener in list(self.on_change):
            listener()


class RoomClient(ChatClient):
    """A member of a room: plain texts over a WebSocket, without compression, so that the bytes are legible.

    `receive_buffer` is the size in bytes of the socket's receive buffer. With a small one the server soon notices a
    stalled reader, because the kernel buffers less for it. `origin` is sent as a browser would send it.
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
        # max_queue=1: texts that are not read yet wait in the sockets, where the server notices them.
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
        # Set it before connecting: the window offered to the server is fixed then (tcp(7)).
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

    def _is_cut_off(self) -> bool:
        return self._connection is not None and _peer_has_ended(self._connection.transport)

    @property
    def _link(self) -> ClientConnection:
        if self._connection is None:
            raise _not_connected(self.name)
        return self._connection


class StompMember(ChatClient):
    """A chat member that speaks STOMP: it sends JSON to `/app/chat.sendMessage` and receives its room's topic.

    `send` returns when the server has confirmed that the message is stored (RECEIPT). When the connection is lost, the
    client reconnects and receives the messages it missed, unless `reconnect` is False. A text received reads "sender:
    content". Errors sent to `/user/queue/errors` are logged. `subscribe` holds the headers of SUBSCRIBE, and
    `heart_beat` the milliseconds of CONNECT. Without `receipts` it asks for none, as with Spring's simple broker, which
    sends none; then nothing counts as `stored`.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        room: str = "public",
        reconnect: bool = True,
        receipts: bool = True,
        subscribe: Mapping[str, str] | None = None,
        heart_beat: tuple[int, int] = (10_000, 10_000),
    ) -> None:
        super().__init__(url, name)
        self.room = room
        self._receipts = receipts
        self.returns = 0  # how often it was back after its connection was lost
        self.messages: list[Frame] = []  # as received, with their headers
        self.stored: list[str] = []  # texts whose RECEIPT has come: the chat has promised to keep them
        self._subscribe_headers = dict(subscribe or {})
        self._client_key = uuid.uuid4().hex  # the same guest each time it connects
        self._reconnect = reconnect
        self._heart_beat = heart_beat
        self._stomp: StompClient | None = None
        self._subscription: ClientSubscription | None = None
        self._errors: asyncio.Task[None] | None = None

    @property
    def destination(self) -> str:
        """The topic of this member's room."""
        return "/topic/public" if self.room == "public" else f"/topic/room.{self.room}"

    @property
    def session(self) -> str:
        """The server's name for this member's session, "" while it has none; the server's log names it too."""
        is_open = self._stomp is not None and self.state is MemberState.OPEN
        return (self.stomp.connected.get("session") or "") if is_open else ""

    @property
    def stomp(self) -> StompClient:
        """The underlying STOMP client. Raises `ConnectionError` before the first `connect`."""
        if self._stomp is None:
            raise _not_connected(self.name)
        return self._stomp

    async def close(self) -> None:
        """Close in order; stop reconnecting if the connection is lost."""
        if self.state is MemberState.CONNECTING and self._stomp is not None:
            await self._leave(timeout=0)
        await super().close()

    aclose = close

    async def vanish(self) -> None:
        """Drop the connection without DISCONNECT, and do not reconnect."""
        if self._stomp is not None and self.state is not MemberState.CLOSED:
            self.note(_("vanished, without a close"))
            self._stomp.drop()
            await self._leave(timeout=0)
        await self._end_reader()

    def drop(self) -> None:
        """Lose the connection, as a phone does in a tunnel; the client notices and reconnects."""
        self.stomp.drop()

    async def _open(self) -> None:
        self._stomp = StompClient(
            self.url,
            login=self.name,
            client_key=self._client_key,
            heart_beat=self._heart_beat,
            reconnect=self._reconnect,
            backoff=Backoff(first=0.05, longest=1.0),
            on_change=self._follow_link,
        )
        await self._stomp.connect()
        errors = await self._stomp.subscribe("/user/queue/errors", receipt=self._receipts)
        self._errors = asyncio.create_task(self._note_errors(errors), name=f"errors-{self.name}")
        self._subscription = await self._stomp.subscribe(
            self.destination, headers=self._subscribe_headers, receipt=self._receipts
        )

    async def send_until_stored(self, text: str) -> None:
        """Send `text` until its RECEIPT comes, each time under the same id, so that it is stored once."""
        client_id = uuid.uuid4().hex
        self.note(text, "sent")
        while True:
            try:
                async with asyncio.timeout(RECEIPT_SECONDS):
                    return await self.try_to_send(text, client_id)
            except (ConnectionError, TimeoutError, MessageRefused):  # it may be stored or not: only a repeat tells
                await asyncio.sleep(0.05)

    async def send(self, text: str) -> None:
        """Send one text; return when its RECEIPT has come.

        Raises `ConnectionError` when the connection is not open, `MessageRefused` when the chat refuses the text.
        """
        if self.state is not MemberState.OPEN:
            raise _not_connected(self.name)
        self.note(text, "sent")  # before the RECEIPT, which may come after the message itself
        await self.try_to_send(text, uuid.uuid4().hex)

    async def try_to_send(self, text: str, client_id: str) -> None:
        """Send `text` under an id, once; return when its RECEIPT has come.

        Waits while the client is reconnecting. Raises `ConnectionError` when the connection is lost before the RECEIPT,
        `MessageRefused` when the chat refuses the text.
        """
        content = {"content": text, "room": self.room, "client_id": client_id}
        body = json.dumps(content, ensure_ascii=False).encode()
        await self.stomp.send("/app/chat.sendMessage", body, JSON, receipt=self._receipts)
        if self._receipts:
            self.stored.append(text)

    async def _receive(self) -> str:
        assert self._subscription is not None
        try:
            message = await anext(self._subscription)
        except StopAsyncIteration:
            raise ConnectionError(_("closed")) from None
        self.messages.append(message)
        body = json.loads(message.body)
        sender = body.get("sender") or _("somebody")
        return f"{sender}: {body.get('content')}"

    async def _close(self) -> None:
        await self._leave(timeout=2)

    async def _leave(self, timeout: float) -> None:
        if self._errors is not None:
            self._errors.cancel()
        await self.stomp.aclose(timeout)

    async def _note_errors(self, errors: ClientSubscription) -> None:
        async for error in errors:
            self.note(_("error: {error}").format(error=error.body.decode(errors="replace")))

    def _follow_link(self) -> None:
        """Show when the underlying client loses its connection, and when it is back."""
        if self.state is MemberState.OPEN and self.stomp.state is StompState.WAITING:
            self._move_to(MemberState.CONNECTING, _("connection lost; coming back"))
        elif self.state is MemberState.CONNECTING and self._subscription and self.stomp.state is StompState.OPEN:
            self.returns += 1
            self._move_to(MemberState.OPEN, _("back again"))


def _peer_has_ended(transport: asyncio.Transport) -> bool:
    """Return whether a FIN or a RST has come; if the transport is paused, only Linux can say so."""
    if transport.is_closing():
        return True
    known = getattr(socket, "TCP_INFO", None)
    sock = transport.get_extra_info("socket")
    if known is None or sock is None or sock.fileno() < 0:
        return False
    state: int = sock.getsockopt(socket.IPPROTO_TCP, known, 1)[0]
    return state in TCP_ENDED


def _not_connected(name: str) -> ConnectionError:
    return ConnectionError(_("{name} is not connected; connect first").format(name=name))


def _why_closed(end: ConnectionClosed) -> str:
    """Return the close code and reason, which a learner can look up (RFC 6455, section 7.4)."""
    if end.rcvd is None:
        return _("closed: the connection ended without a close frame (1006)")
    return _("closed: {code} {reason}").format(code=end.rcvd.code, reason=end.rcvd.reason).rstrip()
