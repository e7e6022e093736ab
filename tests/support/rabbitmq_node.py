"""Operate a RabbitMQ that was started here with Erlang's `erl_call`, which is faster than `rabbitmqctl`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from chatlab.lab.engines.engine import Engine

NODE = "chatlab@localhost"


def vhost_of(url: str) -> str:
    """Return the name of the virtual host in an AMQP URL."""
    return URL(url).path[1:]


class Node:
    """The private node of an engine. Each method does what the `rabbitmqctl` command of the same name does."""

    def __init__(self, engine: Engine) -> None:
        program = shutil.which("erl_call")
        if engine.pid is None or engine.folder is None or program is None or not Path("/proc").exists():
            pytest.skip(f"the RabbitMQ at {engine.url} cannot be operated from here")
        octets = Path(f"/proc/{engine.pid}/environ").read_bytes()
        (port,) = (line for line in octets.decode(errors="replace").split("\0") if line.startswith("ERL_EPMD_PORT="))
        self._environment = {**os.environ, "ERL_EPMD_PORT": port.partition("=")[2]}
        cookie = (engine.folder / ".erlang.cookie").read_text()
        self._command = [program, "-name", NODE, "-c", cookie, "-e"]

    async def eval(self, expression: str) -> str:
        """Evaluate an Erlang expression on the node; return the result."""
        return await asyncio.to_thread(self._run, f"{expression}.\n")

    async def add_vhost(self, vhost: str) -> None:
        await self.eval(f'rabbit_vhost:add(<<"{vhost}">>, <<"test">>)')
        await self.set_permissions(vhost)

    async def delete_vhost(self, vhost: str) -> None:
        await self.eval(f'rabbit_vhost:exists(<<"{vhost}">>) andalso rabbit_vhost:delete(<<"{vhost}">>, <<"test">>)')

    async def set_permissions(self, vhost: str, write: str = ".*") -> None:
        rights = f'<<".*">>, <<"{write}">>, <<".*">>'
        await self.eval(
            f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{vhost}">>, {rights}, <<"test">>)'
        )

    async def limit_queues(self, vhost: str, most: int) -> None:
        """Set the limit on the queues of a virtual host; -1 takes it away."""
        await self.eval(f'rabbit_vhost_limit:set(<<"{vhost}">>, [{{<<"max-queues">>, {most}}}], <<"test">>)')

    async def set_policy(self, vhost: str, pattern: str, rule: str) -> None:
        await self.eval(
            f'rabbit_policy:set(<<"{vhost}">>, <<"p">>, <<"{pattern}">>, [{rule}], 0, <<"queues">>, <<"test">>)'
        )

    async def delete_queues(self, part: str = "", vhost: str = "/") -> None:
        """Delete the queues whose names contain `part`, including exclusive ones."""
        found = f'binary:match(element(4, amqqueue:get_name(Q)), <<"{part}">>) =/= nomatch' if part else "true"
        queues = f'Q <- rabbit_amqqueue:list(<<"{vhost}">>)'
        # Ignore a queue that disappears by itself because its connection was closed.
        await self.eval(f'[catch rabbit_amqqueue:delete(Q, false, false, <<"test">>) || {queues}, {found}]')

    async def unacknowledged(self, vhost: str) -> list[int]:
        """Return the number of unacknowledged messages in each queue."""
        listed = await self.eval(
            f'[N || [{{_, N}}] <- rabbit_amqqueue:info_all(<<"{vhost}">>, [messages_unacknowledged])]'
        )
        return [int(number) for number in listed.strip("[]").split(",") if number.strip().isdigit()]

    async def set_memory_high_watermark(self, limit: str) -> None:
        await self.eval(f"vm_memory_monitor:set_vm_memory_high_watermark({limit})")

    @asynccontextmanager
    async def settings(self, **values: int) -> AsyncIterator[None]:
        """Change settings of the application `rabbit` for channels opened from now on, and restore them on exit."""
        before = {name: await self.eval(f"{{ok, V}} = application:get_env(rabbit, {name}), V") for name in values}
        try:
            for name, value in values.items():
                await self.eval(f"application:set_env(rabbit, {name}, {value})")
            yield
        finally:
            for name, old in before.items():
                await self.eval(f"application:set_env(rabbit, {name}, {old})")

    def _run(self, expression: str) -> str:
        for attempt in range(5):
            done = self._call(expression)
            # Two calls at almost the same time can have the same name, which the node refuses.
            if attempt == 4 or "failed to connect" not in done.stderr:
                break
            time.sleep(0.2)
        assert done.returncode == 0, f"{expression}: {done.stdout}{done.stderr}"
        assert done.stdout.startswith("{ok, "), f"{expression}: {done.stdout}"
        return done.stdout.removeprefix("{ok, ").removesuffix("}")

    def _call(self, expression: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command,
            env=self._environment,
            input=expression,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
