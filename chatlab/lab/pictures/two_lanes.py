"""Messages in slow motion on two lanes, HTTP and WebSocket, between the same client and server.

    lanes = await lab.start("lanes", two_lanes())

Each text is sent on both lanes. Each lane has a real client, a real echo server and a `Wire` between them that delays
what passes, both ways. On the HTTP lane, a text waits until the answer to the one before it is back, as HTTP/1.1 has it
on one connection; on the WebSocket lane it leaves at once. All times are the wires': the page only draws them, at full
speed or slower.

Left out: several HTTP connections at once, which browsers open, and HTTP/2, which carries several requests on one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from chatlab import echo
from chatlab.lab.picture import picture
from chatlab.lab.pictures.http_server import HOST, serve
from chatlab.lab.pictures.live_picture import LivePicture, source
from chatlab.lab.wire.trace import Event, Trace
from chatlab.lab.wire.wire import Wire
from chatlab.locale import _

__all__ = ["HTTP", "WEBSOCKET", "Journey", "TwoLanes", "two_lanes"]

HTTP, WEBSOCKET = "HTTP", "WebSocket"
LANES: Final = (HTTP, WEBSOCKET)
DELAY: Final = 1000  # ms each way, at the start
MAX_DELAY: Final = 2000
SPEEDS: Final = (1, 10, 100)  # how many times slower than it happened
SPACING: Final = 0.7  # of the delay, between the three texts that the button sends
THREE: Final = ("하나", "둘", "셋")  # one, two, three
MAX_LETTERS: Final = 40
KEPT: Final = 6  # texts in the picture
TICK_SECONDS: Final = 0.05
KINDS: Final = {("http", "body"): HTTP, ("websocket", "text"): WEBSOCKET}  # the events that carry a text


async def two_lanes() -> TwoLanes:
    """Start both servers, wires and clients, and return the picture."""
    lanes = TwoLanes()
    await lanes.start()
    return lanes


@dataclass(eq=False)
class Journey:
    """One text on one lane. All times are in seconds since the start, None until it has happened."""

    lane: str
    number: int
    text: str
    typed: float
    left: float | None = None  # left the client
    reached: float | None = None  # reached the server
    answered: float | None = None  # the echo left the server
    back: float | None = None  # the echo reached the client

    def as_dict(self) -> dict[str, Any]:
        """Return it for the page, with the times in ms."""
        times = {name: _ms(getattr(self, name)) for name in ("typed", "left", "reached", "answered", "back")}
        return {"lane": self.lane, "number": self.number, "text": self.text, **times}


class TwoLanes(LivePicture):
    """Both lanes: `send` a text on both, `send_three` close together, set the `delay` in ms."""

    _esm = source("common.js", "two_lanes.js")
    _css = source("pictures.css", "two_lanes.css")

    def __init__(self) -> None:
        super().__init__(_words())
        self.delay = DELAY
        self.journeys: list[Journey] = []
        self._trace = Trace()  # of both wires, on one clock
        self._sent: dict[str, list[Journey]] = {lane: [] for lane in LANES}  # in the order in which they leave
        self._outward: dict[str, list[Event]] = {lane: [] for lane in LANES}
        self._homeward: dict[str, list[Event]] = {lane: [] for lane in LANES}
        self._complaint = ""  # about the last text
        self._count = 0
        self._queue: asyncio.Queue[Journey] = asyncio.Queue()
        self._open = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Start the servers, the wires and the clients."""
        async with contextlib.AsyncExitStack() as stack:
            http = await serve({"/": _echo})
            stack.push_async_callback(http.aclose)
            socket = await stack.enter_async_context(await echo.start(compression=False))
            addresses = {HTTP: f"http://{HOST}:{http.port}/", WEBSOCKET: socket.url}
            self.wires = {
                lane: await stack.enter_async_context(Wire(address, trace=self._trace))
                for lane, address in addresses.items()
            }
            self._session = await stack.enter_async_context(
                ClientSession(connector=TCPConnector(limit=1), timeout=ClientTimeout(total=None))
            )
            self._socket = await _connect(self.wires[WEBSOCKET].url)
            stack.callback(self._socket.transport.abort)
            self._open = stack.pop_all()
        self._set_delay(self.delay)
        self._tasks.start(self._ask_in_turn(), name="http-lane")
        self._tasks.start(self._hear(), name="websocket-lane")
        self._tasks.start(self._follow(), name="two-lanes")
        self._draw()

    async def aclose(self) -> None:
        """Stop the clients, wires and servers, and disable the controls."""
        await super().aclose()
        await self._open.aclose()

    # What a learner does

    def received(self, content: dict[str, Any]) -> None:
        """Send a text or three, set the delay, or clear the picture."""
        self._complaint = ""
        match content:
            case {"do": "send", "text": str(text)}:
                self.send(text)
            case {"do": "three"}:
                self._tasks.start(self.send_three(), name="three-texts")
            case {"do": "delay", "delay": int(delay)} if 0 <= delay <= MAX_DELAY:
                self._set_delay(delay)
            case {"do": "clear"}:
                self.journeys = [each for each in self.journeys if each.back is None]
        self._draw()

    def refused(self, sentence: str) -> None:
        """Show a sentence about a bad text until the next one."""
        self._complaint = sentence
        self._draw()

    def send(self, text: str) -> None:
        """Send a text on both lanes. Raises `ValueError` if there is none, or if it is too long."""
        if not text.strip() or len(text) > MAX_LETTERS:
            raise ValueError(_("A text has 1 to {most} letters.").format(most=MAX_LETTERS))
        self._count += 1
        over_http, over_socket = (Journey(lane, self._count, text, self._trace.now()) for lane in LANES)
        self.journeys = [*self.journeys, over_http, over_socket][-2 * KEPT :]
        self._sent[HTTP].append(over_http)
        self._sent[WEBSOCKET].append(over_socket)
        self._queue.put_nowait(over_http)
        self._tasks.start(self._send_at_once(over_socket), name="websocket-text")

    async def send_three(self) -> None:
        """Send three texts, the next one before the first can be back."""
        for number, text in enumerate(THREE):
            if number:
                await asyncio.sleep(max(0.05, SPACING * self.delay / 1000))
            self.send(text)
            self._draw()

    def _set_delay(self, delay: int) -> None:
        self.delay = delay
        for wire in self.wires.values():
            wire.delay(delay / 1000)

    # The clients

    async def _ask_in_turn(self) -> None:
        """Send the texts of the HTTP lane, one request after another."""
        while True:
            journey = await self._queue.get()
            async with self._session.post(self.wires[HTTP].url, data=journey.text.encode()) as response:
                await response.read()

    async def _send_at_once(self, journey: Journey) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(journey.text)

    async def _hear(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for __ in self._socket:
                pass

    # The times, as the wires saw them

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._read_times()
            self._draw()

    def _read_times(self) -> None:
        """Take the times from the trace. On each lane, texts and echoes keep their order."""
        for event in self._trace.decode():
            if (event.layer, event.kind) in KINDS:
                direction = self._outward if event.sender == "client" else self._homeward
                direction[KINDS[event.layer, event.kind]].append(event)
        for lane in LANES:
            for journey, event in zip(self._sent[lane], self._outward[lane], strict=False):
                journey.left, journey.reached = event.time, event.passed
            for journey, event in zip(self._sent[lane], self._homeward[lane], strict=False):
                journey.answered, journey.back = event.time, event.passed

    # What is drawn

    def _draw(self) -> None:
        self.state = {
            "delay": self.delay,
            "journeys": [journey.as_dict() for journey in self.journeys],
            "rows": _rows(self.journeys),
            "status": self._complaint or _status(self.journeys),
        }

    def still(self) -> str:
        """Return three texts on both lanes as a picture, computed for a delay of a second."""
        return picture(_svg(_computed()), _title(), self.plain())

    def plain(self) -> str:
        """Return the same as text."""
        journeys = _computed()
        heads = _("{title} (computed for {delay:,} ms each way)").format(title=_title(), delay=DELAY)
        return "\n".join([heads, *("  " + ", ".join(row) for row in _rows(journeys)), _status(journeys)])


async def _echo(request: web.Request) -> web.Response:
    return web.Response(text=await request.text())


async def _connect(url: str) -> ClientConnection:
    return await connect(url, compression=None, ping_interval=None, proxy=None)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _computed() -> list[Journey]:
    """Return the journeys of the three texts on lines that delay by a second, as they must be."""
    delay, journeys, free = DELAY / 1000, [], 0.0
    for number, text in enumerate(THREE):
        typed = number * SPACING * delay
        for lane in LANES:
            left = max(typed, free) if lane == HTTP else typed
            reached = left + delay
            journeys.append(Journey(lane, number + 1, text, typed, left, reached, reached, reached + delay))
            free = max(free, reached + delay) if lane == HTTP else free
    return journeys


def meeting(journeys: Iterable[Journey]) -> tuple[Journey, Journey, float] | None:
    """Return the journeys that met for longest, one on its way back and a later one out, and for how many seconds.

    Return None if none did.
    """
    done = [each for each in journeys if each.back is not None]
    met = [(first, later, _overlap(first, later)) for first in done for later in done if first.number < later.number]
    longest = max(met, key=lambda each: each[2], default=None)
    return longest if longest is not None and longest[2] > 0 else None


def _overlap(first: Journey, later: Journey) -> float:
    """Return the seconds in which the echo of `first` was on its way back while `later` was on its way out."""
    assert first.answered is not None and first.back is not None
    assert later.left is not None and later.reached is not None
    return min(first.back, later.reached) - max(first.answered, later.left)


# --- The drawing for a page without a kernel -------------------------------------------------------------------------

WIDTH, HEIGHT = 760, 330
ENDS: Final = {HTTP: (60, 340), WEBSOCKET: (430, 710)}  # where the client and the server are
TOP, PER_SECOND = 50, 42  # where the time begins, and pixels for a second, downwards


def _svg(journeys: Sequence[Journey]) -> str:
    """Return the journeys as lines in space and time: out to the right, back to the left, later further down."""
    lines = []
    for lane, (client, server) in ENDS.items():
        lines.append(f'<text x="{(client + server) / 2}" y="18" text-anchor="middle" font-weight="bold">{lane}</text>')
        for x, name in ((client, _("client")), (server, _("server"))):
            lines.append(f'<path d="M{x} {TOP - 5}V{HEIGHT - 10}" stroke="#888"/>')
            lines.append(f'<text x="{x}" y="{TOP - 12}" text-anchor="middle">{name}</text>')
        lines += [_line(each, client, server) for each in journeys if each.lane == lane]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'font-family="sans-serif" font-size="13" fill="#222"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f"{''.join(lines)}</svg>"
    )


def _line(journey: Journey, client: int, server: int) -> str:
    left, reached, answered, back = (
        TOP + PER_SECOND * (each or 0.0) for each in (journey.left, journey.reached, journey.answered, journey.back)
    )
    return (
        f'<path d="M{client} {left:.0f}L{server} {reached:.0f}" stroke="#1f6fc0" stroke-width="2"/>'
        f'<path d="M{server} {answered:.0f}L{client} {back:.0f}" stroke="#b3631b" stroke-width="2"/>'
        f'<text x="{client - 6}" y="{left + 5:.0f}" text-anchor="end">{journey.number}</text>'
    )


# --- Words -----------------------------------------------------------------------------------------------------------


def _title() -> str:
    return _("Two lanes in slow motion")


def _rows(journeys: Sequence[Journey]) -> list[list[str]]:
    """Return the rows of the table: times in ms since the first of these texts was typed."""
    began = min((each.typed for each in journeys), default=0.0)
    return [
        [
            f"{each.lane} {each.number}",
            each.text,
            *(_since(began, at) for at in (each.typed, each.left, each.reached, each.answered, each.back)),
        ]
        for each in sorted(journeys, key=lambda each: (each.lane, each.number))
    ]


def _since(began: float, at: float | None) -> str:
    return "…" if at is None else f"{(at - began) * 1000:,.0f}"


def _status(journeys: Sequence[Journey]) -> str:
    """Return what is to be seen, once every text is back; it is read aloud."""
    if not journeys or any(each.back is None for each in journeys):
        return ""
    sentences = [_on_socket(meeting(each for each in journeys if each.lane == WEBSOCKET))]
    waited = max((each for each in journeys if each.lane == HTTP), key=_waited)
    if _waited(waited) >= 0.02:
        sentence = _("HTTP: text {number} waited {ms:,.0f} ms until the answer before it was back.")
        sentences.append(sentence.format(number=waited.number, ms=_waited(waited) * 1000))
    return " ".join(filter(None, sentences))


def _on_socket(met: tuple[Journey, Journey, float] | None) -> str:
    if met is None:
        return _("WebSocket: no text was on its way out while an echo was on its way back. Send them closer together.")
    first, later, seconds = met
    sentence = _(
        "WebSocket: for {ms:,.0f} ms, text {later} was on its way out while the echo of {first} was on its way back."
    )
    return sentence.format(ms=seconds * 1000, later=later.number, first=first.number)


def _waited(journey: Journey) -> float:
    return (journey.left or 0.0) - journey.typed


def _words() -> dict[str, Any]:
    """Return the texts that never change."""
    speeds = [_("as fast as it was"), _("10 times slower"), _("100 times slower")]
    return {
        "title": _title(),
        "help": _(
            "Each text goes to an echo server on both lanes, and the line delays it both ways. Send one, and the next "
            "before its echo is back."
        ),
        "text": _("Text"),
        "send": _("Send on both lanes"),
        "three": _("Send three close together"),
        "clear": _("Clear"),
        "delay": _("Delay each way"),
        "delayValue": _("{delay} ms"),
        "most": MAX_DELAY,
        "speed": _("Show it"),
        "speeds": [[speed, text] for speed, text in zip(SPEEDS, speeds, strict=True)],
        "lanes": list(LANES),
        "client": _("client"),
        "server": _("server"),
        "waiting": _("waiting: {count}"),
        "heads": [_("lane"), _("text"), _("typed"), _("left"), _("reached the server"), _("echo left"), _("echo back")],
        "table": _("The same in figures (ms)"),
        "reduced": _("Your system asks for reduced motion, so the table takes the place of the moving picture."),
        "letters": MAX_LETTERS,
    }
