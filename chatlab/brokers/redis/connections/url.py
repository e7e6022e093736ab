"""What a Redis URL may contain, for every connection that chatlab makes to a Redis.

    redis://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE
    rediss://…                                     the same over TLS
    unix://USER:PASSWORD@/PATH/TO/SOCKET?db=DATABASE

Each part may be left out. redis-py accepts any option of its constructors, and the URL overrides the code. Here an
option is used, or ignored with a warning because chatlab has its own setting for it, or refused. Left out: finding out
whether a server is there (`redis/connections/server.py`).
"""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from ssl import TLSVersion
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_ssl_verify_flags,
)
from redis.exceptions import RedisError

from chatlab.errors import SetupError, WrongAddress
from chatlab.urls import without_password

Pool = TypeVar("Pool", bound=ConnectionPool)

CONNECTIONS: Mapping[str, type[AbstractConnection]] = {
    "redis": Connection,
    "rediss": SSLConnection,
    "unix": UnixDomainSocketConnection,
}
ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[^:]*))?")
ENCODED = "in a user's name or a password write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, [ as %5B, % as %25"


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A parsed URL: `name` for logs, `url` to connect to, without the options that `warning` names."""

    name: str
    url: str
    warning: str  # "" if no option is ignored
    kind: type[AbstractConnection]
    options: Mapping[str, Any]  # for the constructor of that kind of connection

    @property
    def user(self) -> str:
        """Return the user we log in as."""
        return str(self.options.get("username", "default"))

    def pool(self, pool: type[Pool], ours: Mapping[str, Any]) -> Pool:
        """Return a pool of connections to this server. `ours` are arguments of redis-py that override the URL's."""
        return pool(connection_class=self.kind, **{**self.options, **ours})


@lru_cache(8)  # a broker opens several connections to one URL, and reading certificates is slow
def parse(url: str) -> RedisUrl:
    """Parse a Redis URL. Raises SetupError that names the option at fault, or WrongAddress."""
    name = without_password(url)
    scheme, _, rest = url.strip().partition("://")
    if scheme not in CONNECTIONS:
        raise WrongAddress(f"not a Redis URL: {name}", "use redis://, rediss:// or unix://")
    head, _, query = rest.partition("?")
    authority, slash, path = head.partition("/")
    if "#" in rest or ("@" in path and authority) or ("@" in query and "=" not in query.partition("@")[0]):
        raise WrongAddress(f"cannot tell where the password ends in {name}", ENCODED)
    user_info, at, address = authority.rpartition("@")
    user, _, password = user_info.partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    found |= _socket(name, address, slash + path) if scheme == "unix" else _host(name, address) | _database(name, path)
    used, ignored = _options(name, scheme, query, found)
    options = {option: value for option, value in {**found, **used}.items() if value != ""}
    _check_certificates(name, scheme, options)
    if ignored or (scheme != "unix" and "db" in used):
        url = _rewritten(scheme, f"{user_info}{at}{address}", path, used, query)
    warning = f"ignored in {name}: {'; '.join(ignored)}" if ignored else ""
    return RedisUrl(name, url.strip(), warning, CONNECTIONS[scheme], options)


def in_database(url: str, number: int) -> str:
    """Return the URL of another database of the same server."""
    head, question, query = parse(url).url.partition("?")
    if not head.startswith("unix://"):
        scheme, _, rest = head.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}/{number}{question}{query}"
    kept = [(option, value) for option, value in parse_qsl(query) if option != "db"]
    return f"{head}?{urlencode([*kept, ('db', number)], quote_via=quote)}"


def _host(name: str, address: str) -> dict[str, Any]:
    parts = ADDRESS.fullmatch(address)
    if parts is None:
        remedy = f"put an IPv6 address in brackets, redis://[::1]:6379; {ENCODED}"
        raise WrongAddress(f"no host and port in {name}", remedy)
    port = parts["port"] or "6379"
    if not (port.isascii() and port.isdecimal()):
        remedy = f"the form is redis://USER:PASSWORD@HOST:PORT/0; {ENCODED}"
        raise WrongAddress(f"the port is not a number in {name}", remedy)
    if not 0 < int(port) < 65536:
        raise WrongAddress(f"Port out of range 1-65535: {port} in {name}", "the default is 6379")
    host = unquote(parts["ipv6"] or parts["host"] or "localhost")
    try:
        host.encode("idna")
    except UnicodeError as error:
        remedy = "the form is redis://USER:PASSWORD@HOST:PORT/0"
        raise WrongAddress(f"invalid host name in {name}: {error}", remedy) from None
    return {"host": host, "port": int(port)}


def _database(name: str, path: str) -> dict[str, Any]:
    number = unquote(path).removesuffix("/")
    if not number:
        return {}
    if not (number.isascii() and number.isdecimal()):
        raise SetupError(f"the database is not a number in {name}: {number!r}", "write /0, /1 …; the default is /0")
    return {"db": int(number)}


def _socket(name: str, address: str, path: str) -> dict[str, Any]:
    if address or len(path) < 2:
        raise WrongAddress(f"no absolute path to a socket in {name}", "the form is unix:///run/redis/redis.sock?db=0")
    return {"path": unquote(path)}


# The options. A check converts the text to the value, or raises ValueError.

Check = Callable[[str], Any]


def _true_or_false(text: str) -> bool:
    if text.lower() in {"1", "t", "true", "y", "yes", "on"}:
        return True
    if text.lower() in {"0", "f", "false", "n", "no", "off"}:
        return False
    raise ValueError


def _number(least: int) -> Check:
    def check(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and int(text) >= least):
            raise ValueError
        return int(text)

    return check


def _seconds(text: str) -> float:
    if not 0 <= (seconds := float(text)) < float("inf"):
        raise ValueError
    return seconds


def _one_word(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):  # CLIENT SETNAME takes no spaces, newlines or special characters
        raise ValueError
    return text


def _file(text: str) -> str:
    if not Path(text).exists():
        raise ValueError
    return text


def _tls_version(text: str) -> TLSVersion:
    return TLSVersion[text.replace(".", "_")] if text.startswith("TLSv") else TLSVersion(int(text))


def _one_of(*words: str) -> Check:
    return lambda text: words[words.index(text)]


class Option(NamedTuple):
    """What the value must be, and why it is ignored ("" if it is used); a value equal to `ours` needs no warning."""

    check: Check
    must_be: str
    why_not: str = ""
    ours: Any = None


TRUE_OR_FALSE = "true or false"
SECONDS = "a number of seconds"
SILENCE = "chatlab has its own limits for a silent server"
TLS_OPTIONS = {
    "ssl_cert_reqs": Option(_one_of("none", "optional", "required"), "none, optional or required"),
    "ssl_check_hostname": Option(_true_or_false, TRUE_OR_FALSE),
    "ssl_ca_certs": Option(_file, "an existing file"),
    "ssl_ca_path": Option(_file, "an existing folder"),
    "ssl_ca_data": Option(str, "certificates"),
    "ssl_certfile": Option(_file, "an existing file"),
    "ssl_keyfile": Option(_file, "an existing file"),
    "ssl_password": Option(str, "a password"),
    "ssl_ciphers": Option(str, "names of ciphers"),
    "ssl_min_version": Option(_tls_version, "TLSv1.2 or TLSv1.3"),
    "ssl_include_verify_flags": Option(parse_ssl_verify_flags, "names such as VERIFY_X509_STRICT"),
    "ssl_exclude_verify_flags": Option(parse_ssl_verify_flags, "names such as VERIFY_X509_STRICT"),
}
OPTIONS = {
    "db": Option(_number(0), "a number, 0 or more"),
    "username": Option(str, "a user's name"),
    "password": Option(str, "a password"),
    "client_name": Option(_one_word, "one word of printable ASCII"),
    "socket_keepalive": Option(_true_or_false, TRUE_OR_FALSE),
    "socket_read_size": Option(_number(1), "a number of bytes"),
    "protocol": Option(_number(2), "2 or 3", "chatlab needs RESP version 3", 3),
    "decode_responses": Option(_true_or_false, TRUE_OR_FALSE, "chatlab decodes replies itself", False),
    "legacy_responses": Option(_true_or_false, TRUE_OR_FALSE, "chatlab reads replies itself", True),
    "encoding": Option(lambda name: codecs.lookup(name).name, "the name of an encoding", "it is UTF-8", "utf-8"),
    "encoding_errors": Option(str, "strict", "it is strict", "strict"),
    "socket_timeout": Option(_seconds, SECONDS, SILENCE),
    "socket_connect_timeout": Option(_seconds, SECONDS, SILENCE),
    "health_check_interval": Option(_seconds, SECONDS, SILENCE),
    "timeout": Option(_seconds, SECONDS, SILENCE),
    "retry_on_timeout": Option(_true_or_false, TRUE_OR_FALSE, "chatlab retries whenever that is safe"),
    "max_connections": Option(_number(1), "a number, 1 or more", "chatlab opens as many as it needs"),
    "lib_name": Option(str, "a name", "it is redis-py"),
    "lib_version": Option(str, "a version", "it is redis-py's"),
    "ssl": Option(_true_or_false, "true with rediss://, false with redis://"),
}


def _options(name: str, scheme: str, query: str, found: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the options to use, with their values, and those to ignore, with the reason."""
    used: dict[str, Any] = {}
    ignored: list[str] = []
    seen: dict[str, str] = {}
    for option, text in parse_qsl(query, keep_blank_values=True):
        known = _known(name, scheme, option)
        value = _value(name, option, text, known)
        if seen.setdefault(option, text) != text or found.get(option, value) not in (value, ""):
            raise SetupError(f"the option {option} has two values in {name}", "remove one of them")
        if option == "ssl":
            if value != (scheme == "rediss"):
                raise SetupError(f"the option ssl contradicts {scheme}:// in {name}", "rediss:// is Redis over TLS")
        elif not known.why_not:
            used[option] = value
        elif value != known.ours:
            ignored.append(f"{option} ({known.why_not})")
    return used, list(dict.fromkeys(ignored))


def _known(name: str, scheme: str, option: str) -> Option:
    if option in TLS_OPTIONS and scheme != "rediss":
        raise SetupError(f"the option {option} is only for rediss://, not for {name}", "rediss:// is Redis over TLS")
    if known := (OPTIONS | TLS_OPTIONS).get(option):
        return known
    allowed = [*OPTIONS, *(TLS_OPTIONS if scheme == "rediss" else ())]
    near = difflib.get_close_matches(option.lower(), allowed, 1)
    remedy = f"did you mean {near[0]}?" if near else f"the options are {', '.join(allowed)}"
    raise SetupError(f"unknown option {option[:40]!r} in {name}", remedy)


def _value(name: str, option: str, text: str, known: Option) -> Any:
    try:
        value = known.check(text)
        if text == "" or (option == "protocol" and value > 3):
            raise ValueError
    except (ValueError, LookupError):
        given = "" if "password" in option else f", not {text[:60]!r},"
        raise SetupError(f"the option {option} must be {known.must_be}{given} in {name}") from None
    return value


def _check_certificates(name: str, scheme: str, options: Mapping[str, Any]) -> None:
    """Refuse a key that does not match its certificate now, not at each attempt to connect."""
    given = {option: value for option, value in options.items() if option in TLS_OPTIONS}
    if scheme == "rediss" and given:
        try:
            SSLConnection(**given).ssl_context.get()
        except (OSError, ValueError, TypeError, RedisError) as error:
            remedy = "check that the files, the password and the ciphers match"
            raise SetupError(f"the options {', '.join(given)} do not work in {name}: {error}", remedy) from error


def _rewritten(scheme: str, authority: str, path: str, used: Mapping[str, Any], query: str) -> str:
    """The URL with the options that are used, and with the database where it belongs."""
    kept = {option: text for option, text in parse_qsl(query) if option in used}
    if scheme != "unix" and "db" in kept:
        path = kept.pop("db")
    asked = urlencode(kept, quote_via=quote)
    return f"{scheme}://{authority}/{path}" + (f"?{asked}" if asked else "")
