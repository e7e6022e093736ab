"""`chatlab lab | serve | doctor | claims | grade | ...`: the top layer, the only file that names broker engines.

Each command imports what it needs when it runs, so that `chatlab --help` answers at once and `chatlab serve echo` needs
no broker's library. An error that the user can fix is one line that says what to do, with exit status 2 (the command
line is wrong) or 3 (this machine lacks something, or a port is taken).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
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
from chatlab.locale import _, ngettext
from chatlab.urls import without_password

if TYPE_CHECKING:
    from chatlab.brokers.port import Broker

app = typer.Typer(
    help=_("A workbook on real-time chat, from the WebSocket handshake to STOMP on Redis Streams, and its servers."),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
serve = typer.Typer(no_args_is_help=True)
app.add_typer(serve, name="serve")

WRONG_COMMAND_LINE = 2
SETUP_NEEDED = 3
SECONDS_TO_STOP = 10.0
DAY = 86_400.0
COLLECT_AFTER = 20_000  # objects allocated and not freed, between two runs of the garbage collector


def main() -> None:
    """Run the command line; an error the user can fix becomes a line and an exit status."""
    console.keep_writing()
    try:
        status = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except TyperException as error:
        _fail(_usage_error(error), WRONG_COMMAND_LINE)
    except ChatlabError as error:
        _fail(str(error), SETUP_NEEDED)
    except BrokenPipeError:
        _exit_on_broken_pipe()
    except OSError as error:
        if error.filename is None:
            raise
        _fail(_("cannot use {file}: {reason}").format(file=error.filename, reason=error.strerror), SETUP_NEEDED)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "chatlab":
            raise
        from chatlab.lab.doctor import bring_the_lab

        line = _("{package} is not installed; {remedy}")
        _fail(line.format(package=error.name, remedy=bring_the_lab()), SETUP_NEEDED)
    raise SystemExit(status)


def _fail(line: str, status: int) -> NoReturn:
    if line:
        print(f"chatlab: {' '.join(line.splitlines())}", file=sys.stderr)
    raise SystemExit(status)


def _usage_error(error: TyperException) -> str:
    """Return one line: what is wrong with the command line, the value, and where to find the right ones."""
    context = getattr(error, "ctx", None)
    if context is None or type(error).__name__ == "NoArgsIsHelpError":  # the help has been printed
        return error.format_message().strip()
    message = " ".join(error.format_message().split()).rstrip(".")
    message = f"{message[:1].lower()}{message[1:]}"
    # typer leaves out the value; the pydantic error behind it has it.
    causes: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    if causes:
        line = _("{message}, not {value!r}; see `{command} --help`")
        return line.format(message=message, value=causes[0]["input"], command=context.command_path)
    return _("{message}; see `{command} --help`").format(message=message, command=context.command_path)


def _exit_on_broken_pipe() -> NoReturn:
    """Exit quietly when the reader of our output has closed it, as `head` does; Python would try to flush the rest."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1)


# The workbook.


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    help=_("Open the workbook in JupyterLab. Other options go to JupyterLab: --no-browser --port 8899."),
)
def lab(
    context: typer.Context,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help=_("Where to put your copy of the notebooks; by default chatlab-lessons, in the clone or here."),
        ),
    ] = None,
) -> None:
    """Open the workbook in JupyterLab. Other options go to JupyterLab: --no-browser --port 8899."""
    from importlib.util import find_spec
    from sysconfig import get_path

    from chatlab.lab.doctor import bring_the_lab

    if find_spec("jupyterlab") is None:
        raise SetupError(_("JupyterLab is not installed"), bring_the_lab())
    folder = _open_notebooks(to)
    # A workshop may have no network, and learners do not need JupyterLab's news.
    options = ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        print(_("running as root, so JupyterLab is started with --allow-root"), file=sys.stderr)
        options.append("--allow-root")
    # The default URL, so that the address it prints leads to the first lesson too, like the browser it opens.
    # Above the notebooks are the documents they link to.
    options += [f"--ServerApp.root_dir={folder.parent}", "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"]
    from chatlab.lab.editions import saving

    saving.configure(os.environ)
    # The notebooks mention `chatlab progress`, so JupyterLab's terminals and cells have to find this command.
    os.environ["PATH"] = os.pathsep.join(filter(None, [get_path("scripts"), os.environ.get("PATH")]))
    _replace_process([sys.executable, "-m", "jupyterlab", *options, *context.args])


def _open_notebooks(to: Path | None) -> Path:
    """Bring the learner's copy of the notebooks up to date, change into the folder above it, and return it."""
    from chatlab.lab.editions import shipped
    from chatlab.lab.home import home

    if os.environ.get("CHATLAB_HOME"):
        home()  # fail now if it cannot be used, not in the first cell
    folder = (to or shipped.learners_folder()).absolute()
    copy = shipped.lay_out(folder)
    if copy.new:
        line = _("your copy of the notebooks is in {folder}; your answers and your progress stay there")
        print(line.format(folder=copy.notebooks), file=sys.stderr)
    for name in copy.outdated:
        line = _("there is a newer {notebook}; `chatlab reset {lesson}` brings it, and sets your copy aside")
        print(line.format(notebook=name, lesson=name[:2]), file=sys.stderr)
    os.chdir(folder)  # so that progress is stored beside the notebooks
    return copy.notebooks


def _replace_process(command: list[str]) -> NoReturn:
    """Replace this process with `command`, so that signals and the exit status are its own; a subprocess on Windows."""
    sys.stdout.flush()
    if os.name == "posix":
        os.execv(command[0], command)
    import subprocess

    raise SystemExit(subprocess.call(command))


@app.command(
    help=_("Check what is installed, in which versions; for what is missing, print the command that installs it.")
)
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help=_("Print JSON."))] = False,
    workshop: Annotated[
        bool,
        typer.Option("--workshop", help=_("Check the day before a class: start everything that the class will start.")),
    ] = False,
    laptops: Annotated[int, typer.Option(min=1, help=_("With --workshop: the number of laptops in the room."))] = 30,
    redis: Annotated[
        str | None,
        typer.Option(
            help=_("Inspect this server instead: what a chat stores there, when it expires, who is connected.")
        ),
    ] = None,
) -> None:
    """Check what is installed, in which versions; for what is missing, print the command that installs it."""
    from rich.console import Console

    if redis is not None:
        _inspect_redis(redis, as_json=as_json)
        return
    from chatlab.lab import doctor as lab_doctor

    checks = asyncio.run(lab_doctor.examine())
    if workshop:
        from chatlab.lab.doctor import workshop as rehearsal

        print(_("starting a room, an engine, JupyterLab and a kernel; they stop again shortly"), file=sys.stderr)
        checks += asyncio.run(rehearsal.examine(laptops))
    if as_json:
        print(lab_doctor.as_json(checks))
    else:
        Console().print(lab_doctor.as_table(checks))
    if not all(check.well for check in checks if check.needed):
        raise typer.Exit(SETUP_NEEDED)


def _inspect_redis(url: str, *, as_json: bool) -> None:
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


@app.command(help=_("Print the ledger: what the article claims, what was measured on this machine, and the verdict."))
def claims(
    lesson: Annotated[str | None, typer.Argument(help=_("Only this lesson: 01 to 07."))] = None,
) -> None:
    """Print the ledger: what the article claims, what was measured on this machine, and the verdict."""
    from chatlab.lab.claims import CLAIMS, report

    lessons = sorted({claim.lesson for claim in CLAIMS.values()})
    if lesson is not None and lesson not in lessons:
        line = _("no lesson {lesson!r} makes a claim; there are {lessons}")
        _fail(line.format(lesson=lesson, lessons=", ".join(lessons)), WRONG_COMMAND_LINE)
    ledger = report(lesson)
    for claim in ledger.claims:
        verdict = ledger.verdicts.get(claim.id)
        print(verdict or "  " + _("{claim} not tried here yet: {text}").format(claim=claim.id, text=claim.text))
        if verdict and verdict.figure:
            print(f"      {verdict.figure}")
        if verdict and verdict.measured:
            print("      " + _("measured: {value}").format(value=verdict.measured))


@app.command(help=_("Print which exercises you have solved, lesson by lesson. This is stored on this machine only."))
def progress(
    as_json: Annotated[bool, typer.Option("--json", help=_("Print JSON."))] = False,
) -> None:
    """Print which exercises you have solved, lesson by lesson. This is stored on this machine only."""
    from chatlab.lab.exercises import exercise as exercises
    from chatlab.lab.home import home

    done = exercises.progress()
    if as_json:
        print(done.as_json())
        return
    right = list(done.marks.values()).count("right")
    print(done)
    line = _("{right} of {total} are right; stored in {folder}, on this machine only")
    print(line.format(right=right, total=len(done.marks), folder=home()))


@app.command(help=_("Judge a class's notebooks: in a folder, in a folder for each learner, or in a zip of either."))
def grade(
    place: Annotated[Path, typer.Argument(metavar="FOLDER", help=_("The folder with the notebooks, or the zip."))],
    to: Annotated[Path, typer.Option(help=_("The folder for the page, the CSV and the JSON files."))] = Path("grades"),
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help=_("Notebooks at a time; by default one for each processor."))
    ] = None,
) -> None:
    """Judge a class's notebooks: in a folder, in a folder for each learner, or in a zip of either."""
    from chatlab.lab.grading import judging, reports, submissions

    def tell(result: judging.Result) -> None:
        given = result.submission
        told = given.problem or _("{right} of {total}").format(right=result.score, total=result.possible)
        print(f"{given.where}: {told}", flush=True)
        for verdict in result.verdicts:
            if not verdict.is_right:
                print(f"    {verdict.id} {verdict.line}", flush=True)

    results = judging.judge_all(submissions.submissions(place), workers, tell)
    made = reports.write(results, to)
    line = ngettext("{count} notebook judged; see {page}", "{count} notebooks judged; see {page}", len(results))
    print(line.format(count=len(results), page=made[0]))


class EditionName(StrEnum):
    """An edition of the notebooks, by its reader."""

    LEARNER = "learner"
    INSTRUCTOR = "instructor"


@app.command(help=_("Write an edition of the notebooks into a folder. Files that you changed there are set aside."))
def edition(
    name: Annotated[
        EditionName, typer.Argument(help=_("The learner's, or the instructor's with solutions and notes."))
    ],
    to: Annotated[
        Path | None, typer.Option(help=_("The folder to write it into; by default editions/ and its name."))
    ] = None,
) -> None:
    """Write an edition of the notebooks into a folder. Files that you changed there are set aside."""
    from chatlab.lab.editions import edition as lab_edition

    done = lab_edition.build(name.value, to or Path("editions") / name.value)
    count = len(done.names)
    if name is EditionName.LEARNER:
        line = ngettext(
            "{count} file of the learner's edition is in {folder}",
            "{count} files of the learner's edition are in {folder}",
            count,
        )
    else:
        line = ngettext(
            "{count} file of the instructor's edition is in {folder}",
            "{count} files of the instructor's edition are in {folder}",
            count,
        )
    print(line.format(count=count, folder=done.folder))
    if done.aside.exists():
        print(_("files there that differed are now in {folder}").format(folder=done.aside))


@app.command(
    help=_("Restore the notebooks as they were shipped. Your own copies are set aside, and their folder is printed.")
)
def reset(
    lessons: Annotated[list[str] | None, typer.Argument(help=_("Only these lessons, such as 03; else all."))] = None,
) -> None:
    """Restore the notebooks as they were shipped. Your own copies are set aside, and their folder is printed."""
    from chatlab.lab.editions import shipped

    done = shipped.reset(lessons or [])
    if not done.restored:
        print(_("nothing to do: the notebooks are as they were shipped"))
        return
    for name in done.restored:
        print(_("restored {name}").format(name=name))
    if done.aside.exists():
        print(_("your own copies are in {folder}").format(folder=done.aside))
    print(_("if JupyterLab has one of them open: File, Reload Notebook from Disk"))


# The servers.

LOOPBACK = "127.0.0.1"
CLASSROOM_RATE = 10.0  # messages per second: more than anyone types, fewer than a script would send


def _host(text: str) -> str:
    """Reject text that cannot be a host's name or address."""
    try:
        if text.strip() and text.encode("idna"):
            return text
    except UnicodeError:  # a label too long
        pass
    line = _("{text!r} is not an address; 127.0.0.1 is this machine only, 0.0.0.0 every address it has")
    raise typer.BadParameter(line.format(text=text))


def _origins(given: list[str] | None) -> list[str] | None:
    return [_origin(each) for each in given] if given else None


def _origin(text: str) -> str:
    """Return an origin as browsers send it (RFC 6454, 6.2): in lower case, host in ASCII, without the default port."""
    if text in ("*", "null"):
        return text
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:  # UnicodeError is one
        host, port = "", None
    if (
        not host
        or not parts.scheme
        or parts.username
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
        or set(host) & set(" *")
    ):
        line = _("{text!r} is not an origin; write it as https://chat.example, or * for every page")
        raise typer.BadParameter(line.format(text=text))
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{port}' if port not in (None, usual) else ''}"


def _host_names(given: list[str] | None) -> list[str] | None:
    for each in given or ():
        if each != "*" and not re.fullmatch(r"[0-9A-Za-z._-]+", each):
            line = _("{name!r} is not a host name; write it as chat.example, without a port")
            raise typer.BadParameter(line.format(name=each))
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
        raise typer.BadParameter(_("{value} is not a finite number").format(value=value))
    return value


def _heart_beat(text: str) -> str:
    from chatlab.stomp.heartbeat import parse_heart_beat

    try:
        parse_heart_beat(text)
    except StompError as error:
        raise typer.BadParameter(str(error)) from None
    return text


Host = Annotated[
    str, typer.Option(help=_("The address to listen on; 0.0.0.0 for all of this machine's addresses."), callback=_host)
]
Port = Annotated[int, typer.Option(min=0, max=65535, help=_("The port to listen on; 0 takes any free one."))]
Origins = Annotated[
    list[str] | None,
    typer.Option(
        "--origin",
        help=_("An origin whose pages may connect, such as https://chat.example; repeat it for more."),
        callback=_origins,
    ),
]
HostNames = Annotated[
    list[str] | None,
    typer.Option(
        "--host-name",
        help=_(
            "A host name of this server, such as chat.example; repeat it for more. Not needed for addresses, "
            "localhost, names without a dot, and hosts given with --origin."
        ),
        callback=_host_names,
    ),
]
Redis = Annotated[str | None, typer.Option(help=_("Redis Streams on this server; the same as --broker with this URL."))]
BrokerUrl = Annotated[
    str | None,
    typer.Option(
        "--broker",
        help=_(
            "What connects instances: memory:// (one instance), redis:// (Streams), redis-pubsub://, amqp:// (RabbitMQ "
            "with history), amqp-queues:// (without), kafka://"
        ),
    ),
]
UntilStdinEnds = Annotated[
    bool,
    typer.Option(
        "--until-stdin-ends", hidden=True, help=_("Stop at the end of standard input: when the parent exits.")
    ),
]


def _trusted_proxies(given: list[str] | None) -> list[str] | None:
    """Reject text that is neither an address nor a network."""
    from chatlab.net.connection_limits import TrustedProxies

    try:
        TrustedProxies(given or ())
    except ValueError as error:
        raise typer.BadParameter(_("{error}; write it as 10.0.0.7 or 10.0.0.0/8").format(error=error)) from None
    return given


def _limits(given: list[str] | None) -> list[str] | None:
    """Reject an unknown limit, or a value that it cannot have."""
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
        text = _("{what}; beyond it, {consequence}").format(what=_(budget.what), consequence=_(budget.beyond))
        print(f"{budget.name:30} {in_force[budget.name]:>9}  {text}")
    raise typer.Exit


def _place_limits(given: list[str] | None) -> list[str] | None:
    """Reject an unknown limit or value, for servers that limit only their connections."""
    from chatlab.net.connection_limits import ConnectionLimits

    try:
        ConnectionLimits.parse(given or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return given


def _print_connection_limits(wanted: bool) -> None:
    if not wanted:
        return
    from chatlab.chat.budgets import Budgets

    in_force = Budgets().by_name()
    for name, text in {
        "connections": _("connections to this server; beyond it, 503 with the reason"),
        "connections-per-address": _("of these, from one address; beyond it, 503 with the reason"),
    }.items():
        print(f"{name:30} {in_force[name]:>9}  {text}")
    raise typer.Exit


PlaceLimit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        callback=_place_limits,
        help=_("The number of connections allowed; --limits prints the names. Repeat it for more."),
    ),
]
PrintConnectionLimits = Annotated[
    bool,
    typer.Option("--limits", help=_("Print all limits and exit."), callback=_print_connection_limits, is_eager=True),
]
Proxies = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-proxy",
        metavar="ADDRESS",
        callback=_trusted_proxies,
        help=_("A proxy, or a network of proxies, whose X-Forwarded-For is trusted; repeat it for more."),
    ),
]


class Level(StrEnum):
    """The lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Durability(StrEnum):
    """What a RECEIPT guarantees on Redis Streams."""

    SERVER = "server"
    FSYNC = "fsync"


class Build(StrEnum):
    """The article's two builds of the chat."""

    FIRST = "first"
    SECOND = "second"


class Server(Protocol):
    """A running server."""

    @property
    def url(self) -> str:
        """The URL that clients connect to."""

    async def aclose(self) -> None:
        """Close every connection, then stop."""


@serve.callback(help=_("Run a server until SIGTERM or Ctrl-C; clients are closed with code 1001."))
def configure_logging(
    log: Annotated[Level, typer.Option(help=_("Log messages at this level and above to stderr."))] = Level.INFO,
    json_logs: Annotated[bool, typer.Option("--json-logs", help=_("Log as JSON, one object per line."))] = False,
) -> None:
    """Run a server until SIGTERM or Ctrl-C; clients are closed with code 1001."""
    from chatlab.logs.setup import log_to_stderr

    # Until the server handles signals itself, Ctrl-C ends this process at once. A KeyboardInterrupt could be lost:
    # Python only prints an exception raised in some import callbacks.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    log_to_stderr(level=log.value, as_json=json_logs)


@serve.command(help=_("The smallest server: it echoes each message, in both directions at once."))
def echo(
    host: Host = LOOPBACK,
    port: Port = 8001,
    origin: Origins = None,
    host_name: HostNames = None,
    by_hand: Annotated[bool, typer.Option("--by-hand", help=_("Run the server written by hand in lesson 02."))] = False,
    trusted_proxy: Proxies = None,
    limit: PlaceLimit = None,
    limits: PrintConnectionLimits = False,
    until_stdin_ends: UntilStdinEnds = False,
) -> None:
    """The smallest server: it echoes each message, in both directions at once."""
    from chatlab import echo as echo_server
    from chatlab.net.connection_limits import ConnectionLimits

    kind = echo_server.start_by_hand if by_hand else echo_server.start
    start = partial(
        kind,
        host=host,
        port=port,
        origins=origin or (),
        host_names=host_name or (),
        trusted_proxies=trusted_proxy or (),
    )
    _run(partial(start, limits=ConnectionLimits.parse(limit or ())), host, port, until_stdin_ends)


@serve.command(help=_("The article's room at /room: every text goes to every member. Its page is at /."))
def room(
    host: Host = LOOPBACK,
    port: Port = 8002,
    redis: Redis = None,
    broker: BrokerUrl = None,
    origin: Origins = None,
    host_name: HostNames = None,
    lan: Annotated[
        bool, typer.Option("--lan", help=_("Open it to the local network, with a room code, and print how to join."))
    ] = False,
    hours: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=1000,
            callback=_finite,
            help=_("With --lan: the length of the class; a longer one has a longer code."),
        ),
    ] = 2.0,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            callback=_finite,
            help=_("Messages per second that one member may send; 10 with --lan, otherwise no limit."),
        ),
    ] = None,
    trusted_proxy: Proxies = None,
    limit: PlaceLimit = None,
    limits: PrintConnectionLimits = False,
    as_in_the_article: Annotated[
        bool,
        typer.Option(
            "--as-in-the-article", help=_("Run the article's handler, faults included; any origin may connect.")
        ),
    ] = False,
    until_stdin_ends: UntilStdinEnds = False,
) -> None:
    """The article's room at /room: every text goes to every member. Its page is at /."""
    from chatlab import classroom
    from chatlab import room as alone
    from chatlab.net.connection_limits import ConnectionLimits
    from chatlab.room import shared as shared_room

    if as_in_the_article and (lan or rate or redis or broker or limit or trusted_proxy):
        _fail(_("--as-in-the-article has no code, no limits, no broker: leave those options out"), WRONG_COMMAND_LINE)
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
        server = await start_complete_room(
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
            asyncio.get_running_loop().call_later(hours * 3600, _warn_of_old_code, hours)
        else:
            print(_("the room's page: {url}").format(url=server.page_url()))
            _print_network_url(server.page_url(), host)
        return server

    async def start_complete_room(**options: Unpack[shared_room.RoomOptions]) -> alone.RoomServer:
        if engine is None:
            return await alone.start(**options)
        await engine.start()
        return await shared_room.start(engine, **options)

    _run(start, host, port, until_stdin_ends, engine.aclose if engine else _no_cleanup)


@serve.command(
    help=_("The chat: STOMP over WebSocket at /ws, shared by every instance on the same broker. Its page is at /.")
)
def chat(
    host: Host = LOOPBACK,
    port: Port = 8080,
    redis: Redis = None,
    broker: BrokerUrl = None,
    origin: Origins = None,
    host_name: HostNames = None,
    admin_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help=_("A separate port for /metrics and /readyz; without it, they answer this machine only."),
        ),
    ] = None,
    admin_host: Annotated[str, typer.Option(help=_("The address for --admin-port."), callback=_host)] = LOOPBACK,
    admin_key: Annotated[
        str | None,
        typer.Option(
            envvar="CHATLAB_ADMIN_KEY",
            show_envvar=True,
            callback=_admin_key,
            help=_(
                "The key that /metrics and /readyz require, as `Authorization: Bearer KEY`; at least 16 characters. "
                "Better set in the environment: every user of this machine can read the command line."
            ),
        ),
    ] = None,
    durability: Annotated[
        Durability,
        typer.Option(
            help=_(
                "When a message is confirmed (only redis://): once the server has it, as durable as its settings make "
                "it; or once it is on the server's disk."
            )
        ),
    ] = Durability.SERVER,
    max_length: Annotated[
        int, typer.Option(min=1, help=_("Messages that each room keeps, approximately (only redis:// and memory://)."))
    ] = 100_000,
    max_octets: Annotated[
        int,
        typer.Option(
            min=1024, help=_("Octets of messages each room keeps, approximately (only redis:// and memory://).")
        ),
    ] = 64 << 20,
    max_age_days: Annotated[
        float,
        typer.Option(
            min=0, callback=_finite, help=_("Days that a message is kept, 0 for ever (only redis:// and memory://).")
        ),
    ] = 30.0,
    expire_hours: Annotated[
        float,
        typer.Option(
            min=0,
            callback=_finite,
            help=_(
                "Hours after which an unused room, topic or queue is deleted with its messages, 0 for never; the "
                "public room is kept as long as its messages (only redis:// and memory://)."
            ),
        ),
    ] = 24.0,
    drain_seconds: Annotated[
        float, typer.Option(min=0, callback=_finite, help=_("How long clients have to disconnect after SIGTERM."))
    ] = 5.0,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.1, callback=_finite, help=_("Messages per second that one connection may send; otherwise no limit.")
        ),
    ] = None,
    users: Annotated[
        Path | None,
        typer.Option(
            help=_("A file with NAME:PASSCODE on each line: admit only these users. Otherwise all are guests.")
        ),
    ] = None,
    handle_key: Annotated[
        Path | None,
        typer.Option(help=_("A file with a secret that makes user handles unguessable; the same for all instances.")),
    ] = None,
    heart_beat: Annotated[
        str,
        typer.Option(
            metavar="OUT,IN",
            callback=_heart_beat,
            help=_("Milliseconds between heart-beats: how often this server can send one, and how often it wants one."),
        ),
    ] = "10000,10000",
    max_frame: Annotated[
        int, typer.Option(min=1024, max=64 << 20, help=_("The largest STOMP frame a client may send, in octets."))
    ] = 64 << 10,
    audit_log: Annotated[
        Path | None,
        typer.Option(
            help=_("Append each message of the job rooms to this file, as a line of JSON; one instance writes each.")
        ),
    ] = None,
    notify_mentions: Annotated[
        bool,
        typer.Option("--notify-mentions", help=_("Notify users mentioned as @NAME, on /user/queue/notifications.")),
    ] = False,
    job_room: Annotated[
        list[str] | None,
        typer.Option(help=_("A room for these two jobs; public if none is given. Repeat it for more.")),
    ] = None,
    takeover_seconds: Annotated[
        float,
        typer.Option(
            min=0.1,
            callback=_finite,
            help=_("Seconds until another instance takes over a job's message (only redis://)."),
        ),
    ] = 30.0,
    trusted_proxy: Proxies = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            callback=_limits,
            help=_("A limit for one client, or for all; --limits prints the names. Repeat it for more."),
        ),
    ] = None,
    limits: Annotated[
        bool, typer.Option("--limits", help=_("Print all limits and exit."), callback=_print_limits, is_eager=True)
    ] = False,
    as_in_the_article: Annotated[
        Build | None, typer.Option(help=_("Run one of the article's builds instead, faults included; needs redis://."))
    ] = None,
    until_stdin_ends: UntilStdinEnds = False,
) -> None:
    """The chat: STOMP over WebSocket at /ws, shared by every instance on the same broker. Its page is at /."""
    from chatlab.chat.destinations import PUBLIC, PUBLIC_DESTINATION, topic_of

    url = _broker_url(redis, broker)
    kept = Kept(
        max_length, max_octets, max_age_days * DAY, expire_hours * 3600, [topic_of(PUBLIC_DESTINATION)], max_frame
    )
    engine = broker_of(url, durability, kept, takeover_seconds, topics=[topic_of(each) for each in DESTINATIONS])
    if as_in_the_article and not url.startswith(REDIS_URLS):
        _fail(_("--as-in-the-article needs Redis: add --redis URL"), WRONG_COMMAND_LINE)
    if as_in_the_article and (rate or audit_log or notify_mentions):
        _fail(_("--as-in-the-article has no limits and no jobs: leave those options out"), WRONG_COMMAND_LINE)
    if as_in_the_article and users:
        _fail(_("--as-in-the-article lets everyone in: leave --users out"), WRONG_COMMAND_LINE)
    if as_in_the_article and handle_key:
        _fail(_("--as-in-the-article has no handles: leave --handle-key out"), WRONG_COMMAND_LINE)
    if job_room and not (audit_log or notify_mentions):
        _fail(_("--job-room names a room for --audit-log or --notify-mentions: give one of them"), WRONG_COMMAND_LINE)
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
            await engine.aclose()  # it has checked that the server answers; the article's build does not
            from chatlab.brokers.redis.connections import url as redis_url

            return await article.start(
                redis_url.parse(url).url, build=as_in_the_article.value, host=host, port=port, origins=origin or ()
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
        print(_("the chat's page: {url}").format(url=server.page_url))
        if server.admin.url:
            print(_("metrics and readiness: {url}").format(url=server.admin.url))
        _print_network_url(server.page_url, host)
        return server

    _run(start, host, port, until_stdin_ends, engine.aclose, _fast_loop())


def _warn_of_old_code(hours: float) -> None:
    import logging

    logging.getLogger("chatlab.room").warning(
        "this room has been open for %g hours, as long as its code is meant for; start it again, or with --hours", hours
    )


async def _no_cleanup() -> None:
    """Nothing to clean up: the default `afterwards` hook."""


def _run(
    start: Callable[[], Awaitable[Server]],
    host: str,
    port: int,
    until_stdin_ends: bool,
    afterwards: Callable[[], Awaitable[None]] = _no_cleanup,
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run one server until it has closed, then `afterwards`; exit with status 0 if it was asked to stop."""
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_serve(start, host, until_stdin_ends, afterwards))
    except asyncio.CancelledError:
        return  # asked to stop, and stopped
    except BrokenPipeError:
        raise  # of standard output
    except OSError as error:
        _fail(_listen_error(error, host, port), SETUP_NEEDED)
    except BrokerError as error:
        line = _("{error}; start that server, or name another with --broker URL")
        _fail(line.format(error=str(error).rstrip(".")), SETUP_NEEDED)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory where installed: a single message costs a quarter less than on asyncio's own loop."""
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
    """Serve until this task is cancelled, as a signal does, whether it is still starting or already serving."""
    _cancel_on_signals(until_stdin_ends)
    async with contextlib.AsyncExitStack() as cleanup:
        cleanup.push_async_callback(afterwards)
        server = await start()
        cleanup.push_async_callback(server.aclose)
        _print_network_url(server.url, host)
        print(_("listening on {url}").format(url=server.url), flush=True)
        _let_the_collector_rest()
        await asyncio.Event().wait()


def _let_the_collector_rest() -> None:
    """Run the garbage collector less often, and not over what lives as long as the server.

    Serving allocates many objects that reference counting frees; by default each 700 of them start a collection. What
    was imported need not be looked at again: it is never garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def _print_network_url(url: str, host: str) -> None:
    """Print the URL for other machines, if the server listens on all addresses of this one."""
    from chatlab.classroom import in_url

    if address := _address_on_the_network(host):
        parts = urlsplit(url)
        other = urlunsplit(parts._replace(netloc=f"{in_url(address)}:{parts.port}"))
        print(_("on this network: {url}").format(url=other))


def _address_on_the_network(host: str) -> str | None:
    """Return this machine's address for other machines if the server listens on it, else None."""
    from chatlab.classroom import WILDCARDS, host_to_open, lan_address

    with contextlib.suppress(OSError):  # not a numeric address, such as localhost
        host = str(socket.getaddrinfo(host, 0, flags=socket.AI_NUMERICHOST)[0][4][0])
    address = lan_address(host) if host in WILDCARDS else host
    return None if address == host_to_open(host) else address


def _cancel_on_signals(until_stdin_ends: bool) -> None:
    """Cancel the current task on SIGINT, SIGTERM and, if asked for, the end of standard input."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def stop(number: int, __: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        loop.call_soon_threadsafe(task.cancel)

    # Not loop.add_signal_handler, which Windows does not have.
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if until_stdin_ends:
        threading.Thread(
            target=_watch_stdin, args=[lambda: loop.call_soon_threadsafe(task.cancel)], daemon=True
        ).start()


def _watch_stdin(stop: Callable[[], object]) -> None:
    """Stop when standard input ends; exit anyway if the loop is stuck."""
    while os.read(0, 4096):
        pass
    with contextlib.suppress(RuntimeError):  # the loop is closed already
        stop()
    time.sleep(SECONDS_TO_STOP)
    os._exit(1)


def _listen_error(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        line = _("port {port} on {host} is taken; choose another with --port, or --port 0 for any free one")
        return line.format(port=port, host=host)
    if error.errno == errno.EACCES:
        line = _("port {port} needs a privilege this user lacks; choose one above 1023 with --port")
        return line.format(port=port)
    # asyncio's message, from Python 3.13 on.
    no_address = error.errno is None and "could not bind on any address" in str(error)  # not shown: it is compared
    if no_address or error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        line = _("this machine has no address {host}; choose with --host: 127.0.0.1 for itself, 0.0.0.0 for all")
        return line.format(host=host)
    return _("cannot listen on port {port} of {host}: {error}").format(port=port, host=host, error=error)


BROKER_URLS = _(
    "memory://, redis://HOST:PORT (Streams), redis-pubsub://HOST:PORT, amqp://USER:PASSWORD@HOST/ (stream queues),"
    " amqp-queues://USER:PASSWORD@HOST/, kafka://HOST:PORT"
)


REDIS_URLS = ("redis://", "rediss://", "unix://")
# One destination of each kind: a broker without access to the keys of one of them should fail at the start.
DESTINATIONS = ("/topic/public", "/topic/room.nobody", "/topic/nobody", "/queue/nobody", "/user/queue/nobody")


def _broker_url(redis: str | None, broker: str | None) -> str:
    """Return the URL on the command line, else `REDIS_URL`, else memory."""
    if redis is not None and broker is not None:
        _fail(_("--redis and --broker mean the same; give one of them"), WRONG_COMMAND_LINE)
    given = broker if broker is not None else redis
    if given is not None:  # an empty one too: an unset variable must not start an instance on its own
        return given.strip()
    if url := os.environ.get("REDIS_URL", "").strip():
        return url
    line = _("no broker given: this instance is on its own and loses all messages when it stops; see --redis")
    print(line, file=sys.stderr)
    return "memory://"


class Kept(NamedTuple):
    """What an engine retains of each topic, and for how many seconds; topics in `lasting` do not expire."""

    max_length: int = 100_000
    max_octets: int = 64 << 20
    max_age: float = 30 * DAY
    expire: float = DAY
    lasting: Sequence[str] = ()
    max_record: int = 64 << 10


def broker_of(
    url: str,
    durability: Durability = Durability.SERVER,
    kept: Kept = Kept(),  # noqa: B008 (it is immutable)
    takeover_after: float = 30.0,
    topics: Sequence[str] = (),
) -> Broker:
    """Return the broker for a URL, not yet connected; `topics` are some that it will serve.

    A wrong URL exits with a line that lists the right ones, or names the wrong part.
    """
    scheme, separator, __ = url.partition("://")
    try:
        if not separator:
            raise ValueError(_("{url!r} is not a URL").format(url=without_password(url)))
        if durability is Durability.FSYNC and not url.startswith(REDIS_URLS):
            line = _("--durability fsync is only for redis://, not for {scheme}://")
            _fail(line.format(scheme=scheme), WRONG_COMMAND_LINE)
        _check_address(scheme, url)
        return _engine(scheme, url, durability, kept, takeover_after, topics)
    except ValueError as error:
        _fail(_("{error}; the brokers are {urls}").format(error=error, urls=BROKER_URLS), WRONG_COMMAND_LINE)
    except SetupError as error:
        _fail(str(error), WRONG_COMMAND_LINE)


def _check_address(scheme: str, url: str) -> None:
    """Raise ValueError for an address that no broker can have. `redis/connections/url.py` checks Redis URLs."""
    if url.startswith((*REDIS_URLS, "redis-pubsub://")):
        return
    parts = urlsplit(url)
    if scheme == "memory" and url.removesuffix("/") != "memory:/":
        raise ValueError(_("memory:// is in this process, and has no address"))
    if scheme.removesuffix("-queues") in ("amqp", "amqps", "kafka") and not parts.netloc.rpartition("@")[2]:
        raise ValueError(_("{scheme}:// names no host").format(scheme=scheme))
    for address in parts.netloc.rpartition("@")[2].split(","):  # Kafka's may be several
        try:
            port = urlsplit(f"//{address}").port
        except ValueError:
            if "@" in url[url.index(parts.netloc) + len(parts.netloc) :]:  # then the "port" is part of a password
                raise ValueError(_("in a password /, ? and # are written %2F, %3F and %23")) from None
            raise
        if port == 0:
            raise ValueError(_("{address} has port 0, where nothing can listen").format(address=address))


def _engine(
    scheme: str, url: str, durability: Durability, kept: Kept, takeover_after: float, topics: Sequence[str]
) -> Broker:
    """Return the engine for a scheme: the only place that names engines. Raises ValueError for an unknown scheme."""
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
            from chatlab.brokers.rabbitmq.streams import RabbitMQStreamsBroker

            return RabbitMQStreamsBroker(url, max_octets=kept.max_octets, max_age=kept.max_age)
        case "amqp-queues" | "amqps-queues":
            from chatlab.brokers.rabbitmq.broker import RabbitMQBroker

            return RabbitMQBroker(url.replace("-queues", "", 1))
        case "kafka":
            from chatlab.brokers.kafka.broker import KafkaBroker

            return KafkaBroker(url)
    raise ValueError(_("no broker is called {scheme!r}").format(scheme=scheme))


if __name__ == "__main__":
    main()
