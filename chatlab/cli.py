"""`chatlab lab | serve | doctor | claims | progress | ...`: the top floor, the only file that names broker engines.

Each command imports what it needs when it runs, so that `chatlab --help` answers at once and `chatlab serve echo` needs
no broker's library. What goes wrong for a reason the user can mend ends with one line that says what to do, and with
exit status 2 (the command line is wrong) or 3 (this machine lacks something, or has it taken).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn, Protocol, Unpack
from urllib.parse import urlsplit, urlunsplit

import typer
from typer.exceptions import TyperException

from chatlab import console
from chatlab.errors import BrokerError, ChatlabError, SetupError, StompError
from chatlab.urls import without_password

if TYPE_CHECKING:
    from chatlab.brokers.port import Broker

app = typer.Typer(
    help="A workbook on real-time chat, from the WebSocket handshake to STOMP on Redis Streams, and the servers in it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
serve = typer.Typer(no_args_is_help=True)
app.add_typer(serve, name="serve")

WRONG_COMMAND_LINE = 2
SET_UP = 3
SECONDS_TO_LEAVE = 10.0
DAY = 86_400.0


def main() -> None:
    """Run the command line; an error the user can fix becomes a line and an exit status."""
    console.keep_writing()
    try:
        status = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except TyperException as error:
        _fail(_what_is_wrong(error), WRONG_COMMAND_LINE)
    except ChatlabError as error:
        _fail(str(error), SET_UP)
    except BrokenPipeError:
        _leave_the_pipe()
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"cannot use {error.filename}: {error.strerror}", SET_UP)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "chatlab":
            raise
        from chatlab.lab.doctor import bring_the_lab

        _fail(f"{error.name} is not installed; {bring_the_lab()}", SET_UP)
    raise SystemExit(status)


def _fail(line: str, status: int) -> NoReturn:
    if line:
        print(f"chatlab: {' '.join(line.splitlines())}", file=sys.stderr)
    raise SystemExit(status)


def _what_is_wrong(error: TyperException) -> str:
    """What is wrong with the command line, in one line that has the value and says where the right ones are."""
    context = getattr(error, "ctx", None)
    if context is None or type(error).__name__ == "NoArgsIsHelpError":  # the help has been printed
        return error.format_message().strip()
    said = " ".join(error.format_message().split()).rstrip(".")
    # What typer leaves out, and pydantic behind it knows: the value.
    causes: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    value = f", not {causes[0]['input']!r}" if causes else ""
    return f"{said[:1].lower()}{said[1:]}{value}; see `{context.command_path} --help`"


def _leave_the_pipe() -> NoReturn:
    """End quietly: whoever read our output has had enough, as `head` has. Python would still try to write the rest."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1)


# The workbook.


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(
    context: typer.Context,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Put the notebooks there if they are not: ./chatlab-lessons, if not in a clone."
        ),
    ] = None,
) -> None:
    """Open the workbook in JupyterLab. What else is on the line goes to JupyterLab: --no-browser --port 8899."""
    from importlib.util import find_spec
    from sysconfig import get_path

    from chatlab.lab.doctor import bring_the_lab
    from chatlab.lab.editions import shipped

    if find_spec("jupyterlab") is None:
        raise SetupError("JupyterLab is not installed", bring_the_lab())
    folder = _open_notebooks(to)
    shipped.remember()
    # A workshop may have no network, and a learner no use for JupyterLab's own news.
    options = ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        print("running as root, so JupyterLab is told --allow-root", file=sys.stderr)
        options.append("--allow-root")
    # As the default, so that the address it prints leads to the first lesson too, not only the browser it opens.
    options += [f"--ServerApp.root_dir={folder}", "--LabApp.default_url=/lab/tree/00_start_here.ipynb"]
    # The notebooks say `chatlab progress`; so a terminal of JupyterLab, or a cell, has to find us.
    os.environ["PATH"] = os.pathsep.join(filter(None, [get_path("scripts"), os.environ.get("PATH")]))
    _become([sys.executable, "-m", "jupyterlab", *options, *context.args])


def _open_notebooks(to: Path | None) -> Path:
    """Return the folder of the notebooks, with the package's own laid out there if it is the first time; go to it."""
    from chatlab.lab.editions import shipped

    if to is None:
        try:
            return shipped.notebooks()
        except SetupError:
            to = shipped.FOLDER
    new = not (to / "notebooks").exists()
    folder = shipped.lay_out(to.absolute())
    if new:
        print(f"put the notebooks into {folder}; your answers and your progress stay there", file=sys.stderr)
    os.chdir(to)  # so that what is kept for the learner is kept beside them
    return folder


def _become(command: list[str]) -> NoReturn:
    """Run `command` in our place, so that signals and the exit status are its own; Windows has no such thing."""
    sys.stdout.flush()
    if os.name == "posix":
        os.execv(command[0], command)
    import subprocess

    raise SystemExit(subprocess.call(command))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print it for a program to read.")] = False,
    workshop: Annotated[
        bool,
        typer.Option("--workshop", help="The check for the day before a class: it starts what a class will start."),
    ] = False,
    laptops: Annotated[int, typer.Option(min=1, help="With --workshop: how many will be in the room.")] = 30,
    redis: Annotated[
        str | None,
        typer.Option(help="Look at this server instead: what a chat keeps there, when it ends, who is connected."),
    ] = None,
) -> None:
    """Say what is here, which versions, and for what is missing the one command that brings it."""
    from rich.console import Console

    if redis is not None:
        _look_at_redis(redis, as_json=as_json)
        return
    from chatlab.lab import doctor as lab_doctor

    checks = asyncio.run(lab_doctor.examine())
    if workshop:
        from chatlab.lab.doctor import workshop as the_day_before

        print("starting a room, an engine, JupyterLab and a kernel; they end again in a moment", file=sys.stderr)
        checks += asyncio.run(the_day_before.examine(laptops))
    if as_json:
        print(lab_doctor.as_json(checks))
    else:
        Console().print(lab_doctor.as_table(checks))
    if not all(check.well for check in checks if check.needed):
        raise typer.Exit(SET_UP)


def _look_at_redis(url: str, *, as_json: bool) -> None:
    from rich.console import Console

    from chatlab.brokers.redis.connections import url as redis_url
    from chatlab.lab.doctor import redis as redis_doctor

    try:
        redis_url.parse(url)
    except SetupError as error:
        _fail(str(error), WRONG_COMMAND_LINE)
    report = asyncio.run(redis_doctor.examine(url))
    if as_json:
        print(redis_doctor.as_json(report))
    else:
        Console().print(redis_doctor.as_table(report), markup=False)


@app.command()
def claims(
    lesson: Annotated[str | None, typer.Argument(help="One lesson alone: 01 to 07.")] = None,
) -> None:
    """Print the ledger: what the article claims, what was measured on this machine, and the verdict."""
    from chatlab.lab.claims import CLAIMS, report

    lessons = sorted({claim.lesson for claim in CLAIMS.values()})
    if lesson is not None and lesson not in lessons:
        _fail(f"no lesson {lesson!r} makes a claim; there are {', '.join(lessons)}", WRONG_COMMAND_LINE)
    ledger = report(lesson)
    for claim in ledger.claims:
        found = ledger.verdicts.get(claim.id)
        print(found or f"  {claim.id} not tried here yet: {claim.text}")
        if found and found.measured:
            print(f"      measured: {found.measured}")


@app.command()
def progress() -> None:
    """Print which exercises you have solved, lesson by lesson. It is kept on this machine, and nowhere else."""
    from chatlab.lab.exercises import exercise as exercises
    from chatlab.lab.home import home

    done = exercises.progress()
    right = list(done.marks.values()).count("right")
    print(done)
    print(f"{right} of {len(done.marks)} are right; kept in {home()}, on this machine alone")


class EditionName(StrEnum):
    """For whom the notebooks are."""

    LEARNER = "learner"
    INSTRUCTOR = "instructor"


@app.command()
def edition(
    name: Annotated[EditionName, typer.Argument(help="The learner's, or the instructor's with solutions and notes.")],
    to: Annotated[Path | None, typer.Option(help="The folder to write it into; else editions/ and its name.")] = None,
) -> None:
    """Write an edition of the notebooks into a folder. What you had changed there is kept aside."""
    from chatlab.lab.editions import edition as lab_edition

    done = lab_edition.build(name.value, to or Path("editions") / name.value)
    print(f"{len(done.names)} files of the {name.value}'s edition are in {done.folder}")
    if done.aside.exists():
        print(f"what was there and differed is in {done.aside}")


@app.command()
def reset(
    lessons: Annotated[list[str] | None, typer.Argument(help="These lessons alone, such as 03; else all.")] = None,
) -> None:
    """Put the notebooks back as they were shipped. Your own copies are kept aside, and you are told where."""
    from chatlab.lab.editions import shipped

    done = shipped.reset(lessons or [])
    if not done.restored:
        print("nothing to do: the notebooks are as they were shipped")
        return
    for name in done.restored:
        print(f"restored {name}")
    if done.aside.exists():
        print(f"your own copies are in {done.aside}")
    print("if JupyterLab has one of them open: File, Reload Notebook from Disk")


# The servers.

LOOPBACK = "127.0.0.1"
CLASSROOM_RATE = 10.0  # messages a second: more than anybody types, less than a script would send


def _host(text: str) -> str:
    """Refuse what cannot be the name or address of a host."""
    try:
        if text.strip() and text.encode("idna"):
            return text
    except UnicodeError:  # a label too long
        pass
    raise typer.BadParameter(f"{text!r} is no address; 127.0.0.1 is this machine alone, 0.0.0.0 every address it has")


def _origins(given: list[str] | None) -> list[str] | None:
    return [_origin(each) for each in given] if given else None


def _origin(text: str) -> str:
    """An origin as browsers send it (RFC 6454, 6.2): in small letters, its host in ASCII, without the usual port."""
    if text in ("*", "null"):
        return text
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:  # UnicodeError is one
        host, port = "", None
    rest = parts.username or parts.path.strip("/") or parts.query or parts.fragment if host else "nothing fits"
    if rest or not parts.scheme or not host or set(host) & set(" *"):
        raise typer.BadParameter(f"{text!r} is no origin; write it as https://chat.example, or * for every page")
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port not in (None, usual) else ''}"


def _host_names(given: list[str] | None) -> list[str] | None:
    for each in given or ():
        if each != "*" and not re.fullmatch(r"[0-9A-Za-z._-]+", each):
            raise typer.BadParameter(f"{each!r} is no name of a host; write it as chat.example, without a port")
    return given


def _admin_key(key: str | None) -> str | None:
    from chatlab.chat.endpoint.admin import AdminSettings

    try:
        AdminSettings(key=key or "")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return key


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number to count with")
    return value


def _heart_beat(text: str) -> str:
    from chatlab.stomp.heartbeat import parse_heart_beat

    try:
        parse_heart_beat(text)
    except StompError as error:
        raise typer.BadParameter(str(error)) from None
    return text


Host = Annotated[
    str, typer.Option(help="The address to listen on; 0.0.0.0 for every one this machine has.", callback=_host)
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes any free one.")]
Origins = Annotated[
    list[str] | None,
    typer.Option(
        "--origin",
        help="A page's origin to let in, such as https://chat.example; repeat it for more.",
        callback=_origins,
    ),
]
HostNames = Annotated[
    list[str] | None,
    typer.Option(
        "--host-name",
        help="A name this server is reached by, such as chat.example; repeat it for more. Addresses, localhost, names "
        "without a dot and those of --origin need none.",
        callback=_host_names,
    ),
]
Redis = Annotated[str | None, typer.Option(help="Redis Streams on this server; the same as --broker with this URL.")]
BrokerUrl = Annotated[
    str | None,
    typer.Option(
        "--broker",
        help="What joins the instances: memory:// (one alone), redis:// (Streams), redis-pubsub://, amqp://, kafka://",
    ),
]
UntilStdinEnds = Annotated[
    bool,
    typer.Option("--until-stdin-ends", hidden=True, help="Stop when standard input ends: with the parent's death."),
]


def _trusted_proxies(given: list[str] | None) -> list[str] | None:
    """Refuse what is neither an address nor a network."""
    from chatlab.net.places import TrustedProxies

    try:
        TrustedProxies(given or ())
    except ValueError as error:
        raise typer.BadParameter(f"{error}; write it as 10.0.0.7 or 10.0.0.0/8") from None
    return given


def _limits(given: list[str] | None) -> list[str] | None:
    """Refuse a limit that there is not, or a value that it cannot have."""
    from chatlab.chat.budgets import Budgets

    try:
        Budgets.parse(given or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return given


def _print_limits(wanted: bool) -> None:
    if not wanted:
        return
    from chatlab.chat.budgets import TABLE, Budgets

    in_force = Budgets().by_name()
    for budget in TABLE.values():
        print(f"{budget.name:30} {in_force[budget.name]:>9}  {budget.what}; beyond it, {budget.beyond}")
    raise typer.Exit


def _place_limits(given: list[str] | None) -> list[str] | None:
    """The same for the servers that limit their connections alone."""
    from chatlab.net.places import ConnectionLimits

    try:
        ConnectionLimits.parse(given or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return given


def _print_connection_limits(wanted: bool) -> None:
    if not wanted:
        return
    from chatlab.chat.budgets import TABLE, Budgets

    in_force = Budgets().by_name()
    for budget in (TABLE["connections"], TABLE["connections-per-address"]):
        what = budget.what.replace(", SockJS sessions among them", "").replace("an instance", "this server")
        print(f"{budget.name:30} {in_force[budget.name]:>9}  {what}; beyond it, 503 with the reason")
    raise typer.Exit


PlaceLimit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        callback=_place_limits,
        help="How many connections there may be; --limits prints the names. Repeat it for more.",
    ),
]
PrintConnectionLimits = Annotated[
    bool,
    typer.Option("--limits", help="Print all limits, and leave.", callback=_print_connection_limits, is_eager=True),
]
Proxies = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-proxy",
        metavar="ADDRESS",
        callback=_trusted_proxies,
        help="A proxy, or a network of them, whose X-Forwarded-For says who the client is; repeat it for more.",
    ),
]


class Level(StrEnum):
    """What is logged, and what is graver."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Durability(StrEnum):
    """What a RECEIPT vouches for, as far as Redis Streams are the broker."""

    SERVER = "server"
    FSYNC = "fsync"


class Build(StrEnum):
    """The article's two builds of the chat."""

    FIRST = "first"
    SECOND = "second"


class Server(Protocol):
    """What every server here is, once it runs."""

    @property
    def url(self) -> str:
        """Where it is reached."""

    async def aclose(self) -> None:
        """Tell the members, then stop."""


@serve.callback()
def keep_a_journal(
    log: Annotated[Level, typer.Option(help="What is logged on standard error, and what is graver.")] = Level.INFO,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log as JSON, one object on each line.")] = False,
) -> None:
    """Run one of the servers until SIGTERM or Ctrl-C; members are told with close code 1001."""
    from chatlab.logs import setup as journal

    # Until the server handles signals itself, Ctrl-C ends this process at once. As KeyboardInterrupt it could be lost:
    # Python only prints an error that comes up in some callbacks of an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    journal.keep(level=log.value, as_json=json_logs)


@serve.command()
def echo(
    host: Host = LOOPBACK,
    port: Port = 8001,
    origin: Origins = None,
    host_name: HostNames = None,
    by_hand: Annotated[bool, typer.Option("--by-hand", help="The server written by hand in lesson 02.")] = False,
    limit: PlaceLimit = None,
    limits: PrintConnectionLimits = False,
    until_stdin_ends: UntilStdinEnds = False,
) -> None:
    """The smallest server: what you say comes back, in both directions at once."""
    from chatlab import echo as echo_server
    from chatlab.net.places import ConnectionLimits

    kind = echo_server.start_by_hand if by_hand else echo_server.start
    start = partial(kind, host=host, port=port, origins=origin or (), host_names=host_name or ())
    _run(partial(start, limits=ConnectionLimits.parse(limit or ())), host, port, until_stdin_ends)


@serve.command()
def room(
    host: Host = LOOPBACK,
    port: Port = 8002,
    redis: Redis = None,
    broker: BrokerUrl = None,
    origin: Origins = None,
    host_name: HostNames = None,
    lan: Annotated[
        bool, typer.Option("--lan", help="Open it to the local network, with a room code, and show how to come in.")
    ] = False,
    hours: Annotated[
        float,
        typer.Option(
            min=0.1, max=1000, callback=_finite, help="With --lan: how long; a longer class has a longer code."
        ),
    ] = 2.0,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.1, callback=_finite, help="Messages a second one member may send; 10 with --lan, else no limit."
        ),
    ] = None,
    trusted_proxy: Proxies = None,
    limit: PlaceLimit = None,
    limits: PrintConnectionLimits = False,
    as_in_the_article: Annotated[
        bool, typer.Option("--as-in-the-article", help="The article's handler, faults and all; any origin may come in.")
    ] = False,
    until_stdin_ends: UntilStdinEnds = False,
) -> None:
    """The article's room at /room: every text goes to every member. Its page is at /."""
    from chatlab import classroom
    from chatlab import room as alone
    from chatlab.net.places import ConnectionLimits
    from chatlab.room import shared as shared_room

    if as_in_the_article and (lan or rate or redis or broker or limit or trusted_proxy):
        _fail("--as-in-the-article has no code, no limits, no broker: leave those options out", WRONG_COMMAND_LINE)
    named = redis is not None or broker is not None
    kept = Kept(lasting=[shared_room.TOPIC])
    engine = broker_of(_broker_url(redis, broker), kept=kept, topics=[shared_room.TOPIC]) if named else None
    if lan:
        host, rate = "0.0.0.0" if host == LOOPBACK else host, rate or CLASSROOM_RATE

    async def start() -> Server:
        if as_in_the_article:
            return await alone.start_as_in_the_article(
                host=host, port=port, origins=origin or ("*",), host_names=host_name or ()
            )
        server = await start_one_that_holds(
            host=host,
            port=port,
            origins=origin or (),
            host_names=host_name or (),
            code=classroom.new_code(hours) if lan else None,
            rate=alone.RateLimit(rate, burst=10, patience=50) if rate else None,
            limits=ConnectionLimits.parse(limit or ()),
            trusted_proxies=trusted_proxy or (),
        )
        if lan:
            encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
            print(classroom.banner(server.page_url(_address_on_the_network(host)), encoding))
            asyncio.get_running_loop().call_later(hours * 3600, _say_the_code_is_old, hours)
        else:
            print(f"the room's page: {server.page_url()}")
            _say_on_the_network(server.page_url(), host)
        return server

    async def start_one_that_holds(**options: Unpack[shared_room.RoomOptions]) -> alone.RoomServer:
        if engine is None:
            return await alone.start(**options)
        await engine.start()
        return await shared_room.start(engine, **options)

    _run(start, host, port, until_stdin_ends, engine.aclose if engine else nothing)


@serve.command()
def chat(
    host: Host = LOOPBACK,
    port: Port = 8080,
    redis: Redis = None,
    broker: BrokerUrl = None,
    origin: Origins = None,
    host_name: HostNames = None,
    admin_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="A port of its own for /metrics and /readyz; else this machine alone."),
    ] = None,
    admin_host: Annotated[str, typer.Option(help="The address that --admin-port is on.", callback=_host)] = LOOPBACK,
    admin_key: Annotated[
        str | None,
        typer.Option(
            envvar="CHATLAB_ADMIN_KEY",
            show_envvar=True,
            callback=_admin_key,
            help="What /metrics and /readyz ask for, as `Authorization: Bearer KEY`; 16 characters at least. Better in "
            "the environment than here, where every user of the machine can read it.",
        ),
    ] = None,
    durability: Annotated[
        Durability,
        typer.Option(
            help="When a message is confirmed (redis:// alone): once the server has it, as safe as its own settings; "
            "or once it is on the server's disk."
        ),
    ] = Durability.SERVER,
    max_length: Annotated[
        int, typer.Option(min=1, help="About how many messages each room keeps (redis:// and memory:// alone).")
    ] = 100_000,
    max_octets: Annotated[
        int, typer.Option(min=1024, help="About how many octets of messages each room keeps (redis:// and memory://).")
    ] = 64 << 20,
    max_age_days: Annotated[
        float,
        typer.Option(min=0, callback=_finite, help="Days that a message is kept, 0 for ever (redis:// and memory://)."),
    ] = 30.0,
    expire_hours: Annotated[
        float,
        typer.Option(
            min=0,
            callback=_finite,
            help="Hours after which a room, topic or queue that nobody uses is gone with all in it, 0 for never; "
            "the public room stays as long as its messages (redis:// and memory:// alone).",
        ),
    ] = 24.0,
    drain_seconds: Annotated[
        float, typer.Option(min=0, callback=_finite, help="How long clients have to leave after SIGTERM.")
    ] = 5.0,
    rate: Annotated[
        float | None,
        typer.Option(min=0.1, callback=_finite, help="Messages a second one connection may send; else no limit."),
    ] = None,
    users: Annotated[
        Path | None,
        typer.Option(help="Let in these alone: a file with NAME:PASSCODE on each line. Else everybody is a guest."),
    ] = None,
    handle_key: Annotated[
        Path | None,
        typer.Option(help="A file with a secret that makes users' handles unguessable: the same for all instances."),
    ] = None,
    heart_beat: Annotated[
        str,
        typer.Option(
            metavar="OUT,IN",
            callback=_heart_beat,
            help="Milliseconds between heart-beats: how often this server can send one, and how often it wants one.",
        ),
    ] = "10000,10000",
    max_frame: Annotated[
        int, typer.Option(min=1024, max=64 << 20, help="The largest STOMP frame a client may send, in octets.")
    ] = 64 << 10,
    audit_log: Annotated[
        Path | None,
        typer.Option(
            help="Append each message of the job rooms to this file, as a line of JSON: one instance does it."
        ),
    ] = None,
    notify_mentions: Annotated[
        bool, typer.Option("--notify-mentions", help="Tell who is named by @NAME, on /user/queue/notifications.")
    ] = False,
    job_room: Annotated[
        list[str] | None, typer.Option(help="A room for those two, public if none is named; repeat it for more.")
    ] = None,
    takeover_seconds: Annotated[
        float,
        typer.Option(
            min=0.1, callback=_finite, help="After how long a job's message goes to another instance (redis:// alone)."
        ),
    ] = 30.0,
    trusted_proxy: Proxies = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            callback=_limits,
            help="What one client may have, and all together; --limits prints the names. Repeat it for more.",
        ),
    ] = None,
    limits: Annotated[
        bool, typer.Option("--limits", help="Print all limits, and leave.", callback=_print_limits, is_eager=True)
    ] = False,
    as_in_the_article: Annotated[
        Build | None, typer.Option(help="One of the article's builds instead, faults and all; it wants redis://.")
    ] = None,
    until_stdin_ends: UntilStdinEnds = False,
) -> None:
    """The chat: STOMP over WebSocket at /ws, in step with every instance on the same broker. Its page is at /."""
    from chatlab.chat.destinations import PUBLIC, PUBLIC_DESTINATION, topic_of

    url = _broker_url(redis, broker)
    kept = Kept(
        max_length, max_octets, max_age_days * DAY, expire_hours * 3600, [topic_of(PUBLIC_DESTINATION)], max_frame
    )
    engine = broker_of(url, durability, kept, takeover_seconds, topics=[topic_of(each) for each in DESTINATIONS])
    if as_in_the_article and not url.startswith(REDIS_URLS):
        _fail("--as-in-the-article wants a Redis: add --redis URL", WRONG_COMMAND_LINE)
    if as_in_the_article and (rate or audit_log or notify_mentions):
        _fail("--as-in-the-article has no limits and no jobs: leave those options out", WRONG_COMMAND_LINE)
    if as_in_the_article and users:
        _fail("--as-in-the-article lets everybody in: leave --users out", WRONG_COMMAND_LINE)
    if as_in_the_article and handle_key:
        _fail("--as-in-the-article has no handles: leave --handle-key out", WRONG_COMMAND_LINE)
    if job_room and not (audit_log or notify_mentions):
        _fail("--job-room names a room for --audit-log or --notify-mentions: give one of them", WRONG_COMMAND_LINE)
    from chatlab.chat import article, jobs
    from chatlab.chat.access import Access
    from chatlab.chat.budgets import Budgets
    from chatlab.chat.endpoint import server as chat_server
    from chatlab.chat.endpoint.admin import AdminSettings
    from chatlab.chat.users import among, read_handle_key, read_passcodes
    from chatlab.limits import RateLimit
    from chatlab.stomp.heartbeat import parse_heart_beat

    budgets = Budgets.parse(limit or ())
    access = Access(
        authenticate=among(read_passcodes(users)) if users else None,
        handle_key=read_handle_key(handle_key) if handle_key else b"",
    )
    tasks = [jobs.audit_log(audit_log)] if audit_log else []
    tasks += [jobs.mentions] if notify_mentions else []

    async def start() -> Server:
        await engine.start()
        if as_in_the_article:
            await engine.aclose()  # it has seen that the server answers; the article's build does not look
            from chatlab.brokers.redis.connections import url as redis_url

            return await article.start(
                redis_url.parse(url).url, build=as_in_the_article.value, host=host, port=port, origins=origin or ("*",)
            )
        server = await chat_server.start(
            engine,
            host=host,
            port=port,
            origins=origin or (),
            host_names=host_name or (),
            admin=AdminSettings(admin_port, admin_host, admin_key or ""),
            drain_seconds=drain_seconds,
            rate=RateLimit(rate, burst=max(20, int(rate)), patience=100) if rate else None,
            access=access,
            heart_beat=parse_heart_beat(heart_beat),
            budgets=budgets,
            limits=budgets.stomp_limits(max_frame),
            trusted_proxies=trusted_proxy or (),
            jobs=tasks,
            job_rooms=job_room or (PUBLIC,),
        )
        print(f"the chat's page: {server.page_url}")
        if server.admin.url:
            print(f"metrics and readiness: {server.admin.url}")
        _say_on_the_network(server.page_url, host)
        return server

    _run(start, host, port, until_stdin_ends, engine.aclose, _fast_loop())


def _say_the_code_is_old(hours: float) -> None:
    import logging

    message = "this room has been open for %g hours, as long as its code is meant for; start it again, or with --hours"
    logging.getLogger("chatlab.room").warning(message, hours)


async def nothing() -> None:
    """What there is to close besides a server that stands alone."""


def _run(
    start: Callable[[], Awaitable[Server]],
    host: str,
    port: int,
    until_stdin_ends: bool,
    afterwards: Callable[[], Awaitable[None]] = nothing,
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run one server from its start to its polite end, then `afterwards`; exit status 0 when it was asked to stop."""
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_serve(start, host, until_stdin_ends, afterwards))
    except asyncio.CancelledError:
        return  # asked to stop, and stopped
    except BrokenPipeError:
        raise  # of standard output
    except OSError as error:
        _fail(_why_not_listening(error, host, port), SET_UP)
    except BrokerError as error:
        _fail(f"{str(error).rstrip('.')}; start that server, or name another with --broker URL", SET_UP)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, where there is one: a message alone costs a quarter less than on Python's own event loop."""
    try:
        import uvloop
    except ImportError:  # Windows
        return None
    return uvloop.new_event_loop


async def _serve(
    start: Callable[[], Awaitable[Server]],
    host: str,
    until_stdin_ends: bool,
    afterwards: Callable[[], Awaitable[None]],
) -> None:
    """Serve until this task is cancelled, which is what a signal does: starting or serving, it ends the same way."""
    _cancel_on_signals(until_stdin_ends)
    async with contextlib.AsyncExitStack() as until_the_end:
        until_the_end.push_async_callback(afterwards)
        server = await start()
        until_the_end.push_async_callback(server.aclose)
        _say_on_the_network(server.url, host)
        print(f"listening on {server.url}", flush=True)
        await asyncio.Event().wait()


def _say_on_the_network(url: str, host: str) -> None:
    """Print the URL for other machines, if the server listens on all addresses of this one."""
    from chatlab.classroom import in_url

    if address := _address_on_the_network(host):
        parts = urlsplit(url)
        print(f"on this network: {urlunsplit(parts._replace(netloc=f'{in_url(address)}:{parts.port}'))}")


def _address_on_the_network(host: str) -> str | None:
    """This machine's address for other machines, for a server that listens on all addresses; None if it has none."""
    from chatlab.classroom import EVERYWHERE, host_to_open, lan_address

    with contextlib.suppress(OSError):  # no address as a number, such as localhost
        host = str(socket.getaddrinfo(host, 0, flags=socket.AI_NUMERICHOST)[0][4][0])
    address = lan_address(host) if host in EVERYWHERE else host
    return None if address == host_to_open(host) else address


def _cancel_on_signals(until_stdin_ends: bool) -> None:
    """Have SIGINT, SIGTERM and, if asked for, the end of standard input cancel the current task."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def ask(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends us at once
        loop.call_soon_threadsafe(task.cancel)

    # Not loop.add_signal_handler, which Windows does not have.
    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    if until_stdin_ends:
        threading.Thread(
            target=_watch_stdin, args=[lambda: loop.call_soon_threadsafe(task.cancel)], daemon=True
        ).start()


def _watch_stdin(ask: Callable[[], object]) -> None:
    """Leave when standard input ends: politely, and if the loop should be stuck, all the same."""
    while os.read(0, 4096):
        pass
    with contextlib.suppress(RuntimeError):  # the loop is closed: we are leaving already
        ask()
    time.sleep(SECONDS_TO_LEAVE)
    os._exit(1)


def _why_not_listening(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken; choose another with --port, or --port 0 for any free one"
    if error.errno == errno.EACCES:
        return f"port {port} needs a privilege this user lacks; choose one above 1023 with --port"
    nowhere = error.errno is None and "could not bind on any address" in str(error)  # asyncio, from Python 3.13 on
    if nowhere or error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"this machine has no address {host}; choose with --host: 127.0.0.1 for itself, 0.0.0.0 for all"
    return f"cannot listen on port {port} of {host}: {error}"


BROKER_URLS = (
    "memory://, redis://HOST:PORT (Streams), redis-pubsub://HOST:PORT, amqp://USER:PASSWORD@HOST/, kafka://HOST:PORT"
)


REDIS_URLS = ("redis://", "rediss://", "unix://")
# One destination of each kind: a broker that may not use the keys of one of them would fail later, and in part.
DESTINATIONS = ("/topic/public", "/topic/room.nobody", "/topic/nobody", "/queue/nobody", "/user/queue/nobody")


def _broker_url(redis: str | None, broker: str | None) -> str:
    """What the command line names; `REDIS_URL` when it names nothing, and memory when nothing does."""
    if redis is not None and broker is not None:
        _fail("--redis and --broker are two ways to say one thing; give one of them", WRONG_COMMAND_LINE)
    given = broker if broker is not None else redis
    if given is not None:  # an empty one too: a variable that is not set must not make an instance that chats alone
        return given.strip()
    if url := os.environ.get("REDIS_URL", "").strip():
        return url
    print("no broker named: this instance chats alone, and forgets all when it ends; see --redis", file=sys.stderr)
    return "memory://"


class Kept(NamedTuple):
    """How much an engine that keeps messages keeps of each topic, and for how many seconds; `lasting` do not expire."""

    max_length: int = 100_000
    max_octets: int = 64 << 20
    max_age: float = 30 * DAY
    expire: float = DAY
    lasting: Sequence[str] = ()
    max_record: int = 64 << 10


def broker_of(
    url: str,
    durability: Durability = Durability.SERVER,
    kept: Kept = Kept(),  # noqa: B008 (it cannot change)
    takeover_after: float = 30.0,
    topics: Sequence[str] = (),
) -> Broker:
    """The broker for a URL, not yet connected; `topics`: some that it will surely serve.

    A wrong URL ends with a line that lists the right ones, or names the option that is wrong in it.
    """
    scheme, separator, _ = url.partition("://")
    try:
        if not separator:
            raise ValueError(f"{without_password(url)!r} is no URL")
        if durability is Durability.FSYNC and not url.startswith(REDIS_URLS):
            _fail(f"--durability fsync is for redis:// alone, not for {scheme}://", WRONG_COMMAND_LINE)
        _check_address(scheme, url)
        return _engine(scheme, url, durability, kept, takeover_after, topics)
    except ValueError as error:
        _fail(f"{error}; the brokers are {BROKER_URLS}", WRONG_COMMAND_LINE)
    except SetupError as error:
        _fail(str(error), WRONG_COMMAND_LINE)


def _check_address(scheme: str, url: str) -> None:
    """Raise ValueError for an address that no broker can have. `redis/connections/url.py` checks a URL of Redis."""
    if url.startswith((*REDIS_URLS, "redis-pubsub://")):
        return
    parts = urlsplit(url)
    if scheme == "memory" and url.removesuffix("/") != "memory:/":
        raise ValueError("memory:// is in this process, and has no address")
    if scheme in ("amqp", "amqps", "kafka") and not parts.netloc.rpartition("@")[2]:
        raise ValueError(f"{scheme}:// names no host")
    for address in parts.netloc.rpartition("@")[2].split(","):  # Kafka's may be several
        try:
            port = urlsplit(f"//{address}").port
        except ValueError:
            if "@" in url[url.index(parts.netloc) + len(parts.netloc) :]:  # then what is no port is part of a password
                raise ValueError("in a password /, ? and # are written %2F, %3F and %23") from None
            raise
        if port == 0:
            raise ValueError(f"{address} has port 0, where nothing can listen")


def _engine(
    scheme: str, url: str, durability: Durability, kept: Kept, takeover_after: float, topics: Sequence[str]
) -> Broker:
    """The one place that names engines. Raises ValueError for what is no broker's URL."""
    match scheme:
        case "memory":
            from chatlab.brokers.memory.broker import MemoryBroker

            return MemoryBroker(
                max_length=kept.max_length,
                topic_octets=kept.max_octets,
                max_age=kept.max_age,
                expire=kept.expire,
                lasting=kept.lasting,
            )
        case "redis" | "rediss" | "unix":
            from chatlab.brokers.redis.streams import RedisStreamsBroker

            return RedisStreamsBroker(
                url, durability=durability.value, takeover_after=takeover_after, topics=topics, **kept._asdict()
            )
        case "redis-pubsub" | "rediss-pubsub":
            from chatlab.brokers.redis.pubsub import RedisPubSubBroker

            return RedisPubSubBroker(url.replace("-pubsub", "", 1), topics=topics)
        case "amqp" | "amqps":
            from chatlab.brokers.rabbitmq.broker import RabbitMQBroker

            return RabbitMQBroker(url)
        case "kafka":
            from chatlab.brokers.kafka.broker import KafkaBroker

            return KafkaBroker(url)
    raise ValueError(f"no broker is called {scheme!r}")


if __name__ == "__main__":
    main()
