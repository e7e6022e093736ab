"""A minimal STOMP server for the client's tests: chatlab's session on the library `websockets`.

A SEND goes to all subscribers of its destination. `/topic/…` keeps its messages and replays those after `last-id`.
`/refused` is refused with an ERROR, and `/unwanted` on `/user/queue/errors` with the text sent. There are no other
features.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from chatlab.stomp.events import Commit, Connect, Delivery, Event, Nack, Send, Subscribe, Unsubscribe
from chatlab.stomp.frames import MessageFrame, StompHeaders
from chatlab.stomp.session import ServerSession


class StompServer:
    """Use as `async with StompServer() as server`; `stop()` and `start()` restart it on the same port."""

    def __init__(self, heart_beat: tuple[int, int] = (0, 0)) -> None:
        self.heart_beat = heart_beat
        self.silent = False  # send nothing: no receipts, heart-beats or messages
        self.port = 0
        self.messages: list[MessageFrame] = []
        self.events: list[Event] = []  # every event, in order
        self.returned: list[Delivery] = []  # sent and never acknowledged
        self.sessions: dict[ServerSession, ServerConnection] = {}
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    async def start(self) -> Self:
        self._server = await serve(self._serve, "127.0.0.1", self.port)
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def stop(self) -> None:
        """Stop as in a crash: abort every connection without a Close."""
        assert self._server is not None
        for connection in self.sessions.values():
            connection.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def received(self, kind: type[Event]) -> int:
        """Return how many events of a kind were received."""
        return sum(isinstance(event, kind) for event in self.events)

    async def publish(self, destination: str, body: bytes, headers: StompHeaders = ()) -> None:
        """Send a message to all subscribers of the destination."""
        message = MessageFrame(destination, str(len(self.messages) + 1), body, headers)
        self.messages.append(message)
        for session in list(self.sessions):
            for subscription in session.subscriptions.values():
                if subscription.destination == destination:
                    session.message(subscription, message)
            await self._flush(session)

    async def _serve(self, connection: ServerConnection) -> None:
        session = ServerSession(heart_beat=self.heart_beat)
        self.sessions[session] = connection
        beating = asyncio.create_task(self._beat(session))
        try:
            while session.closing is None:
                for event in session.receive_data(await connection.recv()):
                    self.events.append(event)
                    await self._handle(session, event)
                await self._flush(session)
            await connection.close(session.closing.code)
        except ConnectionClosed:
            pass
        finally:
            beating.cancel()
            del self.sessions[session]
            self.returned += session.end()

    async def _beat(self, session: ServerSession) -> None:
        while True:
            await asyncio.sleep(0.02)
            session.tick()
            await self._flush(session)

    async def _handle(self, session: ServerSession, event: Event) -> None:
        match event:
            case Connect() if event.passcode == "wrong":
                return session.error("access refused: passcode is not valid")
            case Connect():
                session.connected(event.login)
            case Send(destination="/refused"):
                return session.error("'/refused' takes nothing", event=event)
            case Send(destination="/unwanted"):  # refused without an ERROR, as in chatlab's chat
                session.failed(event)
                headers = [("receipt-id", event.receipt or "")]
                for subscription in session.subscriptions.values():
                    if subscription.destination == "/user/queue/errors":
                        session.message(subscription, MessageFrame("/user/queue/errors", "e", event.body, headers))
                return None
            case Send():
                await self.publish(event.destination, event.body)
            case Subscribe() if event.subscription.destination == "/refused":
                return session.error("'/refused' gives nothing", event=event)
            case Subscribe():
                last = event.subscription.get("last-id")
                stored = [m for m in self.messages if m.destination == event.subscription.destination]
                for message in stored:
                    if last is not None and int(message.id) > int(last):
                        session.message(event.subscription, message)
            case Nack():
                for delivery in event.deliveries:
                    session.message(delivery.subscription, delivery.message, delivery.attempt + 1)
            case Unsubscribe():
                self.returned += event.unacknowledged
            case Commit():
                for part in event.events:
                    await self._handle(session, part)
        return session.done(event)

    async def _flush(self, session: ServerSession) -> None:
        for data in session.data_to_send():
            if not self.silent:
                await self.sessions[session].send(data, text=data != b"\xff")
