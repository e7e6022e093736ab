"""The room's page over plain HTTP, the room code, and the banner in the terminal."""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from http.client import HTTPConnection, HTTPResponse

import pytest

from chatlab import classroom, room


async def fetch(server: room.RoomServer, path: str, method: str = "GET") -> tuple[HTTPResponse, bytes]:
    """Request `path` from the room's server as a browser does."""

    def ask() -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection(server.host, server.port, timeout=10)
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response, body

    return await asyncio.to_thread(ask)


async def test_the_page_and_its_files_are_served_on_the_rooms_port() -> None:
    async with await room.start() as server:
        for path, kind, part in [
            ("/", "text/html; charset=utf-8", b"<h1>The room</h1>"),
            ("/room.js", "text/javascript; charset=utf-8", b"new WebSocket("),
            ("/room.css", "text/css; charset=utf-8", b"#log"),
        ]:
            response, body = await fetch(server, path)
            assert (response.status, response.headers["Content-Type"]) == (200, kind)
            assert part in body


async def test_the_page_forbids_foreign_scripts_and_frames() -> None:
    async with await room.start() as server:
        response, _ = await fetch(server, "/")
        assert response.headers["Content-Security-Policy"] == (
            "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'"
        )
        assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_joining_the_room_requires_the_code_and_opening_the_page_does_not() -> None:
    async with await room.start(code="K7QX3M") as server:
        assert (await fetch(server, "/"))[0].status == 200
        response, body = await fetch(server, "/room?name=Ana&code=guess")
        assert (response.status, body) == (403, b"wrong room code\n")
        response, _ = await fetch(server, "/room?name=Ana&code=K7QX3M")
        assert response.status == 426  # Upgrade Required: everything else was right


@pytest.mark.parametrize("path", ["/room.py", "/../room.py", "/room_page/index.html", "/%2e%2e/room.py", "//"])
async def test_paths_other_than_the_pages_are_404(path: str) -> None:
    async with await room.start() as server:
        response, body = await fetch(server, path)
        assert (response.status, body) == (404, b"nothing here; the room is at /room\n")


async def test_the_page_answers_only_get() -> None:
    async with await room.start() as server:
        response, _ = await fetch(server, "/", method="DELETE")
        assert response.status == 404


async def test_the_articles_room_has_no_page() -> None:
    async with await room.start_as_in_the_article() as server:
        assert (await fetch(server, "/"))[0].status == 404


async def test_urls_of_a_room_on_all_addresses_can_be_opened() -> None:
    async with await room.start(host="0.0.0.0", code="K7QX3M") as server:
        assert server.url == f"ws://127.0.0.1:{server.port}/room"
        assert server.page_url("192.168.1.5") == f"http://192.168.1.5:{server.port}/#K7QX3M"
        assert (await fetch(server, "/"))[0].status == 200


def test_room_codes_are_six_unambiguous_characters_and_differ() -> None:
    codes = {classroom.new_code() for _ in range(200)}
    assert len(codes) == 200
    assert all(len(code) == 6 and set(code) <= set(classroom.CODE_LETTERS) for code in codes)
    assert not set("0O1IL") & set(classroom.CODE_LETTERS)


def test_a_code_is_compared_without_case_and_surrounding_spaces() -> None:
    assert classroom.same_code(" k7qx3m ", "K7QX3M")
    assert not classroom.same_code("K7QX3", "K7QX3M")
    assert not classroom.same_code("", "K7QX3M")


def test_the_lan_address_is_a_numeric_address() -> None:
    ipaddress.IPv4Address(classroom.lan_address())


def test_the_banner_shows_the_address_the_code_a_qr_code_and_the_warnings() -> None:
    text = classroom.banner("http://192.168.1.5:8002/#K7QX3M")
    assert "address    http://192.168.1.5:8002/\n" in text
    assert "room code  K7QX3M\n" in text
    assert "open to every device on this network" in text
    assert "not encrypted" in text
    rows = [line for line in text.splitlines() if set(line) <= set(" ▀▄█") and line.strip()]
    assert len({len(row) for row in rows}) == 1
    assert len(rows) == pytest.approx(len(rows[0]) / 2, abs=1)  # square: a character is two modules high


def test_without_the_qr_library_the_banner_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    text = classroom.banner("http://192.168.1.5:8002/")
    assert 'pip install "chatlab[lab]"' in text
    assert "room code  none: anyone who finds the address can come in" in text
