"""The opening handshake (RFC 6455, section 4): one HTTP request and one HTTP response.

    GET /chat HTTP/1.1                                  HTTP/1.1 101 Switching Protocols
    Host: server.example.com                            Upgrade: websocket
    Upgrade: websocket                                  Connection: Upgrade
    Connection: Upgrade                                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
    Sec-WebSocket-Version: 13

`Request` and `Response` parse and serialize. A client calls `make_request` and then `check_response`; a server calls
`accept`, which raises `HandshakeError` with the status to refuse with, and `refuse`, which builds that response. Every
server of this package checks upgrades with `accept`, and the origin and host of any other request with `check_origin`
and `check_host`.

Left out: the rest of HTTP, such as chunked bodies, redirects, authentication, proxies and cookies.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import platform
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from chatlab.errors import HandshakeError, LocalProtocolError
from chatlab.websocket import deflate
from chatlab.websocket.deflate import Extension, Parameters

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # 1.3: "unlikely to be used by" a server without WebSocket
VERSION = "13"
MAX_START_LINE = 8 * 1024
MAX_HEAD = 32 * 1024
MAX_HEADERS = 128
MAX_BODY = 64 * 1024

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110, 5.5
HOST_NAME = re.compile(r"[0-9a-z._-]+|[0-9a-f:.]+(?:%[0-9a-z._-]+)?")  # in lower case, addresses without brackets
TARGET = re.compile(r"[\x21-\x7e]+")
REQUEST_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/(\d)\.(\d)")  # RFC 9112, 3
STATUS_LINE = re.compile(r"HTTP/1\.(\d) (\d{3})(?: ([\t\x20-\x7e\x80-\xff]*))?")  # RFC 9112, 4
PARAMETER = re.compile(r'\s*;\s*([^\s;,="]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,="]+))\s*)?')

Headers = tuple[tuple[str, str], ...]


# --- Key and accept (1.3) --------------------------------------------------------------------------------------------


def new_key() -> str:
    """Return a Sec-WebSocket-Key: 16 random octets in base64 (4.1, point 7)."""
    return base64.b64encode(os.urandom(16)).decode()


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept that proves the server has read `key` and speaks WebSocket (4.2.2)."""
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


# --- Request and response: parse and serialize ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """The client's request. Header names keep their case; lookups ignore case."""

    target: str
    headers: Headers = ()
    method: str = "GET"
    version: tuple[int, int] = (1, 1)

    @classmethod
    def parse(cls, data: bytes | bytearray) -> tuple[Request, int] | None:
        """Return the request at the start of `data` and its size in octets, or None if it is incomplete.

        Raises `HandshakeError` 400 if it is not HTTP, 414 or 431 if it is too large.
        """
        head = _read_head(data, too_long=HTTPStatus.REQUEST_URI_TOO_LONG)
        if head is None:
            return None
        line, headers, size = head
        match = REQUEST_LINE.fullmatch(line)
        if match is None:
            raise HandshakeError(f"not an HTTP request line: {line[:80]!r}")
        method, target, major, minor = match.groups()
        return cls(target, headers, method, (int(major), int(minor))), size

    def serialize(self) -> bytes:
        """Return the request as octets."""
        return _write_head(f"{self.method} {self.target} HTTP/{self.version[0]}.{self.version[1]}", self.headers)

    def get(self, name: str) -> str | None:
        """Return a header's value, the first one if it is repeated, None if it is missing."""
        return next(iter(get_all(self.headers, name)), None)


@dataclass(frozen=True, slots=True)
class Response:
    """The server's response: 101 accepts, any other status refuses."""

    status: int
    headers: Headers = ()
    reason: str = ""
    body: bytes = b""

    @classmethod
    def parse(cls, data: bytes | bytearray) -> tuple[Response, int] | None:
        """Return the response at the start of `data` and its size in octets, or None if it is incomplete.

        A body is read only if Content-Length gives its length and that is at most 64 KiB.
        """
        head = _read_head(data, too_long=HTTPStatus.BAD_REQUEST)
        if head is None:
            return None
        line, headers, size = head
        match = STATUS_LINE.fullmatch(line)
        if match is None:
            raise HandshakeError(f"not an HTTP status line: {line[:80]!r}")
        status, reason = int(match[2]), match[3] or ""
        end = size + _body_length(status, headers)
        if len(data) < end:
            return None
        return cls(status, headers, reason, bytes(data[size:end])), end

    def serialize(self) -> bytes:
        """Return the response as octets. The headers are sent unchanged: the caller must set Content-Length."""
        reason = self.reason or _phrase(self.status)
        return _write_head(f"HTTP/1.1 {self.status} {reason}", self.headers) + self.body

    def get(self, name: str) -> str | None:
        """Return a header's value, the first one if it is repeated, None if it is missing."""
        return next(iter(get_all(self.headers, name)), None)


def get_all(headers: Headers, name: str) -> list[str]:
    """Return every value of a header, in order. Names are compared case-insensitively."""
    return [value for key, value in headers if key.lower() == name.lower()]


def get_tokens(headers: Headers, name: str) -> list[str]:
    """Return the elements of a comma-separated header from all its lines, in order (RFC 9110, 5.6.1)."""
    elements = ",".join(get_all(headers, name)).split(",")
    return [element.strip() for element in elements if element.strip()]


def _read_head(data: bytes | bytearray, too_long: HTTPStatus) -> tuple[str, Headers, int] | None:
    """Return the start line, the headers and their size in octets, or None until the empty line has arrived."""
    end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
    start_line_end = data.find(b"\r\n", 0, MAX_START_LINE)
    if start_line_end < 0 and len(data) >= MAX_START_LINE:
        raise HandshakeError(f"first line of more than {MAX_START_LINE} bytes", too_long)
    if end < 0:
        if len(data) >= MAX_HEAD:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise HandshakeError(f"headers of more than {MAX_HEAD} bytes", status)
        return None
    # Every octet is a character in Latin-1, so decoding cannot fail; the patterns above define what is allowed.
    line, *lines = data[:end].decode("latin-1").split("\r\n")
    if len(lines) > MAX_HEADERS:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise HandshakeError(f"{len(lines)} headers; at most {MAX_HEADERS} are read", status)
    return line, tuple(_read_header(line) for line in lines), end + 4


def _read_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    # RFC 9112, 5.1 and 5.2: no space before the colon, and no line that continues the previous one
    if not colon or TOKEN.fullmatch(name) is None or FIELD_VALUE.fullmatch(value) is None:
        raise HandshakeError(f"not a header line: {line[:80]!r}")
    return name, value.strip(" \t")


def _write_head(line: str, headers: Headers) -> bytes:
    for name, value in headers:
        if TOKEN.fullmatch(name) is None or FIELD_VALUE.fullmatch(value) is None:
            raise LocalProtocolError(f"not a header: {name!r}: {value!r}")
    lines = [line, *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _body_length(status: int, headers: Headers) -> int:
    if status < 200 or status in (204, 304):  # RFC 9112, 6.3: these never have a body
        return 0
    length = next(iter(get_all(headers, "Content-Length")), "0")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 9 and int(length) <= MAX_BODY else 0


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Unknown"


# --- Sec-WebSocket-Extensions (9.1) ----------------------------------------------------------------------------------


def parse_extensions(headers: Headers) -> list[Extension]:
    """Parse `Sec-WebSocket-Extensions`, which may have several lines; raise `HandshakeError` if it is malformed."""
    text = ",".join(get_all(headers, "Sec-WebSocket-Extensions"))
    found: list[Extension] = []
    at = 0
    while at < len(text):
        if text[at] in ", \t":  # RFC 9110, 5.6.1: empty elements are ignored
            at += 1
            continue
        name = TOKEN.match(text, at)
        if name is None:
            raise HandshakeError(f"Sec-WebSocket-Extensions does not parse at {text[at : at + 40]!r}")
        at = name.end()
        parameters = []
        while parameter := PARAMETER.match(text, at):
            parameters.append(_read_parameter(parameter))
            at = parameter.end()
        found.append(Extension(name[0], tuple(parameters)))
        rest = text[at:].lstrip(" \t")
        if rest and not rest.startswith(","):
            raise HandshakeError(f"Sec-WebSocket-Extensions does not parse at {rest[:40]!r}")
    return found


def _read_parameter(match: re.Match[str]) -> tuple[str, str | None]:
    name, quoted, bare = match.groups()
    value = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    # 9.1: "the value after quoted-string unescaping MUST conform to the 'token' ABNF"
    if TOKEN.fullmatch(name) is None or (value is not None and TOKEN.fullmatch(value) is None):
        raise HandshakeError(f"extension parameter is not a token: {match[0].strip()!r}")
    return name, value


# --- Origin (4.2.2, point 4; 10.2) -----------------------------------------------------------------------------------


def origin_allowed(origin: str | None, host: str | None, allowed: Sequence[str] = ()) -> bool:
    """Tell whether a page of `origin` may open a WebSocket to the server addressed as `host`.

    Browsers send Origin with every upgrade, and pages cannot forge it. A request without it is not from a browser, so
    no visitor's cookies are at stake. The server's own pages are allowed; other pages are allowed if `allowed` has
    their origin (`https://example.org`, `http://localhost:8888`) or "*". "null", the origin of files and sandboxes, is
    never the server's own.

    A page is the server's own if its host is `host` and nobody else can own that host: an IP address, localhost or
    this machine's name. Any other name may belong to an attacker, who makes evil.example resolve to 127.0.0.1 once its
    page is loaded (DNS rebinding): then Origin and Host agree. A server with a public name has its origin in `allowed`.
    """
    if origin is None or "*" in allowed:
        return True
    if origin.lower() in {each.lower().rstrip("/") for each in allowed}:
        return True
    page = _authority(origin)
    if page is None or host is None or page != _authority(f"{origin.partition(':')[0]}://{host}"):
        return False
    return _cannot_be_rebound(page[0])


def check_origin(headers: Headers, allowed: Sequence[str] = ()) -> str | None:
    """Return the Origin of a request, or None without one. Raise `HandshakeError` if its page is not allowed.

    The status is 400 if there are several, 403 if `origin_allowed` returns False.
    """
    hosts, origins = get_all(headers, "Host"), get_all(headers, "Origin")
    if len(hosts) > 1:  # RFC 9112, 3.2: 400 "to any request message that contains more than one Host header field line"
        raise HandshakeError(f"{len(hosts)} Host headers, at most 1 is allowed")
    if len(origins) > 1:  # RFC 6454, 7.3: the client "MUST NOT include more than one Origin header field"
        raise HandshakeError(f"{len(origins)} Origin headers, at most 1 is allowed")
    origin = origins[0] if origins else None
    if not origin_allowed(origin, hosts[0] if hosts else None, allowed):
        # 4.2.2, point 4: "it MUST return an appropriate HTTP error code (e.g., 403 Forbidden)"
        raise HandshakeError(f"pages of {origin!r} may not connect here", HTTPStatus.FORBIDDEN)
    return origin


# --- Host (RFC 9112, 3.2; RFC 9110, 15.5.20) --------------------------------------------------------------------------


def known_names(names: Iterable[str] = (), origins: Iterable[str] = ()) -> frozenset[str]:
    """Return the host names a server accepts: those given, and the hosts of its allowed origins. "*" is any name."""
    hosts = ("*" if each == "*" else _host_of(each) for each in origins)
    return frozenset(filter(None, (*(each.lower().strip("[]").rstrip(".") for each in names), *hosts)))


def check_host(request: Request, names: Collection[str], origins: Sequence[str] = ()) -> None:
    """Raise `HandshakeError` unless the Host of `request` can be this server's.

    A browser puts the name of the page's own server into Host. A page of evil.example, which resolves to this machine
    once the page is loaded (DNS rebinding), could read the response to a plain GET, because such a request has no
    Origin. An IP address or localhost cannot be rebound. Neither can a name without a dot, as containers and machines
    on a local network have, because no page on the internet has one. Any other name must be among `names`.

    The status is 400 for a missing, repeated or invalid Host, 421 for an unknown one; a foreign Origin gets 403 first.
    """
    if "*" in names or (host := _asked_host(request)) is None:
        return
    known = _authority(f"http://{host}")
    name = known[0].rstrip(".") if known is not None else ""
    if HOST_NAME.fullmatch(name) and ("." not in name or _cannot_be_rebound(name) or name in names):
        return
    check_origin(request.headers, origins)
    if not HOST_NAME.fullmatch(name):
        raise HandshakeError(f"Host is {host[:80]!r}, which names no host")
    # RFC 9110, 15.5.20: 421 when a request "was directed at a server that is unable or unwilling to produce an
    # authoritative response for the target URI"
    message = f"this server is not called {name!r}; if it is, start it with --host-name {name}"
    raise HandshakeError(message, HTTPStatus.MISDIRECTED_REQUEST)


def _asked_host(request: Request) -> str | None:
    """Return the host and port that a request names; None if it is allowed to omit them."""
    hosts = get_all(request.headers, "Host")
    if len(hosts) > 1 or (not hosts and request.version >= (1, 1)):
        raise HandshakeError(_not_one("Host", len(hosts)))
    scheme, colon, rest = request.target.partition("://")
    if colon and scheme.lower() in ("http", "https"):  # RFC 9112, 3.2.2: then "MUST ignore the received Host"
        return re.split(r"[/?#]", rest, maxsplit=1)[0]
    return hosts[0] if hosts else None  # HTTP/1.0 has no Host, and no browser uses it


def _host_of(origin: str) -> str:
    known = _authority(origin)
    return known[0] if known is not None else ""


def _cannot_be_rebound(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3: always this machine
        return True
    try:
        ip_address(host)
    except ValueError:
        return host in _own_names()
    return True


@cache
def _own_names() -> frozenset[str]:
    """Return this machine's names on the local network."""
    name = platform.node().lower()
    short = name.partition(".")[0]
    return frozenset({name, short, f"{short}.local"})


def _authority(origin: str) -> tuple[str, int] | None:
    """Return the host and port of an http or https origin, or None if it is not one."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    default = {"http": 80, "https": 443}.get(parts.scheme)
    extra = parts.path or parts.query or parts.fragment or "@" in parts.netloc
    if default is None or not parts.hostname or extra:
        return None
    return parts.hostname, default if port is None else port


# --- The client's side (4.1) -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result of a handshake: the subprotocol and the permessage-deflate parameters, each None if not used."""

    subprotocol: str | None = None
    compression: Parameters | None = None


def make_request(
    url: str,
    *,
    key: str | None = None,
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
    compression: bool = True,
    headers: Headers = (),
) -> Request:
    """Return the upgrade request for a `ws://` or `wss://` URL (4.1, points 1 to 12)."""
    host, target = split_url(url)
    fields = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", new_key() if key is None else key),
        ("Sec-WebSocket-Version", VERSION),
    ]
    if origin is not None:
        fields.append(("Origin", origin))
    if subprotocols:
        fields.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    if compression:
        fields.append(("Sec-WebSocket-Extensions", deflate.offer().serialize()))
    return Request(target, (*fields, *headers))


def split_url(url: str) -> tuple[str, str]:
    """Return the value for Host and the resource name (3): `("example.org:8080", "/chat?room=1")`."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("ws", "wss") and parts.hostname
    except ValueError:
        known = False
    if not known or "#" in url:  # 3: "Fragment identifiers are meaningless in the context of WebSocket URIs"
        raise LocalProtocolError(f"not a WebSocket URL: {url!r}")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if TARGET.fullmatch(target) is None:
        raise LocalProtocolError(f"not a WebSocket URL, some characters need %-escapes: {url!r}")
    return parts.netloc.rpartition("@")[2], target


def check_response(request: Request, response: Response) -> Agreement:
    """Check the server's response to `request` (4.1, "once the client's opening handshake has been sent").

    Raises `HandshakeError` with the rule that it breaks. If the server refused, `status` is the response's.
    """
    if response.status != 101:
        body = response.body[:200].decode("utf-8", "replace").strip()
        raise HandshakeError(
            f"server answered {response.status} {response.reason}: {body}".rstrip(": "), response.status
        )
    upgrade = get_all(response.headers, "Upgrade")
    if [value.lower() for value in upgrade] != ["websocket"]:
        raise HandshakeError(f"Upgrade is {', '.join(upgrade)!r} in the answer, not 'websocket'")
    if "upgrade" not in map(str.lower, get_tokens(response.headers, "Connection")):
        raise HandshakeError(f"Connection is {response.get('Connection')!r} in the answer, without 'Upgrade'")
    expected = accept_key(request.get("Sec-WebSocket-Key") or "")
    accepts = get_all(response.headers, "Sec-WebSocket-Accept")
    if accepts != [expected]:
        raise HandshakeError(f"Sec-WebSocket-Accept is {', '.join(accepts)!r}, not {expected!r}")
    return Agreement(_agreed_subprotocol(request, response), _agreed_compression(request, response))


def _agreed_subprotocol(request: Request, response: Response) -> str | None:
    chosen = get_all(response.headers, "Sec-WebSocket-Protocol")
    if not chosen:
        return None
    # 4.1, point 6: a subprotocol "that was not present in the client's handshake" fails the connection
    if len(chosen) > 1 or chosen[0] not in get_tokens(request.headers, "Sec-WebSocket-Protocol"):
        raise HandshakeError(f"subprotocol {', '.join(chosen)!r} was not asked for")
    return chosen[0]


def _agreed_compression(request: Request, response: Response) -> Parameters | None:
    answers = parse_extensions(response.headers)
    offered = {extension.name for extension in parse_extensions(request.headers)}
    if not answers:
        return None
    # 4.1, point 5: an extension "that was not present in the client's handshake" fails the connection
    if len(answers) > 1 or answers[0].name not in offered:
        raise HandshakeError(f"extension that was not asked for: {', '.join(each.serialize() for each in answers)!r}")
    return deflate.check_answer(answers[0])


# --- The server's side (4.2) -----------------------------------------------------------------------------------------


def accept(
    request: Request,
    *,
    origins: Sequence[str] = (),
    names: Collection[str] = ("*",),
    subprotocols: Sequence[str] = (),
    choose: Callable[[Sequence[str]], str | None] | None = None,
    compression: bool = True,
) -> tuple[Response, Agreement]:
    """Return the 101 that accepts `request`, or raise `HandshakeError` with the status that refuses it.

    `names` are the host names from `known_names`; by default any is accepted. `subprotocols` are the server's, in order
    of preference; with none in common, the connection has no subprotocol (4.2.2, point 5). Alternatively, `choose` is
    called with the client's subprotocols, in the client's order.
    """
    check_host(request, names, origins)
    check_request(request, origins)
    fields = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(request.get("Sec-WebSocket-Key") or "")),
    ]
    asked = _asked_subprotocols(request)
    subprotocol = choose(asked) if choose is not None else best_of_ours(asked, subprotocols)
    if subprotocol is not None:
        fields.append(("Sec-WebSocket-Protocol", subprotocol))
    offers = parse_extensions(request.headers)
    granted = deflate.accept(offers) if compression else None
    if granted is not None:
        fields.append(("Sec-WebSocket-Extensions", granted[0].serialize()))
    return Response(101, tuple(fields)), Agreement(subprotocol, granted[1] if granted else None)


def asks_for_websocket(headers: Headers) -> bool:
    """Tell whether a request asks for an upgrade to WebSocket, well-formed or not."""
    return "websocket" in map(str.lower, get_tokens(headers, "Upgrade"))


def upgrades_the_connection(headers: Headers) -> bool:
    """Tell whether the Connection header names Upgrade; without it, a proxy would drop the Upgrade header (4.2.1)."""
    return "upgrade" in map(str.lower, get_tokens(headers, "Connection"))


def check_request(request: Request, origins: Sequence[str] = ()) -> None:
    """Raise `HandshakeError` with the first rule of 4.2.1 that `request` breaks, in the order of that list."""
    _check_http(request)
    _check_upgrade(request)
    _check_key(request)
    _check_version(request)
    check_origin(request.headers, origins)


def _check_http(request: Request) -> None:
    if request.version < (1, 1):
        raise HandshakeError(f"HTTP/{request.version[0]}.{request.version[1]} cannot be upgraded; HTTP/1.1 can")
    if request.version >= (2, 0):
        raise HandshakeError(f"HTTP/{request.version[0]} is not spoken here", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    # RFC 9112, 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
    # lacks a Host header field", whatever its method.
    if (count := len(get_all(request.headers, "Host"))) != 1:
        raise HandshakeError(_not_one("Host", count))
    if request.method != "GET":
        raise HandshakeError(f"method is {request.method}, not GET", HTTPStatus.METHOD_NOT_ALLOWED, (("Allow", "GET"),))
    if not request.target.startswith(("/", "http://", "https://")) or "#" in request.target:
        path = request.target.partition("?")[0]  # the query may hold a secret, and refusals are logged
        raise HandshakeError(f"target {path!r} is neither a path nor an http URL")
    if get_all(request.headers, "Transfer-Encoding") or request.get("Content-Length") not in (None, "0"):
        # The body would be parsed as frames.
        raise HandshakeError("a handshake has no body", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def _not_one(name: str, count: int) -> str:
    """Return what is wrong with a header that has to be there once."""
    return f"{count} {name} headers, not 1" if count else f"there is no {name} header"


def _check_upgrade(request: Request) -> None:
    upgrade = (("Upgrade", "websocket"),)  # RFC 9110, 15.5.22: a 426 names the protocol to upgrade to
    if not asks_for_websocket(request.headers):
        asked = request.get("Upgrade")
        what = "there is no Upgrade header" if asked is None else f"Upgrade is {asked!r}, not 'websocket'"
        raise HandshakeError(f"{what}: this address speaks WebSocket only", HTTPStatus.UPGRADE_REQUIRED, upgrade)
    if not upgrades_the_connection(request.headers):
        named = request.get("Connection")
        missing = "there is no Connection header, which names 'Upgrade'"
        message = missing if named is None else f"Connection is {named!r}, without 'Upgrade'"
        raise HandshakeError(message, HTTPStatus.UPGRADE_REQUIRED, upgrade)


def _check_key(request: Request) -> None:
    keys = get_all(request.headers, "Sec-WebSocket-Key")
    if len(keys) != 1:  # 11.3.1: "MUST NOT appear more than once in an HTTP request"
        raise HandshakeError(_not_one("Sec-WebSocket-Key", len(keys)))
    try:
        nonce = base64.b64decode(keys[0], validate=True)
    except (binascii.Error, ValueError):
        raise HandshakeError(f"Sec-WebSocket-Key is not base64: {keys[0]!r}") from None
    if len(nonce) != 16:  # 4.2.1, point 5
        raise HandshakeError(f"Sec-WebSocket-Key holds {len(nonce)} bytes, not 16: {keys[0]!r}")


def _check_version(request: Request) -> None:
    versions = get_all(request.headers, "Sec-WebSocket-Version")
    if len(versions) != 1:  # 11.3.5: "MUST NOT appear more than once in an HTTP request"
        raise HandshakeError(_not_one("Sec-WebSocket-Version", len(versions)))
    if versions[0] != VERSION:
        # 4.4: the response names the versions "the server is capable of understanding"
        fields = (("Sec-WebSocket-Version", VERSION), ("Upgrade", "websocket"))
        raise HandshakeError(
            f"WebSocket version {versions[0]!r}; only 13 is spoken", HTTPStatus.UPGRADE_REQUIRED, fields
        )


def _asked_subprotocols(request: Request) -> list[str]:
    asked = get_tokens(request.headers, "Sec-WebSocket-Protocol")
    for name in asked:
        if TOKEN.fullmatch(name) is None:
            raise HandshakeError(f"subprotocol {name!r} is not a token")
    if len(set(asked)) != len(asked):  # 4.1, point 10: "MUST all be unique strings"
        raise HandshakeError(f"subprotocol asked for twice: {', '.join(asked)}")
    return asked


def best_of_ours(asked: Sequence[str], ours: Sequence[str]) -> str | None:
    """Return the first of our subprotocols that the client asks for, or None: the server chooses (4.2.2)."""
    return next((name for name in ours if name in asked), None)


def refuse(error: HandshakeError) -> Response:
    """Return the response that refuses a request, after which the server closes the TCP connection."""
    body = f"{error}\n".encode()
    fields = (
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        *error.headers,
    )
    return Response(int(error.status), fields, body=body)
