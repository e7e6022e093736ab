"""The command line as users see it: each test runs the real program, and reads its output."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chatlab import cli
from chatlab.brokers.memory.broker import MemoryBroker
from chatlab.brokers.redis.streams import RedisStreamsBroker
from chatlab.classroom import lan_address
from chatlab.cli import broker_of
from chatlab.clients.stomp import StompClient
from chatlab.lab.claims import CLAIMS
from chatlab.lab.engines.engine import Engine
from tests.support.commands import CHATLAB, chatlab, run
from tests.support.older_redis import redis_6_0, relayed

ROOT = Path(__file__).parents[1]
SERVERS = {
    "echo": ["serve", "echo"],
    "echo by hand": ["serve", "echo", "--by-hand"],
    "room": ["serve", "room"],
    "room as in the article": ["serve", "room", "--as-in-the-article"],
    "chat": ["serve", "chat", "--broker", "memory://"],
}

LONG = pytest.mark.long


def is_one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.startswith("chatlab: ")


def thread_count(process: int) -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))


RunInProcess = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[RunInProcess]:
    """Yield a function that runs a command in this process; it returns exit status, stdout and stderr."""
    root, chatlab_logger = logging.getLogger(), logging.getLogger("chatlab")
    handlers, levels = root.handlers[:], (root.level, chatlab_logger.level)
    on_interrupt = signal.getsignal(signal.SIGINT)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["chatlab", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code, *capsys.readouterr())  # type: ignore[return-value]  # always a status

    yield run
    signal.signal(signal.SIGINT, on_interrupt)
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    chatlab_logger.setLevel(levels[1])


# Starting and stopping.


@pytest.mark.parametrize(
    ("server", "number"), [*[(server, signal.SIGTERM) for server in SERVERS], ("echo", signal.SIGINT)]
)
async def test_a_server_prints_its_url_and_closes_cleanly_on_a_signal(server: str, number: signal.Signals) -> None:
    arguments = SERVERS[server]
    async with chatlab(*arguments, "--port", "0") as command, connect(await command.url(), proxy=None) as client:
        command.process.send_signal(number)
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(10):
                while True:
                    await client.recv()
        # RFC 6455, section 7.4.1: 1001 "going away", such as a server going down
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        status, _, errors = await command.ended()
    assert status == 0
    assert "Traceback" not in errors


async def test_a_second_signal_ends_a_server_at_once() -> None:
    async with chatlab("serve", "chat", "--broker", "memory://", "--port", "0", "--drain-seconds", "60") as command:
        url = await command.url()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        command.process.send_signal(signal.SIGTERM)
        await reader.read(1)  # its Close frame, which this client does not answer
        command.process.send_signal(signal.SIGTERM)
        status, _, _ = await command.ended()
        writer.close()
    assert status == -signal.SIGTERM


SLOW_IMPORT = """if True:
    import runpy, sys, time

    class Slow:
        def find_spec(self, name, path=None, target=None):
            if name == "chatlab.chat.endpoint.server":
                print("importing", flush=True)
                time.sleep(30)

    sys.meta_path.insert(0, Slow())
    sys.argv = ["chatlab", "serve", "chat", "--broker", "memory://", "--port", "0"]
    runpy.run_module("chatlab.cli", run_name="__main__")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_during_start_ends_a_server_without_a_traceback(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SLOW_IMPORT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"importing\n"
        process.send_signal(number)
        output, errors = await process.communicate()
    assert (output, errors) == (b"", b"")
    assert process.returncode == -number


async def test_a_server_stops_when_stdin_ends_if_asked_to() -> None:
    async with chatlab("serve", "echo", "--port", "0", "--until-stdin-ends") as command:
        await command.url()
        assert command.process.stdin is not None
        command.process.stdin.close()
        status, _, errors = await command.ended()
    assert (status, errors) == (0, "")


async def test_a_server_waiting_for_its_broker_can_be_stopped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and sends nothing
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        async with chatlab("serve", "chat", "--redis", url, "--port", "0") as command:
            accepted, _ = await asyncio.get_running_loop().run_in_executor(None, silent.accept)
            with accepted:  # if closed too early, it would be a broker that disconnects
                command.process.send_signal(signal.SIGTERM)
                status, output, errors = await command.ended()
    assert (status, output, errors) == (0, "", "")


# What each server offers.


async def test_the_echo_server_returns_what_it_receives() -> None:
    async with chatlab("serve", "echo", "--port", "0") as command, connect(await command.url(), proxy=None) as client:
        await client.send("안녕 🙂")
        assert await client.recv() == "안녕 🙂"


async def test_the_room_command_serves_the_room_and_its_page() -> None:
    async with chatlab("serve", "room", "--port", "0") as command:
        url = await command.url()
        assert url.endswith("/room")
        assert command.lines[0] == f"the room's page: {url.replace('ws:', 'http:').removesuffix('room')}"


async def test_only_origins_given_with_the_option_may_connect() -> None:
    async with chatlab("serve", "room", "--port", "0", "--origin", "https://chat.example") as command:
        url = await command.url()
        async with connect(url, origin="https://chat.example", proxy=None):  # type: ignore[arg-type]  # wants its NewType
            pass
        with pytest.raises(InvalidStatus, match="403"):
            await connect(url, origin="https://evil.example", proxy=None)  # type: ignore[arg-type]  # the same


@pytest.mark.long
async def test_the_rate_option_limits_the_room() -> None:
    arguments = ["serve", "room", "--port", "0", "--rate", "0.1"]
    async with chatlab(*arguments) as command, connect(await command.url(), proxy=None) as client:
        for _ in range(20):
            await client.send("flood")
        async with asyncio.timeout(10):
            while not str(await client.recv()).startswith("! not sent: more than 0.1 messages a second"):
                pass


async def test_the_rate_option_limits_the_chat() -> None:
    arguments = ["serve", "chat", "--broker", "memory://", "--port", "0", "--rate", "0.1"]
    async with chatlab(*arguments) as command, StompClient(await command.url(), proxy=None) as client:
        errors = await client.subscribe("/user/queue/errors")
        for number in range(21):
            await client.send("/app/chat.sendMessage", f'{{"content":"{number}"}}', receipt=False)
        async with asyncio.timeout(10):
            refusal = json.loads((await anext(errors)).body)
        assert refusal["error"] == "not sent: too many messages a second"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_the_chat_listens_on_every_address_of_its_host(host: str) -> None:
    async with (
        chatlab("serve", "chat", "--broker", "memory://", "--port", "0", "--host", host) as command,
        StompClient(await command.url(), proxy=None) as client,
    ):
        assert client.connected.command == "CONNECTED"


@pytest.mark.parametrize(("host", "loopback"), [("0.0.0.0", "127.0.0.1"), ("0", "127.0.0.1"), ("::", "[::1]")])
@pytest.mark.parametrize(
    "server", [pytest.param(server, marks=[] if server == "chat" else [pytest.mark.long]) for server in SERVERS]
)
async def test_a_server_on_all_addresses_prints_urls_that_can_be_opened(server: str, host: str, loopback: str) -> None:
    async with chatlab(*SERVERS[server], "--port", "0", "--host", host) as command:
        listening = await command.url()
        matches = [re.fullmatch(r"(.*?)(?::| on) (\w+://\S+)", line) for line in command.lines]
        urls = [(match[1], match[2]) for match in matches if match]
        for label, url in urls:
            address, port = url.split("/")[2].rsplit(":", 1)
            assert address == loopback if label != "on this network" else address not in ("0.0.0.0", "[::]", loopback)
            _, writer = await asyncio.open_connection(address.strip("[]"), int(port))
            writer.close()
    assert listening.startswith(f"ws://{loopback}:")
    network = lan_address({"0": "0.0.0.0"}.get(host, host))
    on_network = any(label == "on this network" and network in url for label, url in urls)
    assert (loopback.strip("[]") == network) != on_network


async def test_a_lan_room_on_one_address_prints_that_address() -> None:
    async with chatlab("serve", "room", "--lan", "--port", "0", "--host", "localhost") as command:
        await command.url()
        (address,) = [line.split()[-1] for line in command.lines if "address  " in line]
        assert address.startswith(("http://127.0.0.1:", "http://[::1]:"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc, which only Linux has")
async def test_the_chat_runs_in_one_thread() -> None:
    # With a second thread, even a sleeping one, the kernel counts references on each write: a message costs 2% more.
    async with (
        chatlab("serve", "chat", "--broker", "memory://", "--port", "0") as command,
        StompClient(await command.url(), proxy=None) as client,
    ):
        await client.send("/app/chat.sendMessage", '{"content":"hello"}')
        assert thread_count(command.process.pid) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--broker", "memory://", "--audit-log", "/nowhere/audit.jsonl"], "no audit log at /nowhere/audit.jsonl"),
        (["--broker", "memory://", "--job-room", "cats"], "--job-room names a room for"),
        (["--broker", "memory://", "--notify-mentions", "--job-room", "a b"], "not a room's name: 'a b'"),
        (["--redis", "redis://x", "--as-in-the-article", "first", "--rate", "1"], "has no limits and no jobs"),
    ],
)
async def test_invalid_jobs_are_refused_at_the_start(arguments: list[str], expected: str) -> None:
    status, _, errors = await run("serve", "chat", "--port", "0", *arguments)
    assert status in (2, 3)
    assert expected in errors


async def test_a_lan_room_prints_its_code_and_requires_it() -> None:
    async with chatlab("serve", "room", "--lan", "--port", "0") as command:
        url = await command.url()
        (code,) = [line.split()[-1] for line in command.lines if "room code" in line]
        assert any("█" in line for line in command.lines), "no QR code"
        async with connect(f"{url}?name=Ana&code={code}", proxy=None) as client:
            assert await client.recv() == "* Ana joined (1 here)"
        with pytest.raises(InvalidStatus):
            await connect(f"{url}?name=Eve&code=WRONG2", proxy=None)


async def test_json_logs_writes_one_json_object_per_line() -> None:
    async with chatlab("serve", "--json-logs", "room", "--port", "0") as command:
        async with connect(f"{await command.url()}?name=Ana", proxy=None) as client:
            await client.recv()
        command.process.send_signal(signal.SIGTERM)
        _, _, errors = await command.ended()
    events = [json.loads(line) for line in errors.splitlines()]
    assert {event["logger"] for event in events} == {"chatlab.room"}
    assert any(event["event"].startswith("Ana at 127.0.0.1") for event in events)


# Errors.


async def test_a_port_in_use_is_reported_with_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for server in ("echo", "room", "chat"):
            status, output, errors = await run(*SERVERS[server], "--port", str(port))
            assert errors == (
                f"chatlab: port {port} on 127.0.0.1 is taken; "
                "choose another with --port, or --port 0 for any free one\n"
            )
            assert (status, output) == (3, "")


@pytest.mark.parametrize("server", ["echo", "chat"])
async def test_a_foreign_address_is_reported_with_a_remedy(server: str) -> None:
    # RFC 5737: 203.0.113.0/24 is reserved for documentation; RFC 6761: .invalid never resolves
    for host in ("203.0.113.9", "no-such-host.invalid"):
        status, _, errors = await run("serve", *SERVERS[server][1:], "--host", host)
        assert errors.startswith(f"chatlab: this machine has no address {host}; choose with --host")
        assert is_one_line(errors)
        assert status == 3


async def test_an_unreachable_redis_is_reported_without_its_password() -> None:
    with socket.socket() as closed:  # bound but not listening: nothing answers, and no other process can take the port
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        status, output, errors = await run("serve", "chat", "--redis", f"redis://me:secret@127.0.0.1:{port}/0")
    assert errors.startswith(f"chatlab: the broker at redis://me:***@127.0.0.1:{port}/0 does not answer")
    assert errors.endswith("; start that server, or name another with --broker URL\n")
    assert "secret" not in errors
    assert is_one_line(errors)
    assert (status, output) == (3, "")


@pytest.mark.parametrize(
    "url",
    [
        "nats://me:secret@127.0.0.1",
        "kafka",
        "me:secret@127.0.0.1",
        "http://127.0.0.1",
        "memory://127.0.0.1",
        "memory:// --port 0",
        "redis://127.0.0.1:99999",
        "redis://me:secret/1@127.0.0.1",
        "redis://[::1",
        "amqp://",
        "amqp://me:secret@",
        "amqp://127.0.0.1:99999",
        "amqp://127.0.0.1:x",
        "amqp://me:secret#1@127.0.0.1:5672",
        "kafka://",
        "kafka://127.0.0.1:99999",
        "kafka://127.0.0.1:x",
        "kafka://127.0.0.1:9092,127.0.0.1:0",
        "kafka://me:secret?1@127.0.0.1",
    ],
)
def test_an_invalid_broker_url_is_reported_in_one_line_with_the_valid_forms(
    url: str, run_in_process: RunInProcess
) -> None:
    status, _, errors = run_in_process("serve", "chat", "--broker", url)
    for scheme in ("memory://", "redis://", "redis-pubsub://", "amqp://", "kafka://"):
        assert scheme in errors
    assert "secret" not in errors
    assert is_one_line(errors)
    assert status == 2


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "redis://me:secret@127.0.0.1?typo=1",
            "unknown option 'typo' in redis://me:***@127.0.0.1; the options are db,",
        ),
        ("redis://127.0.0.1?timeout=abc", "the option timeout must be a number of seconds, not 'abc', in redis"),
        ("redis://127.0.0.1?ssl=true", "the option ssl contradicts redis://"),
        ("redis://127.0.0.1?ssl_cert_reqs=none", "the option ssl_cert_reqs is only for rediss://"),
        ("redis://127.0.0.1/1?db=2", "the option db has two values"),
        ("redis-pubsub://127.0.0.1?typo=1", "unknown option 'typo'"),
        ("redis://:sec/ret@127.0.0.1", "cannot tell where the password ends"),
        ("redis:me:secret@127.0.0.1", "'***' is not a URL"),
    ],
)
@pytest.mark.parametrize("server", ["chat", pytest.param("room", marks=pytest.mark.long)])
async def test_an_invalid_option_in_a_broker_url_is_named_in_one_line(server: str, url: str, expected: str) -> None:
    status, output, errors = await run("serve", server, "--port", "0", "--broker", url)
    assert expected in errors
    assert "sec" not in errors.replace("seconds", "")
    assert is_one_line(errors)
    assert (status, output) == (2, "")


@pytest.mark.parametrize("option", ["protocol=2", "decode_responses=true", "max_connections=1", "socket_timeout=0.001"])
async def test_an_ignored_option_in_a_broker_url_causes_a_warning_and_the_chat_works(
    fresh_redis: Engine, option: str
) -> None:
    async with (
        chatlab("serve", "chat", "--port", "0", "--redis", f"{fresh_redis.url}?{option}") as command,
        StompClient(await command.url(), proxy=None) as client,
    ):
        messages = await client.subscribe("/topic/public")
        await client.send("/app/chat.sendMessage", '{"content":"hello"}')
        async with asyncio.timeout(10):
            assert json.loads((await anext(messages)).body)["content"] == "hello"
        command.process.send_signal(signal.SIGTERM)
        _, _, errors = await command.ended()
    assert errors.count(f"ignored in {fresh_redis.url}: {option.partition('=')[0]} (") == 1


@pytest.mark.parametrize("arguments", [["chat"], ["room"], ["chat", "--as-in-the-article", "first"]])
async def test_a_redis_that_is_too_old_fails_the_start(fresh_redis: Engine, arguments: list[str]) -> None:
    async with relayed(fresh_redis.url, redis_6_0) as url:
        status, output, errors = await run("serve", *arguments, "--port", "0", "--redis", url)
    assert errors.startswith(
        f"chatlab: the broker at {url} is not suitable: Redis 6.0.16 is too old: Redis 6.2 or newer"
    )
    assert is_one_line(errors)
    assert (status, output) == (3, "")


async def test_a_missing_permission_for_a_rooms_keys_fails_the_start(fresh_redis: Engine) -> None:
    async with Redis.from_url(fresh_redis.url) as redis:
        await redis.acl_setuser(
            "kim", enabled=True, passwords=["+pw"], categories=["+@all"], keys=["chatlab:*", "presence:*", "room*"]
        )
    url = fresh_redis.url.replace("redis://", "redis://kim:pw@")
    status, output, errors = await run("serve", "chat", "--port", "0", "--redis", url)
    patterns = "~chat-stream* ~{chat-stream}* ~chat:* ~topic:* ~queue:* ~chat-users:*"
    assert f"`ACL SETUSER kim {patterns}` allows it" in errors
    assert is_one_line(errors)
    assert (status, output) == (3, "")


async def test_the_start_logs_in_one_line_whether_a_broker_crash_loses_messages(fresh_redis: Engine) -> None:
    for setting, expected in (
        ("no", "WARNING .*a crash of the broker loses every message"),
        ("yes", "confirmed messages survive a crash"),
    ):
        async with Redis.from_url(fresh_redis.url) as redis:
            await redis.config_set("appendonly", setting)
        for server in ("chat", "room"):
            async with chatlab("serve", server, "--port", "0", "--redis", fresh_redis.url) as command:
                await command.url()
                command.process.send_signal(signal.SIGTERM)
                _, _, errors = await command.ended()
            assert len(re.findall(expected, errors)) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["chat", "--redis", "redis://127.0.0.1", "--broker", "memory://"],
            "--redis and --broker mean the same",
        ),
        (["chat", "--broker", "memory://", "--durability", "fsync"], "--durability fsync is only for redis://"),
        (["chat", "--broker", "memory://", "--as-in-the-article", "first"], "--as-in-the-article needs Redis"),
        (["chat", "--redis", "", "--port", "0"], "'' is not a URL"),
        (["room", "--broker", "", "--port", "0"], "'' is not a URL"),
        (["room", "--as-in-the-article", "--lan"], "--as-in-the-article has no code, no limits, no broker"),
    ],
)
def test_conflicting_options_are_reported_in_one_line(
    arguments: list[str], expected: str, run_in_process: RunInProcess
) -> None:
    status, _, errors = run_in_process("serve", *arguments)
    assert expected in errors
    assert is_one_line(errors)
    assert status == 2


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("--nonsense", "--nonsense"),
        ("nonsense", "nonsense"),
        ("serve --log loud echo", "'loud'"),
        ("serve nonsense", "nonsense"),
        ("serve echo --nonsense", "--nonsense"),
        ("serve echo more", "more"),
        ("serve echo --port", "--port"),
        ("serve echo --port 99999", "99999"),
        ("serve echo --port -1", "-1"),
        ("serve echo --port web", "'web'"),
        ("serve echo --host ", "'' is not an address"),
        (f"serve room --host {'a' * 64}.example", f"'{'a' * 64}.example' is not an address"),
        ("serve echo --origin chat.example", "'chat.example' is not an origin"),
        ("serve room --origin https://chat.example/room", "'https://chat.example/room' is not an origin"),
        ("serve room --origin https://*.example", "'https://*.example' is not an origin"),
        ("serve chat --origin https://", "'https://' is not an origin"),
        ("serve chat --origin https://a.example:99999", "'https://a.example:99999' is not an origin"),
        ("serve chat --origin https://a.example,https://b.example", "is not an origin"),
        ("serve chat --origin ", "'' is not an origin"),
        ("serve chat --host-name https://chat.example", "'https://chat.example' is not a host name"),
        ("serve room --host-name chat.example:8080", "'chat.example:8080' is not a host name"),
        ("serve echo --host-name ", "'' is not a host name"),
        ("serve chat --admin-port 99999", "99999"),
        ("serve chat --admin-host ", "'' is not an address"),
        ("serve chat --admin-key hunter2", "the admin key has 7 characters; it needs at least 16"),
        ("serve room --hours 0", "'0'"),
        ("serve room --hours nan", "nan"),
        ("serve room --rate 0", "'0'"),
        ("serve room --rate nan", "nan"),
        ("serve room --rate inf", "inf"),
        ("serve chat --rate -5", "-5"),
        ("serve chat --rate 1e999", "inf"),
        ("serve chat --drain-seconds -1", "-1"),
        ("serve chat --drain-seconds inf", "inf"),
        ("serve chat --takeover-seconds 0", "'0'"),
        ("serve chat --takeover-seconds inf", "inf"),
        ("serve chat --max-length 0", "'0'"),
        ("serve chat --max-frame 10", "'10'"),
        ("serve chat --max-frame 1e6", "'1e6'"),
        ("serve chat --heart-beat 10", "'10'"),
        ("serve chat --heart-beat -1,0", "'-1,0'"),
        ("serve chat --heart-beat 10,000,10", "'10,000,10'"),
        ("serve chat --durability disk", "'disk'"),
        ("serve chat --as-in-the-article third", "'third'"),
        ("doctor --laptops 0", "'0'"),
        ("doctor more", "more"),
        ("edition", "learner, instructor"),
        ("edition parrot", "'parrot'"),
        ("claims 1", "'1'"),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line_with_its_value(
    command: str, expected: str, run_in_process: RunInProcess
) -> None:
    status, output, errors = run_in_process(*command.split(" "))
    assert expected in errors
    assert is_one_line(errors)
    assert (status, output) == (2, "")


@pytest.mark.parametrize("command", ["", "serve"])
def test_the_help_is_printed_without_a_command(command: str, run_in_process: RunInProcess) -> None:
    status, output, _ = run_in_process(*command.split())
    assert "Usage: " in output
    assert status == 2


@pytest.mark.parametrize(
    ("given", "normalized"),
    [
        ("https://chat.example", "https://chat.example"),
        ("https://chat.example/", "https://chat.example"),
        ("HTTPS://Chat.Example:443", "https://chat.example"),
        ("http://chat.example:8080", "http://chat.example:8080"),
        ("http://[::1]:8888", "http://[::1]:8888"),
        ("https://채팅.example", "https://xn--ou6bo7j.example"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("*", "*"),
        ("null", "null"),
    ],
)
def test_an_origin_is_normalized_to_the_form_that_browsers_send(given: str, normalized: str) -> None:
    assert cli._origin(given) == normalized


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("claims", "no folder for your own work at {file}"),
        ("progress", "no folder for your own work at {file}"),
        pytest.param(
            "edition learner --to {folder}/e", "no folder for your own work at {file}", marks=pytest.mark.long
        ),
        pytest.param("reset", "no folder for your own work at {file}", marks=LONG),
        ("lab --version", "no folder for your own work at {file}"),
    ],
)
async def test_an_unusable_home_folder_is_reported_in_one_line(command: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    environment = {"CHATLAB_HOME": str(file), "GIT_DIR": "/nonexistent"}
    status, _, errors = await run(*command.format(folder=tmp_path).split(), environment=environment)
    last = errors.splitlines()[-1]
    assert last.startswith(f"chatlab: {expected.format(file=file)}: File exists; set CHATLAB_HOME to a folder")
    assert "Traceback" not in errors
    assert status == 3


@pytest.mark.long
async def test_an_unwritable_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {"CHATLAB_HOME": str(tmp_path / "home")}
    status, _, errors = await run(
        "edition", "learner", "--to", str(tmp_path / "file" / "below"), environment=environment
    )
    assert errors == f"chatlab: cannot use {tmp_path / 'file' / 'below'}: Not a directory\n"
    assert status == 3


@pytest.mark.parametrize(
    "named",
    [
        {"REDIS_URL": "nonsense"},
        {"REDIS_URL": "redis://127.0.0.1:x"},
        {"AMQP_URL": "amqp://127.0.0.1:x"},
        {"KAFKA_URL": "kafka://127.0.0.1:x"},
        {"KAFKA_URL": "kafka://[::1"},
    ],
    ids=str,
)
async def test_doctor_names_an_environment_variable_with_an_invalid_url(named: dict[str, str]) -> None:
    status, output, errors = await run("doctor", "--json", environment=named)
    (variable,) = named
    (check,) = [each for each in json.loads(output) if variable in each["found"]]
    assert not check["well"]
    assert check["remedy"]
    assert errors == ""
    assert status == (3 if variable == "REDIS_URL" else 0)


def test_a_closed_output_pipe_causes_no_traceback() -> None:
    for command in ("claims", "serve chat --broker memory:// --port 0"):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [*CHATLAB, *command.split()], stdout=write, stderr=subprocess.PIPE, timeout=30, check=False
        )
        os.close(write)
        assert b"Traceback" not in done.stderr and b"pipe" not in done.stderr.lower()
        assert done.returncode == 1


# Consoles with other encodings.

CONSOLES = {
    "cp949": {"PYTHONIOENCODING": "cp949"},
    "cp1252": {"PYTHONIOENCODING": "cp1252:strict"},
    "ascii": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture(params=CONSOLES)
def on_a_console(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, str]]:
    """Return an encoding, and the environment of a learner with that encoding, a verdict and a solved exercise."""
    for name, content in {
        "claims/C2.json": {"claim": "C2", "outcome": "holds", "because": "민지", "measured": "0.3 µs", "at": 0.0},
        "progress/03.2.json": {"mark": "right"},
    }.items():
        (tmp_path / "홈" / name).parent.mkdir(parents=True)
        (tmp_path / "홈" / name).write_text(json.dumps(content), encoding="utf-8")
    return request.param, {**CONSOLES[request.param], "PYTHONUTF8": "0", "CHATLAB_HOME": str(tmp_path / "홈")}


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("--help", 0),
        ("doctor", None),
        ("claims 레슨", 2),
        ("edition 민지", 2),
        ("serve room --host 민지.invalid", None),
        ("serve chat --broker 민지", 2),
        ("serve chat --broker memory:// --audit-log /없는/민지.jsonl", 3),
    ],
)
def test_every_command_prints_on_every_console(
    command: str, status: int | None, on_a_console: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    encoding, environment = on_a_console
    done = subprocess.run(
        [*CHATLAB, *command.split()],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=40,
        check=False,
    )
    output, errors = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert "Traceback" not in errors
    assert "UnicodeEncodeError" not in errors
    assert output or errors
    if status is not None:
        assert done.returncode == status, errors


def test_the_marks_of_claims_and_progress_can_be_distinguished_on_every_console(
    on_a_console: tuple[str, dict[str, str]],
) -> None:
    encoding, environment = on_a_console
    lines = {
        command: subprocess.run(
            [*CHATLAB, command], env={**os.environ, **environment}, capture_output=True, check=True
        ).stdout.decode(encoding)
        for command in ("claims", "progress")
    }
    solved, unsolved = ("√", "○") if encoding == "cp949" else ("+", "o")
    because = {"cp949": "민지"}.get(encoding, r"\ubbfc\uc9c0")
    assert f"{solved} C2 holds, when {because}: over WebSocket" in lines["claims"]
    assert f"lesson 03  {unsolved} {solved} {unsolved} {unsolved}  1 of 4" in lines["progress"]


@pytest.mark.parametrize("encoding", ["cp949", "cp1252", "ascii", "cp437"])
async def test_a_lan_room_starts_on_every_console(encoding: str) -> None:
    environment = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    async with chatlab("serve", "room", "--lan", "--port", "0", environment=environment) as command:
        command.encoding = encoding
        await command.url()
        command.process.send_signal(signal.SIGTERM)
        assert (await command.ended())[0] == 0
    assert any("room code" in line for line in command.lines)
    if encoding == "cp437":
        assert any("█" in line for line in command.lines)
    else:
        assert f"(no QR code: {encoding}, " in command.lines[0]


@pytest.mark.parametrize(
    "encoding", ["cp949", *(pytest.param(name, marks=pytest.mark.long) for name in ("cp1252", "ascii"))]
)
async def test_names_can_be_logged_on_every_console(encoding: str) -> None:
    environment = {"PYTHONIOENCODING": f"{encoding}:strict", "PYTHONUTF8": "0"}
    async with chatlab("serve", "room", "--port", "0", environment=environment) as command:
        command.encoding = encoding
        async with connect(f"{await command.url()}?name=민지🙂", proxy=None) as client:
            await client.recv()
        command.process.send_signal(signal.SIGTERM)
        status, _, errors = await command.ended()
    assert ("민지" if encoding == "cp949" else r"\ubbfc\uc9c0") + r"\U0001f642 at 127.0.0.1" in errors
    assert "Logging error" not in errors
    assert status == 0


# The broker that a URL selects.


def test_a_memory_url_selects_the_memory_broker() -> None:
    assert isinstance(broker_of("memory://"), MemoryBroker)


async def test_redis_urls_select_redis_streams() -> None:
    for url in ("redis://127.0.0.1:6379", "rediss://example.org", "unix:///run/redis.sock"):
        broker = broker_of(url)
        assert isinstance(broker, RedisStreamsBroker)
        await broker.aclose()


async def test_the_chat_logs_that_it_has_no_broker() -> None:
    async with chatlab("serve", "chat", "--port", "0") as command:
        assert (await command.url()).endswith("/ws")
        command.process.send_signal(signal.SIGTERM)
        status, _, errors = await command.ended()
    assert "no broker given: this instance is on its own" in errors
    assert status == 0


async def test_redis_url_from_the_environment_is_used_without_a_broker_option() -> None:
    status, _, errors = await run("serve", "chat", environment={"REDIS_URL": "redis://127.0.0.1:99999"})
    assert "Port out of range" in errors
    assert status == 2


# Commands of the workbook.


def test_help_imports_none_of_the_libraries() -> None:
    code = """if True:
        import sys
        from chatlab.cli import main
        sys.argv = ["chatlab", "--help"]
        try:
            main()
        except SystemExit:
            print({"aiohttp", "websockets", "redis", "msgspec", "ipykernel"} & sys.modules.keys())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


async def test_claims_prints_measured_and_untried_claims(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    verdict = {"claim": "C2", "outcome": "holds", "because": "", "measured": "0.3 ms after the upgrade", "at": 0.0}
    (tmp_path / "claims" / "C2.json").write_text(json.dumps(verdict), encoding="utf-8")
    status, output, _ = await run("claims", "01", environment={"CHATLAB_HOME": str(tmp_path)})
    lines = output.splitlines()
    index = lines.index("✔ C2 holds: over WebSocket the server can speak first, at any time")
    assert lines[index + 1] == "      measured: 0.3 ms after the upgrade"
    assert "  C1 not tried here yet: over HTTP the server speaks only when asked" in lines
    assert status == 0


async def test_claims_prints_every_claim_before_any_was_tried(tmp_path: Path) -> None:
    _, output, _ = await run("claims", environment={"CHATLAB_HOME": str(tmp_path)})
    assert [line.split()[0] for line in output.splitlines()] == list(CLAIMS)
    assert output.count("not tried here yet") == len(CLAIMS)


async def test_claims_with_an_unknown_lesson_lists_the_lessons() -> None:
    status, _, errors = await run("claims", "99")
    assert errors == "chatlab: no lesson '99' makes a claim; there are 01, 02, 03, 04, 05, 06, 07\n"
    assert status == 2


async def test_progress_prints_the_solved_exercises_by_lesson(tmp_path: Path) -> None:
    (tmp_path / "progress").mkdir()
    (tmp_path / "progress" / "03.2.json").write_text('{"mark": "right"}', encoding="utf-8")
    status, output, _ = await run("progress", environment={"CHATLAB_HOME": str(tmp_path)})
    *lessons, last = output.splitlines()
    assert "lesson 03  ○ ✔ ○ ○  1 of 4" in lessons
    assert last.startswith("1 of ")
    assert last.endswith(f"are right; stored in {tmp_path}, on this machine only")
    assert status == 0


def test_reset_restores_the_notebooks_and_names_the_folder_of_the_old_ones(tmp_path: Path) -> None:
    first = tmp_path / "notebooks" / "00_start_here.ipynb"
    shipped = tmp_path / "home" / "shipped" / "00_start_here.ipynb"
    for file, text in ((first, "my answers"), (shipped, "as shipped")):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    done = subprocess.run(
        [*CHATLAB, "reset", "00"],
        cwd=tmp_path,
        env={**os.environ, "CHATLAB_HOME": str(tmp_path / "home"), "GIT_CEILING_DIRECTORIES": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    restored, copies, _ = done.stdout.splitlines()
    assert restored == "restored 00_start_here.ipynb"
    assert first.read_text() == "as shipped"
    assert (Path(copies.removeprefix("your own copies are in ")) / first.name).read_text() == "my answers"


async def test_doctor_json_prints_every_check() -> None:
    status, output, _ = await run("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(output)}
    assert checks["Python"]["well"]
    assert status == (0 if all(check["well"] for check in checks.values() if check["needed"]) else 3)


@pytest.mark.long
@pytest.mark.timeout(150)
def test_doctor_workshop_starts_what_a_class_will_start(tmp_path: Path) -> None:
    command = [*CHATLAB, "doctor", "--workshop", "--laptops", "5", "--json"]
    environment = {**os.environ, "CHATLAB_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=140, check=False)
    status, output, errors = done.returncode, done.stdout, done.stderr
    checks = {check["name"]: check for check in json.loads(output)}
    for name in ("an engine starts", "JupyterLab starts", "JupyterLab comes from this machine"):
        assert checks[name]["well"], checks[name]
    assert checks["the first cells say ready"]["found"] == "ready"
    assert checks["time until the first cells have run"]["found"].endswith(" s")
    assert {"Python", "memory for the lessons", "notebooks as shipped", "wheelhouse", "a room for 5"} <= set(checks)
    assert all(check["well"] or check["remedy"] for check in checks.values())
    assert status == (0 if all(check["well"] for check in checks.values() if check["needed"]) else 3)
    assert "Traceback" not in errors


@pytest.mark.long
def test_edition_writes_the_notebooks_and_keeps_files_that_differ(tmp_path: Path) -> None:
    folder = tmp_path / "handed out"
    folder.mkdir()
    (folder / "00_start_here.ipynb").write_text("with remarks")
    command = [*CHATLAB, "edition", "learner", "--to", str(folder)]
    environment = {**os.environ, "CHATLAB_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    written, kept = done.stdout.splitlines()
    assert written.endswith(f" files of the learner's edition are in {folder}")
    aside = Path(kept.removeprefix("files there that differed are now in "))
    assert (aside / "handed out" / "00_start_here.ipynb").read_text() == "with remarks"
    assert '"outputs": []' in (folder / "00_start_here.ipynb").read_text()


async def test_an_unknown_edition_is_refused_with_the_known_ones() -> None:
    status, _, errors = await run("edition", "parrot")
    assert "'parrot' is not one of 'learner'" in errors
    assert status == 2


@pytest.mark.long
def test_lab_serves_the_workbook_with_the_options_given(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "notebooks" / "00_start_here.ipynb")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [*CHATLAB, "lab", "--no-browser", "--port", str(port)]
    environment = {**os.environ, "CHATLAB_HOME": str(tmp_path / "home")}
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            assert any(
                f"127.0.0.1:{port}/lab/tree/notebooks/00_start_here.ipynb?token=" in line for line in process.stderr
            )
        finally:
            process.terminate()
            process.communicate(timeout=20)
    assert process.returncode == 0


def test_jupyterlab_gets_a_path_with_the_scripts_of_this_environment(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "notebooks" / "00_start_here.ipynb")
    fake = tmp_path / "site" / "jupyterlab"
    fake.mkdir(parents=True)
    (fake / "__init__.py").touch()
    (fake / "__main__.py").write_text("import os; print(os.environ['PATH'])")
    environment = {**os.environ, "CHATLAB_HOME": str(tmp_path / "home"), "PYTHONPATH": str(fake.parent)}
    done = subprocess.run(
        [*CHATLAB, "lab"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.strip() == os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])


def test_lab_outside_the_clone_says_where_to_run_it(tmp_path: Path) -> None:
    package = tmp_path / "site" / "chatlab"
    shutil.copytree(ROOT / "chatlab", package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run([*CHATLAB, "lab"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ("chatlab: no notebooks/00_start_here.ipynb here; run it in the folder you cloned\n")
    assert done.returncode == 3


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop for Windows")
def test_the_chat_uses_uvloop_if_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    new_loop = cli._fast_loop()
    assert new_loop is not None
    loop = new_loop()
    assert type(loop).__module__ == "uvloop"
    loop.close()
    monkeypatch.setitem(sys.modules, "uvloop", None)  # as if uvloop were not installed
    assert cli._fast_loop() is None
