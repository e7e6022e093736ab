"""A picture's HTTP server answers on the paths it was given, and closes even while a request is under way."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from chatlab.lab.pictures.http_server import HOST, serve


async def test_each_path_has_its_handler_and_no_other_path_has_any() -> None:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.method} {await request.text()}")

    server = await serve({"/hello": hello})
    address = f"http://{HOST}:{server.port}"
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{address}/hello", data="안녕") as response:
            assert await response.text() == "POST 안녕"
        async with session.get(f"{address}/other") as response:
            assert response.status == 404
    await server.aclose()


async def test_closing_does_not_wait_for_an_answer_that_never_comes() -> None:
    asked = asyncio.Event()

    async def never(request: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    server = await serve({"/": never})
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(session.get(f"http://{HOST}:{server.port}/"))
        await asked.wait()
        async with asyncio.timeout(3):
            await server.aclose()
        with pytest.raises(aiohttp.ClientError):
            await asking
