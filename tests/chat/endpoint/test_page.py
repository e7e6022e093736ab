"""The page as a browser gets it: its files and no others, under a policy that permits no other code."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256
from typing import NamedTuple

import pytest
from aiohttp import ClientSession

from chatlab.chat.endpoint.page import FOLDER
from chatlab.chat.endpoint.server import ChatServer

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# What the packages on npm hold: @stomp/stompjs 7.5.0 bundles/stomp.umd.min.js, sockjs-client 1.6.1 dist/sockjs.min.js
VENDORED = {
    "stomp.umd.min.js": "1cac8e0d31d3a70bf89fa7f2200243a00e02b2e8636e00fa5e760adb7d04f6fd",
    "sockjs.min.js": "1e0f37d073666196b0848fd7d80d525268d5adf47ea1ec459632f05bbf8e1f54",
}


@pytest.fixture
async def http(server: ChatServer) -> AsyncIterator[ClientSession]:
    async with ClientSession(server.page_url) as http:
        yield http


class Answer(NamedTuple):
    """Return the server's whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def get(http: ClientSession, path: str, **headers: str) -> Answer:
    async with http.get(path, headers=headers) as response:
        return Answer(response.status, response.headers, await response.read())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/chat.js", "text/javascript; charset=utf-8"),
        ("/chat.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/vendor/stomp.umd.min.js", "text/javascript; charset=utf-8"),
        ("/vendor/stompjs-LICENSE.txt", "text/plain; charset=utf-8"),
    ],
)
async def test_each_file_is_served_unchanged_with_its_type_and_the_policy(
    http: ClientSession, path: str, kind: str
) -> None:
    response = await get(http, path)
    assert (response.status, response.headers["Content-Type"]) == (200, kind)
    assert response.body == (FOLDER / (path[1:] or "index.html")).read_bytes()
    assert response.headers["Content-Security-Policy"] == POLICY
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"


async def test_every_file_the_page_refers_to_is_served(http: ClientSession) -> None:
    page = (await get(http, "/")).body.decode()
    scripts = "".join(path.read_text(encoding="utf-8") for path in FOLDER.glob("*.js"))
    named = re.findall(r'(?:src|href)="([^"#]+)"', page) + re.findall(r'from "\./([^"]+)"', scripts)
    assert {"chat.css", "chat.js", "link.js", "words.js", "vendor/stomp.umd.min.js"} <= set(named)
    for name in named:
        assert (await get(http, f"/{name}")).status == 200, name


def test_the_page_keeps_to_its_own_policy() -> None:
    """No inline script, style or handler, and none made from a string: the policy forbids them all."""
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]* src=)", page)
    for script in FOLDER.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script.read_text())


@pytest.mark.parametrize(
    "path", ["/nothing", "/vendor/", "/page.py", "/../page.py", "/vendor/%2e%2e/%2e%2e/page.py", "/..%2fpage.py"]
)
async def test_a_path_that_is_not_a_file_is_not_found(server: ChatServer, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)  # no client library to normalize the path
    writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"import" not in answer


async def test_a_file_that_a_browser_has_cached_is_not_sent_again(http: ClientSession) -> None:
    first = await get(http, "/chat.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await get(http, "/chat.js", **{"If-None-Match": f'"older", {first.headers["ETag"]}'})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["Content-Security-Policy"] == POLICY
    assert (await get(http, "/chat.js", **{"If-None-Match": '"older"'})).status == 200


@pytest.mark.parametrize("name", VENDORED)
async def test_vendored_files_are_as_their_packages_ship_them(http: ClientSession, name: str) -> None:
    assert sha256((await get(http, f"/vendor/{name}")).body).hexdigest() == VENDORED[name]
    assert VENDORED.keys() == {path.name for path in (FOLDER / "vendor").glob("*.js")}


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("stompjs-LICENSE.txt", "Apache License\n                           Version 2.0, January 2004"),
        ("sockjs-client-LICENSE.txt", "Copyright (c) 2011-2018 The sockjs-client Authors."),
    ],
)
async def test_each_vendored_file_has_its_licence(http: ClientSession, licence: str, words: str) -> None:
    assert words in (await get(http, f"/vendor/{licence}")).body.decode()
    assert licence in (FOLDER / "vendor" / "README.md").read_text(encoding="utf-8")
