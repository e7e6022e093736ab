"""The site logs its visitor in, tells what each page sent, and refuses pages of other origins once it checks them.

What a real browser sends is tested in tests/browser/test_foreign_page.py; here a client sends what such a page would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from chatlab.lab.pictures import foreign_page
from chatlab.lab.pictures.foreign_page import COOKIES, FOREIGN, NEIGHBOUR, OWN, ForeignPage
from chatlab.lab.runtime import lab


@pytest.fixture
async def picture() -> AsyncIterator[ForeignPage]:
    picture = await foreign_page()
    yield picture
    await picture.aclose()


async def load(picture: ForeignPage, who: str) -> tuple[str, str]:
    """Load one of the pages; return its HTML and the cookie that it sets."""
    async with aiohttp.ClientSession() as session, session.get(picture.urls()[who]) as response:
        return await response.text(), response.headers.get("Set-Cookie", "")


async def connect(picture: ForeignPage, who: str, cookie: str = "") -> str:
    """Connect as the page of `who` does; return the server's greeting, or the status that refused it."""
    html, __ = await load(picture, who)
    socket = html.partition('new WebSocket("')[2].partition('"')[0]
    origin = picture.urls()[who].partition("/?")[0]
    headers = {"Cookie": cookie.partition(";")[0]} if cookie else {}
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(socket, origin=origin, headers=headers) as websocket:
                return await websocket.receive_str()
        except aiohttp.WSServerHandshakeError as refused:
            return str(refused.status)


@pytest.mark.parametrize(("kind", "attributes"), COOKIES.items())
async def test_the_own_page_sets_the_cookie_that_was_chosen(picture: ForeignPage, kind: str, attributes: str) -> None:
    picture.received({"do": "cookie", "kind": kind})
    assert (await load(picture, OWN))[1].endswith(f"HttpOnly{'; ' if attributes else ''}{attributes}")


@pytest.mark.parametrize("who", [NEIGHBOUR, FOREIGN])
async def test_only_the_own_page_sets_a_cookie(picture: ForeignPage, who: str) -> None:
    assert (await load(picture, who))[1] == ""


async def test_without_a_check_every_origin_is_let_in_and_the_cookie_decides_who_is_greeted(
    picture: ForeignPage,
) -> None:
    cookie = (await load(picture, OWN))[1]

    assert await connect(picture, NEIGHBOUR, cookie) == "Hello garam, here are your messages."
    assert await connect(picture, FOREIGN) == "Hello, whoever you are."
    assert [row["status"] for row in picture.state["rows"]] == [101, 101]
    assert [row["sent"] for row in picture.state["rows"]] == [True, False]


async def test_a_check_refuses_other_origins_with_their_cookies(picture: ForeignPage) -> None:
    cookie = (await load(picture, OWN))[1]
    picture.received({"do": "origins", "checks": True})

    assert await connect(picture, OWN, cookie) == "Hello garam, here are your messages."
    assert await connect(picture, NEIGHBOUR, cookie) == "403"
    assert await connect(picture, FOREIGN) == "403"
    assert picture.state["tried"] == [["without SameSite", "its own only", "✔ 101", "✔ 403", "– 403"]]


async def test_the_result_is_one_sentence_for_each_page(picture: ForeignPage) -> None:
    picture.received({"do": "open", "host": "127.0.0.1"})
    cookie = (await load(picture, OWN))[1]
    for who in (OWN, NEIGHBOUR):
        await connect(picture, who, cookie)
    await connect(picture, FOREIGN)
    await picture._tasks.join(timeout=5)

    assert picture.state["status"] == (
        "Own page: let in (101), with the cookie. Neighbour: let in (101), with the cookie. "
        "Foreign page: let in (101), without the cookie."
    )
    assert not picture.state["trying"]


async def test_cookies_of_other_programs_are_counted_and_not_shown(picture: ForeignPage) -> None:
    await connect(picture, OWN, "_xsrf=secret")
    (row,) = picture.state["rows"]
    assert row["cookie"] == "none (and 1 cookie of another program here)"


@pytest.mark.parametrize(("host", "foreign"), [("127.0.0.1", "http://localhost:"), ("localhost", "http://127.0.0.1:")])
async def test_the_own_page_is_of_the_notebooks_site_and_the_foreign_page_of_the_other(
    picture: ForeignPage, host: str, foreign: str
) -> None:
    picture.received({"do": "open", "host": host})
    urls = picture.urls()
    assert urls[OWN].startswith(f"http://{host}:")
    assert urls[NEIGHBOUR].startswith(f"http://{host}:")
    assert urls[FOREIGN].startswith(foreign)


async def test_a_notebook_on_another_machine_is_sent_to_the_links(picture: ForeignPage) -> None:
    picture.received({"do": "open", "host": "hub.example"})
    assert "open the pages with the links" in picture.state["status"]
    assert not picture.state["trying"]


async def test_it_can_be_started_twice_and_the_first_one_ends() -> None:
    first = await lab.start("foreign page", foreign_page())
    second = await lab.start("foreign page", foreign_page())

    assert first.closed
    with pytest.raises(aiohttp.ClientConnectorError):
        await load(first, OWN)
    assert "own page" in (await load(second, OWN))[0]
    await lab.stop("foreign page")


async def test_without_a_kernel_it_is_the_same_in_every_run(picture: ForeignPage) -> None:
    before = picture.still(), picture.plain()
    await connect(picture, FOREIGN)
    assert (picture.still(), picture.plain()) == before
    assert "127.0.0.1:" not in "".join(before)
    assert (
        picture.plain().splitlines()[1]
        == "  without SameSite: own page cookie sent, neighbour cookie sent, foreign page no cookie"
    )
