"""A page on another site that tries to connect, with switches for SameSite and for the origins that the server accepts.

    page = await lab.start("foreign", foreign_page())

A site with a login cookie and a WebSocket runs on one port, and pages that are not its own on another. The browser that
shows the notebook opens three pages: the site's own, a neighbour (the same host on another port: the same site, another
origin), and a foreign one (the same program under its other name, `localhost` or 127.0.0.1: another site). Each opens
the WebSocket, and the picture shows what the server received from it. A browser decides what it sends; nothing here
writes a Cookie or an Origin header.

Left out: https. A browser treats both names as trustworthy, so it stores a cookie with `Secure` here without it. Also
left out: a browser on another machine than the kernel, which cannot reach these servers.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from html import escape
from string import Template
from typing import Any, Final

from aiohttp import WSMsgType, web

from chatlab.errors import HandshakeError
from chatlab.lab.pictures.http_server import HOST, serve
from chatlab.lab.pictures.live_picture import LivePicture, source
from chatlab.locale import _, ngettext
from chatlab.websocket.handshake import check_origin

__all__ = ["ForeignPage", "foreign_page"]

NAMES: Final = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}  # each is the other's foreign site
VISITOR: Final = "visitor=garam"
COOKIES: Final = {  # the attributes of each kind, after the name and the value
    "unset": "",
    "lax": "SameSite=Lax",
    "strict": "SameSite=Strict",
    "none": "SameSite=None; Secure",
    "insecure": "SameSite=None",
}
OWN, NEIGHBOUR, FOREIGN = "own", "neighbour", "foreign"
WHO: Final = (OWN, NEIGHBOUR, FOREIGN)
PATIENCE_SECONDS: Final = 8.0  # for the three pages to be loaded and to connect
COOKIE_SECONDS: Final = 600
PAGE: Final = Template(source("foreign_page.html"))

# Recorded with Chromium 156, third-party cookies allowed, and Firefox 153 with its defaults: whether the cookie of each
# kind came along, from the site's own page, from a neighbour, and from a foreign page.
RECORDED: Final = {
    "unset": (True, True, False),
    "lax": (True, True, False),
    "strict": (True, True, False),
    "none": (True, True, True),
    "insecure": (False, False, False),
}


async def foreign_page() -> ForeignPage:
    """Start the site and the pages of others, and return the picture."""
    picture = ForeignPage()
    await picture.start()
    return picture


@dataclass(frozen=True)
class Knock:
    """What the server received from one page, and its answer."""

    who: str
    origin: str
    cookie: bool  # the login cookie came along
    others: int  # cookies of other programs on this host
    status: int
    in_a_tab: bool


class ForeignPage(LivePicture):
    """The site, the pages, and the switches: `choose` a cookie, `check` origins, `open_pages`."""

    _esm = source("common.js", "foreign_page.js")
    _css = source("pictures.css", "foreign_page.css")

    def __init__(self) -> None:
        super().__init__(_words())
        self.cookie = "unset"
        self.checks_origin = False
        self.number = 0  # of the attempt; each has a cookie of its own, so that no old one is in the way
        self.knocks: dict[str, Knock] = {}
        self.tried: dict[tuple[str, bool], dict[str, Knock]] = {}
        self._names = (HOST, NAMES[HOST])  # the site's, and the foreign page's
        self._arrived = asyncio.Event()
        self._status = ""
        self._trying = False
        self._ports: tuple[int, int] = (0, 0)  # the site's, and that of the others' pages

    async def start(self) -> None:
        """Start the servers."""
        self._site = await serve({"/": self._own_page, "/socket": self._socket})
        self._others = await serve({"/": self._others_page})
        self._ports = (self._site.port, self._others.port)
        self._draw()

    async def aclose(self) -> None:
        """Stop both servers, and disable the controls."""
        await super().aclose()
        await self._site.aclose()
        await self._others.aclose()

    # What a learner does

    def received(self, content: dict[str, Any]) -> None:
        """Take a switch's new position, or open the pages."""
        match content:
            case {"do": "cookie", "kind": str(kind)} if kind in COOKIES:
                self.cookie = kind
            case {"do": "origins", "checks": bool(checks)}:
                self.checks_origin = checks
            case {"do": "open", "host": str(host)}:
                self.open_pages(host)
        self._draw()

    def open_pages(self, host: str) -> None:
        """Let the browser open the three pages; `host` is the name under which it has opened the notebook.

        In a frame, the site's own page is its own only if the notebook is open under the site's name.
        """
        self.number += 1
        self.knocks = {}
        self._arrived.clear()
        if host not in NAMES:
            self._status = _("This notebook is not open at localhost or 127.0.0.1, so open the pages with the links.")
            return
        self._names = (host, NAMES[host])
        self._status = _("The browser opens the three pages …")
        self._trying = True
        self._tasks.start(self._wait(self.number), name="foreign-page")

    async def _wait(self, number: int) -> None:
        """Wait until every page has knocked, and say what came of it."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(self.knocks) < len(WHO) and self.number == number:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            pass
        if self.number == number:
            self._trying = False
            self._status = " ".join(_sentence(who, self.knocks.get(who)) for who in WHO)
            self._draw()

    # What the browser asks for

    async def _own_page(self, request: web.Request) -> web.Response:
        """Log the visitor in with the cookie that is chosen, and answer with the site's own page."""
        response = self._page(OWN, request)
        attributes = "; ".join(filter(None, [f"Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly", COOKIES[self.cookie]]))
        response.headers.add("Set-Cookie", f"{self._cookie_name(request)}=garam; {attributes}")
        return response

    async def _others_page(self, request: web.Request) -> web.Response:
        who = FOREIGN if request.host.partition(":")[0] == self._names[1] else NEIGHBOUR
        return self._page(who, request)

    def _page(self, who: str, request: web.Request) -> web.Response:
        number = request.query.get("number", "0")
        socket = f"ws://{self._names[0]}:{self._ports[0]}/socket?who={who}&number={int(number)}"
        refused = json.dumps(_("Not let in.")).replace("</", "<\\/")
        page = PAGE.substitute(
            title=escape(_who(who)), socket=socket, refused=refused, waiting=escape(_("connecting …"))
        )
        return web.Response(text=page, content_type="text/html", headers={"Cache-Control": "no-store"})

    def _cookie_name(self, request: web.Request) -> str:
        return f"visitor-{self._ports[0]}-{int(request.query.get('number', '0'))}"

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """Let a page in, unless origins are checked and this is another's; greet it as the cookie's owner."""
        logged_in = self._cookie_name(request) in request.cookies
        try:
            check_origin(tuple(request.headers.items()), () if self.checks_origin else ("*",))
        except HandshakeError as refused:
            self._knocked(request, refused.status, logged_in)
            return web.Response(status=refused.status, text=str(refused))
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        self._knocked(request, 101, logged_in)
        await websocket.send_str(
            _("Hello garam, here are your messages.") if logged_in else _("Hello, whoever you are.")
        )
        async for message in websocket:
            if message.type is WSMsgType.TEXT:
                await websocket.send_str(message.data)
        return websocket

    def _knocked(self, request: web.Request, status: int, logged_in: bool) -> None:
        if request.query.get("number") != str(self.number) or (who := request.query.get("who", "")) not in WHO:
            return  # of an older attempt
        others = sum(not name.startswith("visitor-") for name in request.cookies)  # a cookie is for every port
        origin, in_a_tab = request.headers.get("Origin", ""), "tab" in request.query
        self.knocks[who] = Knock(who, origin, logged_in, others, int(status), in_a_tab)
        self.tried.setdefault((self.cookie, self.checks_origin), {})[who] = self.knocks[who]
        self._arrived.set()
        if not self._trying:
            self._status = _sentence(who, self.knocks[who])
        self._draw()

    # What is drawn

    def urls(self) -> dict[str, str]:
        """Return the addresses of the three pages for the current attempt."""
        own, foreign = self._names
        site, others = self._ports
        hosts = {OWN: f"{own}:{site}", NEIGHBOUR: f"{own}:{others}", FOREIGN: f"{foreign}:{others}"}
        return {who: f"http://{host}/?number={self.number}" for who, host in hosts.items()}

    def _draw(self) -> None:
        self.state = {
            "cookie": self.cookie,
            "set_cookie": "; ".join(filter(None, [f"Set-Cookie: {VISITOR}", COOKIES[self.cookie]])),
            "checks": self.checks_origin,
            "number": self.number,
            "trying": self._trying,
            "urls": self.urls(),
            "rows": [_row(self.knocks[who]) for who in WHO if who in self.knocks],
            "tried": [_tried(*key, self.tried[key]) for key in self.tried],
            "status": self._status,
        }

    def still(self) -> str:
        """Return what two browsers sent, as recorded."""
        heads = "".join(f"<th scope='col'>{escape(each)}</th>" for each in (_("cookie"), *map(_who, WHO)))
        rows = "".join(
            f"<tr><th scope='row'>{escape(_kind(kind))}</th>"
            + "".join(f"<td>{escape(_came(came))}</td>" for came in RECORDED[kind])
            + "</tr>"
            for kind in COOKIES
        )
        caption = f"<caption style='caption-side:top;text-align:left'>{escape(_recorded())}</caption>"
        return f"<table>{caption}<tr>{heads}</tr>{rows}</table><p>{escape(_origin_always())}</p>"

    def plain(self) -> str:
        """Return the same as text."""
        lines = [
            f"  {_kind(kind)}: "
            + ", ".join(f"{_who(who)} {_came(came)}" for who, came in zip(WHO, RECORDED[kind], strict=True))
            for kind in COOKIES
        ]
        return "\n".join([_recorded(), *lines, _origin_always()])


# --- Words -----------------------------------------------------------------------------------------------------------


def _who(who: str) -> str:
    return {OWN: _("own page"), NEIGHBOUR: _("neighbour"), FOREIGN: _("foreign page")}[who]


def _kind(kind: str) -> str:
    return {
        "unset": _("without SameSite"),
        "lax": "SameSite=Lax",
        "strict": "SameSite=Strict",
        "none": "SameSite=None; Secure",
        "insecure": _("SameSite=None without Secure"),
    }[kind]


def _came(came: bool) -> str:
    return _("cookie sent") if came else _("no cookie")


def _recorded() -> str:
    return _(
        "Does the login cookie come along with a WebSocket handshake? Recorded with Chromium 156, with third-party "
        "cookies allowed. Without them, the foreign page has no cookie in any row."
    )


def _origin_always() -> str:
    return _("Every handshake names its page's origin. A server that accepts any origin answers 101 in every case.")


def _sentence(who: str, knock: Knock | None) -> str:
    """Return what came of one page's attempt, for the line that is read aloud."""
    page = _who(who).capitalize()
    if knock is None:
        return _("{page}: nothing arrived.").format(page=page)
    if knock.status == 101 and knock.cookie:
        return _("{page}: let in (101), with the cookie.").format(page=page)
    if knock.status == 101:
        return _("{page}: let in (101), without the cookie.").format(page=page)
    if knock.cookie:
        return _("{page}: refused ({status}), with the cookie.").format(page=page, status=knock.status)
    return _("{page}: refused ({status}), without the cookie.").format(page=page, status=knock.status)


def _row(knock: Knock) -> dict[str, Any]:
    cookie = VISITOR if knock.cookie else _("none")
    if knock.others:
        also = ngettext(
            "{cookie} (and {count} cookie of another program here)",
            "{cookie} (and {count} cookies of other programs here)",
            knock.others,
        )
        cookie = also.format(cookie=cookie, count=knock.others)
    place = _("{page}, in its own tab") if knock.in_a_tab else "{page}"
    who = place.format(page=_who(knock.who))
    return {"who": who, "origin": knock.origin, "cookie": cookie, "status": knock.status, "sent": knock.cookie}


def _tried(cookie: str, checks: bool, knocks: dict[str, Knock]) -> list[str]:
    """Return a row of the table of what was tried: the cookie, the origins, and a cell for each page."""
    cells = [f"{'✔' if k.cookie else '–'} {k.status}" if (k := knocks.get(who)) else "" for who in WHO]
    return [_kind(cookie), _("its own only") if checks else _("any"), *cells]


def _words() -> dict[str, Any]:
    """Return the texts that never change."""
    return {
        "title": _("A foreign page knocks"),
        "help": _(
            "The site sets a login cookie and has a WebSocket. Its own page connects to it, and so do two others: a "
            "neighbour on another port of the same host, and a foreign page on another site. Your browser opens all "
            "three. The table shows what the server received."
        ),
        "cookie": _("The site's login cookie"),
        "kinds": [[kind, _kind(kind)] for kind in COOKIES],
        "origins": _("The server accepts only its own origin"),
        "open": _("Open the three pages"),
        "tabs": _("Or open one in its own tab:"),
        "who": {who: _who(who) for who in WHO},
        "heads": [_("page"), "Origin", "Cookie", _("the server's answer")],
        "answers": {"101": _("101, let in"), "403": _("403, refused")},
        "received": _("What the server received"),
        "tried": _("What you have tried: ✔ with the cookie, – without it, and the status"),
        "triedHeads": [_("cookie"), _("accepted origins"), *map(_who, WHO)],
        "conditions": _("Under which conditions"),
        "notes": [
            _(
                "Chromium treats a cookie without SameSite as Lax since 2020. A WebSocket handshake is no navigation, "
                "so a Lax cookie stays at home as a Strict one does."
            ),
            _(
                "SameSite=None needs Secure, or the cookie is not stored. Secure needs https, except on localhost and "
                "127.0.0.1. A foreign page's None cookie is sent only where third-party cookies are allowed."
            ),
            _(
                "Firefox and Safari keep a separate cookie jar for each site in the address bar, so a foreign page has "
                "no cookie of yours, whatever SameSite says. A visitor can change that. Then Firefox, unlike Chromium, "
                "sends a foreign page's cookie without SameSite."
            ),
            _(
                "Ports do not count for SameSite: the neighbour has every cookie, a Strict one too. A subdomain is "
                "such a neighbour. Only its Origin tells it from the site's own page."
            ),
            _(
                "A server without a login needs no cookie. Any page can use it and read its answers, because the "
                "same-origin policy does not cover WebSockets. So check the Origin of every handshake."
            ),
        ],
    }
