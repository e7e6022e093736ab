"""The command line as its users meet it: each test runs the real program, and reads what it prints."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chatlab import cli
from chatlab.brokers.memory import MemoryBroker
from chatlab.brokers.redis_streams import RedisStreamsBroker
from chatlab.classroom import lan_address
from chatlab.cli import broker_of
from chatlab.lab.claims import CLAIMS
from chatlab.stomp.client import StompClient
from tests.support.commands import CHATLAB, chatlab, run

ROOT = Path(__file__).parents[1]
SERVERS = {
    "echo": ["serve", "echo"],
    "echo by hand": ["serve", "echo", "--by-hand"],
    "room": ["serve", "room"],
    "room as in the article": ["serve", "room", "--as-in-the-article"],
    "chat": ["serve", "chat", "--broker", "memory://"],
}


def one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.startswith("chatlab: ")


def threads_of(process: int) -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))


# Starting and ending.


@pytest.mark.parametrize(
    ("server", "number"), [*[(server, signal.SIGTERM) for server in SERVERS], ("echo", signal.SIGINT)]
)
async def test_a_server_says_where_it_listens_and_ends_politely(server: str, number: signal.Signals) -> None:
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


async def test_a_second_signal_ends_it_at_once() -> None:
    async with chatlab("serve", "chat", "--broker", "memory://", "--port", "0", "--drain-seconds", "60") as command:
        url = await command.url()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        command.process.send_signal(signal.SIGTERM)
        await reader.read(1)  # its close frame, which this client leaves without an answer
        command.process.send_signal(signal.SIGTERM)
        status, _, _ = await command.ended()
        writer.close()
    assert status == -signal.SIGTERM


async def test_a_server_asked_to_can_end_with_its_standard_input() -> None:
    async with chatlab("serve", "echo", "--port", "0", "--until-stdin-ends") as command:
        await command.url()
        assert command.process.stdin is not None
        command.process.stdin.close()
        status, _, errors = await command.ended()
    assert (status, errors) == (0, "")


async def test_a_server_that_still_waits_for_its_broker_can_be_stopped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        async with chatlab("serve", "chat", "--redis", url, "--port", "0") as command:
            accepted, _ = await asyncio.get_running_loop().run_in_executor(None, silent.accept)
            with accepted:  # closed too early, it would be a broker that hangs up
                command.process.send_signal(signal.SIGTERM)
                status, output, errors = await command.ended()
    assert (status, output, errors) == (0, "", "")


# What each server offers.


async def test_the_echo_echoes() -> None:
    async with chatlab("serve", "echo", "--port", "0") as command, connect(await command.url(), proxy=None) as client:
        await client.send("안녕 🙂")
        assert await client.recv() == "안녕 🙂"


async def test_the_room_is_at_room_and_has_a_page() -> None:
    async with chatlab("serve", "room", "--port", "0") as command:
        url = await command.url()
        assert url.endswith("/room")
        assert command.lines[0] == f"the room's page: {url.replace('ws:', 'http:').removesuffix('room')}"


async def test_origins_are_let_in_by_name() -> None:
    async with chatlab("serve", "room", "--port", "0", "--origin", "https://chat.example") as command:
        url = await command.url()
        async with connect(url, origin="https://chat.example", proxy=None):  # type: ignore[arg-type]  # wants its NewType
            pass
        with pytest.raises(InvalidStatus, match="403"):
            await connect(url, origin="https://evil.example", proxy=None)  # type: ignore[arg-type]  # the same


async def test_the_rooms_rate_is_limited_when_asked_for() -> None:
    arguments = ["serve", "room", "--port", "0", "--rate", "0.1"]
    async with chatlab(*arguments) as command, connect(await command.url(), proxy=None) as client:
        for _ in range(20):
            await client.send("flood")
        async with asyncio.timeout(10):
            while not str(await client.recv()).startswith("! not sent: more than 0.1 messages a second"):
                pass


async def test_the_chats_rate_is_limited_when_asked_for() -> None:
    arguments = ["serve", "chat", "--broker", "memory://", "--port", "0", "--rate", "0.1"]
    async with chatlab(*arguments) as command, StompClient(await command.url(), proxy=None) as client:
        errors = await client.subscribe("/user/queue/errors")
        for number in range(21):
            await client.send("/app/chat.sendMessage", f'{{"content":"{number}"}}', receipt=False)
        async with asyncio.timeout(10):
            refusal = json.loads((await anext(errors)).body)
        assert refusal["error"] == "not sent: too many messages a second"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_the_chat_is_at_every_address_of_its_host(host: str) -> None:
    async with (
        chatlab("serve", "chat", "--broker", "memory://", "--port", "0", "--host", host) as command,
        StompClient(await command.url(), proxy=None) as client,
    ):
        assert client.connected.command == "CONNECTED"


@pytest.mark.parametrize(("host", "here"), [("0.0.0.0", "127.0.0.1"), ("0", "127.0.0.1"), ("::", "[::1]")])
@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_on_all_addresses_prints_urls_that_can_be_opened(server: str, host: str, here: str) -> None:
    async with chatlab(*SERVERS[server], "--port", "0", "--host", host) as command:
        listening = await command.url()
        found = [re.fullmatch(r"(.*?)(?::| on) (\w+://\S+)", line) for line in command.lines]
        urls = [(match[1], match[2]) for match in found if match]
        for what, url in urls:
            address, port = url.split("/")[2].rsplit(":", 1)
            assert address == here if what != "on this network" else address not in ("0.0.0.0", "[::]", here)
            _, writer = await asyncio.open_connection(address.strip("[]"), int(port))
            writer.close()
    assert listening.startswith(f"ws://{here}:")
    network = lan_address({"0": "0.0.0.0"}.get(host, host))
    assert (here.strip("[]") == network) != any(what == "on this network" and network in url for what, url in urls)


async def test_a_room_for_the_lan_on_one_address_names_that_one() -> None:
    async with chatlab("serve", "room", "--lan", "--port", "0", "--host", "localhost") as command:
        await command.url()
        (address,) = [line.split()[-1] for line in command.lines if "address  " in line]
        assert address.startswith(("http://127.0.0.1:", "http://[::1]:"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc, which is Linux's")
async def test_the_chat_gets_by_with_one_thread() -> None:
    # With a second one, even asleep, the kernel counts references for each write, and a message costs a fiftieth more.
    async with (
        chatlab("serve", "chat", "--broker", "memory://", "--port", "0") as command,
        StompClient(await command.url(), proxy=None) as client,
    ):
        await client.send("/app/chat.sendMessage", '{"content":"hello"}')
        assert threads_of(command.process.pid) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--broker", "memory://", "--audit-log", "/nowhere/audit.jsonl"], "no audit log at /nowhere/audit.jsonl"),
        (["--broker", "memory://", "--job-room", "cats"], "--job-room names a room for"),
        (["--broker", "memory://", "--notify-mentions", "--job-room", "a b"], "not a room's name: 'a b'"),
        (["--redis", "redis://x", "--as-in-the-article", "first", "--rate", "1"], "has no limits and no jobs"),
    ],
)
async def test_jobs_that_cannot_be_done_are_refused_at_the_start(arguments: list[str], words: str) -> None:
    status, _, errors = await run("serve", "chat", "--port", "0", *arguments)
    assert status in (2, 3)
    assert words in errors


async def test_a_room_for_the_lan_shows_a_code_and_wants_it() -> None:
    async with chatlab("serve", "room", "--lan", "--port", "0") as command:
        url = await command.url()
        (code,) = [line.split()[-1] for line in command.lines if "room code" in line]
        assert any("█" in line for line in command.lines), "no QR code"
        async with connect(f"{url}?name=Ana&code={code}", proxy=None) as client:
            assert await client.recv() == "* Ana joined (1 here)"
        with pytest.raises(InvalidStatus):
            await connect(f"{url}?name=Eve&code=WRONG2", proxy=None)


async def test_the_log_can_be_read_by_programs() -> None:
    async with chatlab("serve", "--json-logs", "room", "--port", "0") as command:
        async with connect(f"{await command.url()}?name=Ana", proxy=None) as client:
            await client.recv()
        command.process.send_signal(signal.SIGTERM)
        _, _, errors = await command.ended()
    events = [json.loads(line) for line in errors.splitlines()]
    assert {event["logger"] for event in events} == {"chatlab.room"}
    assert any(event["event"].startswith("Ana at 127.0.0.1") for event in events)


# What goes wrong.


async def test_a_taken_port_is_named_with_what_to_do() -> None:
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
async def test_an_address_that_is_not_ours_is_named_with_what_to_do(server: str) -> None:
    # RFC 5737: 203.0.113.0/24 is nobody's; RFC 6761: .invalid never resolves
    for host in ("203.0.113.9", "no-such-host.invalid"):
        status, _, errors = await run("serve", *SERVERS[server][1:], "--host", host)
        assert errors.startswith(f"chatlab: this machine has no address {host}; choose with --host")
        assert one_line(errors)
        assert status == 3


async def test_a_redis_that_does_not_answer_is_named_without_its_password() -> None:
    with socket.socket() as closed:  # bound but not listening: nobody answers, and nobody else takes the port
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        status, output, errors = await run("serve", "chat", "--redis", f"redis://me:secret@127.0.0.1:{port}/0")
    assert errors.startswith(f"chatlab: the broker at redis://me:***@127.0.0.1:{port}/0 does not answer")
    assert errors.endswith("; start that server, or name another with --broker URL\n")
    assert "secret" not in errors
    assert one_line(errors)
    assert (status, output) == (3, "")


@pytest.mark.parametrize("url", ["nats://me:secret@127.0.0.1", "kafka", "redis://127.0.0.1:99999", "http://127.0.0.1"])
async def test_a_wrong_broker_url_gets_one_line_that_lists_the_right_ones(url: str) -> None:
    status, _, errors = await run("serve", "chat", "--broker", url)
    for scheme in ("memory://", "redis://", "redis-pubsub://", "amqp://", "kafka://"):
        assert scheme in errors
    assert "secret" not in errors
    assert one_line(errors)
    assert status == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["chat", "--redis", "redis://127.0.0.1", "--broker", "memory://"],
            "--redis and --broker are two ways to say one thing",
        ),
        (["chat", "--broker", "memory://", "--durability", "fsync"], "--durability fsync is for redis:// alone"),
        (["chat", "--broker", "memory://", "--as-in-the-article", "first"], "--as-in-the-article wants a Redis"),
        (["room", "--as-in-the-article", "--lan"], "--as-in-the-article has no code, no limits, no broker"),
    ],
)
async def test_what_does_not_go_together_is_said_in_one_line(arguments: list[str], said: str) -> None:
    status, _, errors = await run("serve", *arguments)
    assert said in errors
    assert one_line(errors)
    assert status == 2


async def test_an_unknown_option_is_a_wrong_command_line() -> None:
    status, _, errors = await run("serve", "echo", "--nonsense")
    assert "--nonsense" in errors
    assert status == 2


# Which broker a URL means.


def test_each_url_means_its_broker() -> None:
    assert isinstance(broker_of("memory://"), MemoryBroker)


async def test_redis_means_streams() -> None:
    for url in ("redis://127.0.0.1:6379", "rediss://example.org", "unix:///run/redis.sock"):
        broker = broker_of(url)
        assert isinstance(broker, RedisStreamsBroker)
        await broker.aclose()


async def test_without_a_broker_the_chat_says_that_it_is_alone() -> None:
    async with chatlab("serve", "chat", "--port", "0") as command:
        assert (await command.url()).endswith("/ws")
        command.process.send_signal(signal.SIGTERM)
        status, _, errors = await command.ended()
    assert "no broker named: this instance chats alone" in errors
    assert status == 0


async def test_the_environment_names_redis_where_the_command_line_does_not() -> None:
    status, _, errors = await run("serve", "chat", environment={"REDIS_URL": "redis://127.0.0.1:99999"})
    assert "Port out of range" in errors
    assert status == 2


# The workbook's commands.


def test_help_needs_none_of_the_libraries() -> None:
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


async def test_claims_prints_what_was_measured_and_what_was_not_tried(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    found = {"claim": "C2", "outcome": "holds", "because": "", "measured": "0.3 ms after the upgrade", "at": 0.0}
    (tmp_path / "claims" / "C2.json").write_text(json.dumps(found), encoding="utf-8")
    status, output, _ = await run("claims", "01", environment={"CHATLAB_HOME": str(tmp_path)})
    lines = output.splitlines()
    at = lines.index("✔ C2 holds: over WebSocket the server can speak first, at any time")
    assert lines[at + 1] == "      measured: 0.3 ms after the upgrade"
    assert "  C1 not tried here yet: over HTTP the server speaks only when asked" in lines
    assert status == 0


async def test_claims_prints_the_whole_ledger_of_who_has_tried_nothing_yet(tmp_path: Path) -> None:
    _, output, _ = await run("claims", environment={"CHATLAB_HOME": str(tmp_path)})
    assert [line.split()[0] for line in output.splitlines()] == list(CLAIMS)
    assert output.count("not tried here yet") == len(CLAIMS)


async def test_claims_of_an_unknown_lesson_lists_the_lessons() -> None:
    status, _, errors = await run("claims", "99")
    assert errors == "chatlab: no lesson '99' makes a claim; there are 01, 02, 03, 04, 05, 06, 07\n"
    assert status == 2


async def test_progress_prints_what_is_solved_by_lesson(tmp_path: Path) -> None:
    (tmp_path / "progress").mkdir()
    (tmp_path / "progress" / "03.2.json").write_text('{"mark": "right"}', encoding="utf-8")
    status, output, _ = await run("progress", environment={"CHATLAB_HOME": str(tmp_path)})
    *lessons, last = output.splitlines()
    assert "lesson 03  ○ ✔ ○ ○  1 of 4" in lessons
    assert last.startswith("1 of ")
    assert last.endswith(f"are right; kept in {tmp_path}, on this machine alone")
    assert status == 0


def test_reset_restores_the_notebooks_and_says_where_the_learners_copies_are(tmp_path: Path) -> None:
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


async def test_doctor_answers_programs_too() -> None:
    status, output, _ = await run("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(output)}
    assert checks["Python"]["well"]
    assert status == (0 if all(check["well"] for check in checks.values() if check["needed"]) else 3)


@pytest.mark.timeout(150)
def test_the_check_for_a_workshop_starts_what_a_class_will_start(tmp_path: Path) -> None:
    command = [*CHATLAB, "doctor", "--workshop", "--laptops", "5", "--json"]
    environment = {**os.environ, "CHATLAB_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=140, check=False)
    status, output, errors = done.returncode, done.stdout, done.stderr
    checks = {check["name"]: check for check in json.loads(output)}
    for name in ("an engine starts", "JupyterLab starts", "JupyterLab comes from this machine"):
        assert checks[name]["well"], checks[name]
    assert checks["the first cell says ready"]["found"] == "ready"
    assert checks["time until the first cell"]["found"].endswith(" s")
    assert {"Python", "memory for the lessons", "notebooks as shipped", "wheelhouse", "a room for 5"} <= set(checks)
    assert all(check["well"] or check["remedy"] for check in checks.values())
    assert status == (0 if all(check["well"] for check in checks.values() if check["needed"]) else 3)
    assert "Traceback" not in errors


def test_edition_writes_the_notebooks_and_keeps_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "handed out"
    folder.mkdir()
    (folder / "00_start_here.ipynb").write_text("with remarks")
    command = [*CHATLAB, "edition", "learner", "--to", str(folder)]
    environment = {**os.environ, "CHATLAB_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    written, kept = done.stdout.splitlines()
    assert written == f"8 files of the learner's edition are in {folder}"
    aside = Path(kept.removeprefix("what was there and differed is in "))
    assert (aside / "handed out" / "00_start_here.ipynb").read_text() == "with remarks"
    assert (folder / "00_start_here.ipynb").read_bytes() == (ROOT / "notebooks" / "00_start_here.ipynb").read_bytes()


async def test_an_edition_for_nobody_is_refused_with_those_there_are() -> None:
    status, _, errors = await run("edition", "parrot")
    assert "'parrot' is not one of 'learner'" in errors
    assert status == 2


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
            assert any(f"127.0.0.1:{port}/lab/tree/00_start_here.ipynb?token=" in line for line in process.stderr)
        finally:
            process.terminate()
            process.communicate(timeout=20)
    assert process.returncode == 0


def test_what_jupyterlab_starts_finds_the_chatlab_it_belongs_to(tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "notebooks" / "00_start_here.ipynb")
    stand_in = tmp_path / "site" / "jupyterlab"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    (stand_in / "__main__.py").write_text("import os; print(os.environ['PATH'])")
    environment = {**os.environ, "CHATLAB_HOME": str(tmp_path / "home"), "PYTHONPATH": str(stand_in.parent)}
    done = subprocess.run(
        [*CHATLAB, "lab"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.strip() == os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])


def test_lab_away_from_the_notebooks_says_where_to_go(tmp_path: Path) -> None:
    package = tmp_path / "site" / "chatlab"
    shutil.copytree(ROOT / "chatlab", package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run([*CHATLAB, "lab"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == (
        "chatlab: no notebooks/00_start_here.ipynb here; go to the folder you cloned, and call it there\n"
    )
    assert done.returncode == 3


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop for Windows")
def test_the_chat_turns_on_uvloop_and_without_it_on_pythons_own_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    new_loop = cli._fast_loop()
    assert new_loop is not None
    loop = new_loop()
    assert type(loop).__module__ == "uvloop"
    loop.close()
    monkeypatch.setitem(sys.modules, "uvloop", None)  # as if it were not installed
    assert cli._fast_loop() is None
