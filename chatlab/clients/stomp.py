"""A STOMP client for asyncio, over WebSocket.

    async with StompClient("ws://127.0.0.1:8080/ws", login="kim") as client:
        subscription = await client.subscribe("/topic/public")
        await client.send("/app/chat.sendMessage", b'{"content":"hello"}')     # returns with the RECEIPT
        async for message in subscription:                                     # a Frame: .get("message-id"), .body
            ...

It sends heart-beats, and reconnects with a growing backoff when the connection is lost (retry.py). Then it restores its
subscriptions; on topics it sends the id of the last message received (`last-id`), so that missed messages come first.
Before the first message, that is the id which chatlab's server sends in the RECEIPT of a SUBSCRIBE with `history:0`.

The environment's proxy is used for remote servers, but never for loopback (proxies.py).

STOMP has no way to refuse a single message and keep the session. A server may do it with a MESSAGE on the queue
`/user/queue/errors` that has the `receipt-id` of the SEND. A client subscribed to that queue raises MessageRefused,
instead of waiting for a RECEIPT that will never arrive.

Left out: resending. If the connection is lost before a SEND's RECEIPT arrives, the message may or may not have been
processed. `send` raises ConnectionError, and the caller decides whether to send it again. With chatlab's server that
is safe if the JSON is the same and has a `client_id` that is random and unique to the message.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from chatlab.errors import MessageRefused, RemoteProtocolError, StompError, SubscriptionLost
from chatlab.proxies import proxy_for
from chatlab.retry import Backoff, Retry
from chatlab.stomp.events import AckMode
from chatlab.stomp.frames import EOL, VERSIONS, Frame, Heartbeat, Limits, Parser
from chatlab.stomp.heartbeat import HeartBeat, agree, parse_heart_beat
from chatlab.stomp.session import SUBPROTOCOLS
from chatlab.tasks import Tasks
from chatlab.untrusted_json import parse

__all__ = ["Backoff", "ClientState", "ClientSubscription", "StompClient"]

logger = logging.getLogger("chatlab.clients.stomp")

HeaderFields = Mapping[str, str]
NO_HEADERS: HeaderFields = {}
ERRORS = "/user/queue/errors"
DEFAULT_BACKOFF = Backoff(first=0.2, longest=20.0)


class ClientState(enum.Enum):
    """A client's state."""

    CLOSED = "closed"
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting to reconnect"


class ConnectOptions(TypedDict, total=False):
    """Options of `connect` of `websockets`."""

    proxy: str | Literal[True] | None  # True: the environment's. Default: that, but none for loopback
    ssl: SSLContext  # for wss://
    additional_headers: Mapping[str, str]  # of the opening handshake


class StompClient:
    """One client, which reconnects as needed.

    `login`, `passcode` and `headers` are sent with CONNECT, and so is `client_key`, the secret by which our chat
    recognises a guest that reconnects; by default it is random. `heart_beat` is what we can send and want to receive,
    in milliseconds. `versions` are offered to the server. `backoff` is the wait before reconnecting. `on_change` is
    called after each change of `state`. `options` are passed to `connect` of `websockets`.
    """

    def __init__(
        self,
        url: str,
        *,
        login: str | None = None,
        passcode: str | None = None,
        headers: HeaderFields = NO_HEADERS,
        client_key: str | None = None,
        heart_beat: tuple[int, int] = (10_000, 10_000),
        versions: tuple[str, ...] = VERSIONS,
        reconnect: bool = True,
        backoff: Backoff | None = None,
        connect_timeout: float = 10.0,
        limits: Limits | None = None,
        on_change: Callable[[], None] | None = None,
        **options: Unpack[ConnectOptions],
    ) -> None:
        self.url = url
        self.state = ClientState.CLOSED
        self.connected = Frame("CONNECTED")  # the server's answer to CONNECT
        self.attempts = 0  # to connect, since the client was created
        self.lost: Exception | None = None  # why the last connection was lost
        self._connect_headers = _connect_headers(
            url, login, passcode, versions, heart_beat, {"client-key": client_key or secrets.token_hex(16), **headers}
        )
        self._heart_beat = heart_beat
        self._reconnect = reconnect
        self._backoff = backoff or DEFAULT_BACKOFF
        self._connect_timeout = connect_timeout
        self._limits = limits or Limits(max_frame=16 * 1024 * 1024)
        self._on_change = on_change
        self._options = options
        self._link: _Link | None = None
        self._may_send = asyncio.Event()  # set while open, and once closed permanently
        self._receipts: dict[str, asyncio.Future[Frame]] = {}
        self._subscriptions: dict[str, ClientSubscription] = {}
        self._tasks = Tasks(logger)
        self._task: asyncio.Task[None] | None = None
        self._numbers = itertools.count()
        self._subscription_numbers = itertools.count()

    # --- Connecting and closing ---

    async def connect(self) -> None:
        """Connect, trying once. Raise OSError if nothing listens there, StompError if the server refuses."""
        if self._task is not None:
            return
        self._may_send.clear()
        self._move_to(ClientState.CONNECTING)
        try:
            await self._open_link()
        except BaseException:
            self._move_to(ClientState.CLOSED)
            raise
        self._task = self._tasks.start(self._run(), name=f"STOMP client of {self.url}")

    async def aclose(self, timeout: float = 5.0) -> None:
        """Close in order: DISCONNECT, its RECEIPT, the WebSocket. Subscriptions end. Safe to call twice."""
        task, self._task = self._task, None
        if task is None:
            return
        # "A client can disconnect at anytime by closing the socket but there is no guarantee that the previously sent
        # frames have been received": the receipt gives that guarantee.
        link = self._link
        with suppress(OSError, StompError, TimeoutError):
            async with asyncio.timeout(timeout):
                if link is not None:
                    await self._request("DISCONNECT")
                    await link.websocket.close()
        task.cancel()
        await asyncio.wait([task])

    def drop(self) -> None:
        """Abort the connection without DISCONNECT or close, as if the network had failed; the client reconnects."""
        if self._link is not None:
            self._link.websocket.transport.abort()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- Commands ---

    async def send(
        self,
        destination: str,
        body: bytes | str = b"",
        headers: HeaderFields = NO_HEADERS,
        *,
        transaction: str | None = None,
        receipt: bool = True,
    ) -> None:
        """Send one message, and return when the server confirms it with a RECEIPT (or at once, without `receipt`).

        Waits while the client is reconnecting. Raises StompError if the server refuses and closes, MessageRefused if it
        refuses only this message (on `/user/queue/errors`, if subscribed to), ConnectionError if the connection is lost
        before the RECEIPT: the message may or may not have been processed.
        """
        named = {"destination": destination, **headers}
        if transaction is not None:
            named["transaction"] = transaction
        octets = body.encode() if isinstance(body, str) else body
        if receipt:
            await self._request("SEND", named, octets)
        else:
            await self._transmit(Frame("SEND", tuple(named.items()), octets))

    async def subscribe(
        self,
        destination: str,
        *,
        ack: AckMode | str = AckMode.AUTO,
        headers: HeaderFields = NO_HEADERS,
        last_id: str | None = None,
        resume: bool | None = None,
        max_waiting: int = 10_000,
        receipt: bool = True,
    ) -> ClientSubscription:
        """Subscribe, and return an async iterator of MESSAGE frames once the server has confirmed (or at once).

        With `resume` (the default for `/topic/`), a new connection requests the messages after the last one received.
        If more than `max_waiting` messages are queued, the subscription ends with SubscriptionLost.
        """
        subscription = ClientSubscription(
            self,
            f"sub-{next(self._subscription_numbers)}",
            destination,
            AckMode(ack),
            headers,
            last_id,
            resume=destination.startswith("/topic/") if resume is None else resume,
            max_waiting=max_waiting,
        )
        self._subscriptions[subscription.id] = subscription
        try:
            if receipt:
                subscription.confirm(await self._request("SUBSCRIBE", subscription.headers()))
            else:
                await self._transmit(Frame("SUBSCRIBE", tuple(subscription.headers().items())))
        except BaseException:
            self._subscriptions.pop(subscription.id, None)
            raise
        return subscription

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[str]:
        """Begin a transaction and yield its name, for `send` and `ack`. Commit it, or abort it if the block raises."""
        name = f"tx-{next(self._numbers)}"
        await self._request("BEGIN", {"transaction": name})
        try:
            yield name
        except BaseException:
            with suppress(OSError):
                await self._transmit(Frame("ABORT", (("transaction", name),)))
            raise
        await self._request("COMMIT", {"transaction": name})

    # --- Connections ---

    async def _run(self) -> None:
        """Read until closed, reconnecting whenever the connection is lost."""
        retry = Retry(on=(OSError, RemoteProtocolError), backoff=self._backoff, on_failure=self._on_lost)
        try:
            async for attempt in retry:
                with attempt:
                    await self._run_connection(retry)
        except Exception as error:
            self.lost = error
            raise
        finally:
            self._closed()

    async def _run_connection(self, retry: Retry) -> None:
        """Read a connection until it is lost, opening it unless `connect` did. Raise the reason if it should reopen."""
        link = self._link
        if link is None:
            self._move_to(ClientState.CONNECTING)
            link = await self._open_link()
        opened = link.clock()
        self.lost = await self._read(link)
        self._forget(link)
        if link.clock() - opened >= self._backoff.longest:  # it was stable: the next loss is a new outage
            retry.reset()
        if self._reconnect and self._task is not None:  # None: the client is closing
            raise self.lost

    def _on_lost(self, error: Exception, seconds: float) -> None:
        self.lost = error
        self._move_to(ClientState.WAITING)

    async def _open_link(self) -> _Link:
        """Connect, send CONNECT, wait for CONNECTED, and restore the subscriptions."""
        self.attempts += 1
        link = None
        try:
            async with asyncio.timeout(self._connect_timeout):
                link = await _Link.open(self.url, self._heart_beat, self._limits, self._options)
                await link.send(Frame("CONNECT", self._connect_headers))
                while not (frames := await link.receive()):
                    pass
                self.connected = frames[0]
                if self.connected.command != "CONNECTED":
                    raise _error_in(self.connected)
                await self._resubscribe(link)
        except BaseException as error:
            if link is not None:
                link.websocket.transport.abort()
            if isinstance(error, TimeoutError):
                raise ConnectionError(f"no CONNECTED from {self.url} within {self._connect_timeout:g} s") from None
            raise
        self._link = link
        self._move_to(ClientState.OPEN)
        self._may_send.set()
        for frame in frames[1:]:
            self._receive(frame)
        return link

    async def _resubscribe(self, link: _Link) -> None:
        loop = asyncio.get_running_loop()
        for subscription in self._subscriptions.values():
            subscription.restart()
            name = f"r-{next(self._numbers)}"
            self._receipts[name] = receipt = loop.create_future()
            receipt.add_done_callback(partial(self._resubscribed, subscription, name))
            await link.send(Frame("SUBSCRIBE", (*subscription.headers().items(), ("receipt", name))))

    def _resubscribed(self, subscription: ClientSubscription, name: str, receipt: asyncio.Future[Frame]) -> None:
        self._receipts.pop(name, None)
        if receipt.cancelled():
            return
        if isinstance(error := receipt.exception(), StompError):
            self._subscriptions.pop(subscription.id, None)
            subscription.end(error)
        elif error is None:
            subscription.confirm(receipt.result())

    async def _read(self, link: _Link) -> Exception:
        """Receive frames until the connection is lost; return the reason."""
        try:
            while True:
                for frame in await link.receive():
                    if (refused := self._receive(frame)) is not None:
                        return refused  # after an ERROR "the server MUST then close the connection"
        except (OSError, RemoteProtocolError) as error:
            return error

    def _receive(self, frame: Frame) -> StompError | None:
        """Dispatch one frame; return the error if it is an ERROR."""
        match frame.command:
            case "MESSAGE":
                # 1.0: "If an id header is supplied then brokers should append a subscription header"; we supply one.
                subscription = self._subscriptions.get(frame.get("subscription") or "")
                if subscription is not None:  # else it was sent before our UNSUBSCRIBE arrived
                    subscription.receive(frame)
                    if subscription.destination == ERRORS:
                        self._resolve(frame, _refusal_in(frame))
            case "RECEIPT":
                self._resolve(frame, None)
            case "ERROR":
                error = _error_in(frame)
                self._resolve(frame, error)
                return error
        return None

    def _resolve(self, frame: Frame, error: Exception | None) -> None:
        """Complete the request whose receipt a frame names, if it is still waiting."""
        receipt = self._receipts.get(frame.get("receipt-id") or "")
        if receipt is None or receipt.done():
            return
        if error is None:
            receipt.set_result(frame)
        else:
            receipt.set_exception(error)

    def _forget(self, link: _Link) -> None:
        """Clean up a lost connection: every outstanding receipt fails."""
        self._link = None
        self._may_send.clear()
        link.websocket.transport.abort()
        for receipt in list(self._receipts.values()):
            if not receipt.done():
                receipt.set_exception(ConnectionError(f"connection lost before the receipt came: {self.lost}"))

    def _closed(self) -> None:
        if self._link is not None:
            self._forget(self._link)
        self._move_to(ClientState.CLOSED)
        self._may_send.set()  # wake waiting senders, which then raise
        for subscription in self._subscriptions.values():
            subscription.end(None if self._task is None else self.lost)
        self._subscriptions.clear()
        self._task = None

    def _move_to(self, state: ClientState) -> None:
        self.state = state
        if self._on_change is not None:
            self._on_change()

    # --- Sending ---

    async def _transmit(self, frame: Frame) -> None:
        await self._may_send.wait()
        if self._link is None:
            raise ConnectionError(f"not connected to {self.url}")
        await self._link.send(frame)

    async def _request(self, command: str, headers: HeaderFields = NO_HEADERS, body: bytes = b"") -> Frame:
        """Send a frame with a receipt request, and return the RECEIPT."""
        name = f"r-{next(self._numbers)}"
        receipt: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._receipts[name] = receipt
        try:
            await self._transmit(Frame(command, (*headers.items(), ("receipt", name)), body))
            return await receipt
        finally:
            del self._receipts[name]
            if not receipt.cancel() and not receipt.cancelled():
                receipt.exception()  # mark it as retrieved, in case it was never awaited

    async def acknowledge(self, command: str, message: Frame, transaction: str | None) -> None:
        """Send ACK or NACK for a message, in the form that the agreed version requires."""
        match self.connected.get("version"):
            case "1.2":
                headers = [("id", message.get("ack"))]
            case "1.1":
                headers = [("subscription", message.get("subscription")), ("message-id", message.get("message-id"))]
            case _:
                headers = [("message-id", message.get("message-id"))]
        headers.append(("transaction", transaction))
        await self._transmit(Frame(command, tuple((name, value) for name, value in headers if value is not None)))

    async def unsubscribe(self, subscription: ClientSubscription) -> None:
        """End a subscription, and return once the server has confirmed."""
        if self._subscriptions.pop(subscription.id, None) is None:
            return
        subscription.end(None)
        if self._link is not None:  # else it is simply not restored
            await self._request("UNSUBSCRIBE", {"id": subscription.id})


class ClientSubscription:
    """One subscription, kept across reconnects: an async iterator of MESSAGE frames. Created by `client.subscribe`."""

    def __init__(
        self,
        client: StompClient,
        id: str,
        destination: str,
        ack: AckMode,
        headers: HeaderFields,
        last_id: str | None,
        *,
        resume: bool,
        max_waiting: int,
    ) -> None:
        self.id = id
        self.destination = destination
        self.last_id = last_id  # of the last message received, or acknowledged if the mode requires acknowledgements
        self._client = client
        self._ack = ack
        self._headers = headers
        self._resume = resume
        self._max_waiting = max_waiting
        self._waiting: asyncio.Queue[Frame | Exception | None] = asyncio.Queue()  # None or an error marks the end
        self._ended = False
        self._arrivals = itertools.count()
        self._unsettled: dict[str, _Unsettled] = {}  # of this connection, by message id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        item = await self._waiting.get()
        if isinstance(item, Frame):
            return item
        self._waiting.put_nowait(item)  # keep the end marker, so that further calls end too
        if item is None:
            raise StopAsyncIteration
        await self.unsubscribe()  # in case the server does not know yet
        raise item

    async def ack(self, message: Frame, *, transaction: str | None = None) -> bool:
        """Acknowledge a message (in `client` mode, and all before it).

        Return False if it was received on a connection that is lost: the server will redeliver it.
        """
        return await self._acknowledge("ACK", message, transaction)

    async def nack(self, message: Frame, *, transaction: str | None = None) -> bool:
        """Reject a message (in `client` mode, and all before it). The return value is that of `ack`."""
        return await self._acknowledge("NACK", message, transaction)

    async def _acknowledge(self, command: str, message: Frame, transaction: str | None) -> bool:
        mine = self._unsettled.get(message.get("message-id") or "")
        if mine is None or mine.settled or mine.ack != message.get("ack"):
            return False
        await self._client.acknowledge(command, message, transaction)
        # It counts from now on, even before COMMIT: a transaction is lost only together with its connection.
        for other in self._unsettled.values():
            if other is mine or (self._ack is AckMode.CLIENT and other.arrival < mine.arrival and not other.settled):
                other.settled = command
        while self._unsettled and next(iter(self._unsettled.values())).settled == "ACK":
            self.last_id = next(iter(self._unsettled))
            del self._unsettled[self.last_id]
        return True

    async def unsubscribe(self) -> None:
        """Unsubscribe. The iterator ends after the messages already received."""
        await self._client.unsubscribe(self)

    # --- Called by the client ---

    def headers(self) -> dict[str, str]:
        """Return the current headers for SUBSCRIBE."""
        headers = {"id": self.id, "destination": self.destination, "ack": self._ack.value, **self._headers}
        if self._resume and self.last_id is not None:
            headers["last-id"] = self.last_id
        elif self._resume:
            headers.setdefault("history", "0")  # the RECEIPT says where the subscription starts
        return headers

    def confirm(self, receipt: Frame) -> None:
        """Note where the subscription starts, unless a message has come already."""
        if self.last_id is None:
            self.last_id = receipt.get("last-id")

    def receive(self, message: Frame) -> None:
        """Queue a MESSAGE."""
        if self._ended:
            return None
        if self._waiting.qsize() >= self._max_waiting:
            return self.end(
                SubscriptionLost(f"{self._max_waiting} messages of {self.destination!r} are waiting to be read")
            )
        id = message.get("message-id") or ""
        if self._ack is AckMode.AUTO:
            self.last_id = id
        else:  # a redelivered message keeps its place
            self._unsettled[id] = _Unsettled(message.get("ack"), next(self._arrivals))
        return self._waiting.put_nowait(message)

    def restart(self) -> None:
        """Prepare for a new connection: drop unacknowledged messages, which the server will redeliver."""
        self._unsettled.clear()
        while self._ack is not AckMode.AUTO and not self._ended and not self._waiting.empty():
            self._waiting.get_nowait()

    def end(self, error: Exception | None) -> None:
        """Let the iterator stop, or raise `error`, after the queued messages."""
        if not self._ended:
            self._ended = True
            self._waiting.put_nowait(error)


@dataclass(slots=True)
class _Unsettled:
    """A received message that has not been acknowledged."""

    ack: str | None  # its `ack` header, which differs for a redelivery
    arrival: int
    settled: str = ""  # "ACK", or "NACK" until it is redelivered


class _Link:
    """One connection: frames and heart-beats in both directions."""

    def __init__(self, websocket: ClientConnection, heart_beat: tuple[int, int], limits: Limits) -> None:
        self.websocket = websocket
        self.clock = asyncio.get_running_loop().time
        self.version = "1.0"
        self._heart_beat = heart_beat
        self._parser = Parser(limits)
        self._beat = HeartBeat((0, 0), self.clock())

    @classmethod
    async def open(cls, url: str, heart_beat: tuple[int, int], limits: Limits, options: ConnectOptions) -> Self:
        """Open the WebSocket. Raise OSError if that fails for any reason."""
        settings: dict[str, Any] = {
            "subprotocols": SUBPROTOCOLS,
            "max_size": 2 * limits.max_frame,
            "ping_interval": None,  # STOMP's heart-beats replace WebSocket pings
            "proxy": proxy_for(url),
        }
        try:
            return cls(await connect(url, **{**settings, **options}), heart_beat, limits)
        except (WebSocketException, ImportError) as error:  # ImportError: a SOCKS proxy without python-socks
            raise ConnectionError(f"no WebSocket at {url}: {error}") from error

    async def send(self, frame: Frame) -> None:
        await self._send(frame.serialize(self.version))

    async def _send(self, data: bytes) -> None:
        self._beat.record_sent(self.clock())
        try:
            await self.websocket.send(data, text=_is_text(data))
        except ConnectionClosed as error:
            raise ConnectionError(f"connection closed: {error}") from error

    async def receive(self) -> list[Frame]:
        """Wait for the next WebSocket message and return the frames it completes, sending heart-beats meanwhile."""
        while True:
            now = self.clock()
            if now >= self._beat.receive_by():
                raise ConnectionError(f"nothing received for {self._beat.max_silence:g} s")
            if now >= self._beat.send_by():
                await self._send(EOL)
            due = min(self._beat.send_by(), self._beat.receive_by())
            try:
                async with asyncio.timeout_at(None if due == float("inf") else due) as limit:
                    data = await self.websocket.recv(decode=False)
            except TimeoutError:
                if not limit.expired():
                    raise
                continue
            except ConnectionClosed as error:
                raise ConnectionError(f"connection closed: {error}") from error
            self._beat.record_received(self.clock())
            return list(self._frames(data))

    def _frames(self, data: bytes) -> Iterator[Frame]:
        for frame in self._parser.frames(data):
            if isinstance(frame, Heartbeat):
                continue
            if frame.command == "CONNECTED":
                self.version = self._parser.version = frame.get("version") or "1.0"
                agreed = agree(self._heart_beat, parse_heart_beat(frame.get("heart-beat")))
                self._beat = HeartBeat(agreed, self.clock())
            yield frame


def _connect_headers(
    url: str,
    login: str | None,
    passcode: str | None,
    versions: tuple[str, ...],
    heart_beat: tuple[int, int],
    headers: HeaderFields,
) -> tuple[tuple[str, str], ...]:
    own: dict[str, str | None] = {
        "accept-version": ",".join(sorted(versions)),
        "host": urlsplit(url).hostname or "",
        "heart-beat": "{},{}".format(*heart_beat),
        "login": login,
        "passcode": passcode,
        **headers,
    }
    return tuple((name, value) for name, value in own.items() if value is not None)


def _error_in(frame: Frame) -> StompError:
    if frame.command != "ERROR":
        return StompError(f"the server answered CONNECT with {frame.command!r}")
    message = frame.get("message") or "the server gave no reason"
    return StompError(message, frame.get("receipt-id"), frame.body.decode(errors="replace"))


def _refusal_in(frame: Frame) -> MessageRefused:
    """Return the refusal in a MESSAGE from the error queue, in chatlab's JSON or as plain text."""
    try:
        fault = parse(json.loads, frame.body)
        return MessageRefused(str(fault["error"]), field=fault.get("field") or "")
    except (ValueError, LookupError, TypeError):
        return MessageRefused(frame.body.decode(errors="replace"))


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
