from __future__ import annotations

import base64
import platform
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.protocol import State as LibraryState
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from chatlab.errors import HandshakeError, LocalProtocolError
from chatlab.websocket.deflate import Parameters
from chatlab.websocket.handshake import (
    MAX_HEAD,
    Agreement,
    Headers,
    Request,
    Response,
    accept,
    accept_key,
    best_of_ours,
    check_response,
    get_tokens,
    make_request,
    new_key,
    origin_allowed,
    parse_extensions,
    refuse,
    split_url,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

# The request and the answer of RFC 6455, 1.3.
REQUEST = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Origin: http://example.com\r\n"
    b"Sec-WebSocket-Protocol: chat, superchat\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Sec-WebSocket-Protocol: chat\r\n"
    b"\r\n"
)


def read_request(data: bytes) -> Request:
    parsed = Request.parse(data)
    assert parsed is not None
    return parsed[0]


def read_response(data: bytes) -> Response:
    parsed = Response.parse(data)
    assert parsed is not None
    return parsed[0]


def request_with(
    *, without: str = "", method: str = "GET", target: str = "/chat", version: tuple[int, int] = (1, 1), **fields: str
) -> Request:
    """The request of the RFC without Origin; a field named `Sec_WebSocket_Key` replaces the header of that name."""
    changed = {name.replace("_", "-"): value for name, value in fields.items()}
    headers: Headers = (
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    )
    kept = tuple((name, value) for name, value in headers if name != without and name not in changed)
    return Request(target, kept + tuple(changed.items()), method, version)


def refused(request: Request, origins: tuple[str, ...] = ()) -> HandshakeError:
    with pytest.raises(HandshakeError) as raised:
        accept(request, origins=origins)
    return raised.value


class TestKey:
    def test_the_accept_key_of_the_rfc(self) -> None:
        assert accept_key(KEY) == ACCEPT

    def test_a_new_key_is_16_octets_in_base64_and_another_each_time(self) -> None:
        keys = {new_key() for _ in range(20)}
        assert len(keys) == 20
        assert {len(base64.b64decode(key)) for key in keys} == {16}


class TestParseAndSerialize:
    def test_the_request_of_the_rfc(self) -> None:
        request = read_request(REQUEST)
        assert (request.method, request.target, request.version) == ("GET", "/chat", (1, 1))
        assert request.get("sec-websocket-KEY") == KEY
        assert request.get("Cookie") is None
        assert request.serialize() == REQUEST

    def test_the_response_of_the_rfc(self) -> None:
        response = read_response(RESPONSE)
        assert (response.status, response.reason, response.body) == (101, "Switching Protocols", b"")
        assert response.serialize() == RESPONSE

    @pytest.mark.parametrize(("data", "parse"), [(REQUEST, Request.parse), (RESPONSE, Response.parse)])
    def test_nothing_is_read_until_the_last_octet_is_there_and_what_follows_is_left(
        self, data: bytes, parse: Callable
    ) -> None:
        assert {parse(data[:end]) for end in range(len(data))} == {None}
        assert parse(data + b"\x81\x00")[1] == len(data)
        assert parse(bytearray(data)) == parse(data)

    def test_a_body_is_read_by_its_length(self) -> None:
        data = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nnever"
        assert {Response.parse(data[:end]) for end in range(len(data))} == {None}
        assert Response.parse(data + b"more") == (
            Response(403, (("Content-Length", "5"),), "Forbidden", b"never"),
            len(data),
        )

    @pytest.mark.parametrize("length", [b"x", b"-1", b"99999999999999999999", b"70000", "٣".encode()])
    def test_an_invalid_or_too_large_content_length_means_no_body(self, length: bytes) -> None:
        response = read_response(b"HTTP/1.1 500 Oops\r\nContent-Length: " + length + b"\r\n\r\nnever")
        assert response.body == b""

    def test_a_status_line_may_lack_its_reason(self) -> None:
        assert read_response(b"HTTP/1.1 101\r\n\r\n") == Response(101)
        assert read_response(b"HTTP/1.1 101 \r\n\r\n") == Response(101)

    def test_space_around_a_value_is_not_part_of_it(self) -> None:
        assert read_request(b"GET / HTTP/1.1\r\nHost:\t a b \r\nX:\r\n\r\n").headers == (("Host", "a b"), ("X", ""))

    @pytest.mark.parametrize(
        "data",
        [
            b"GET /\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/11\r\n\r\n",
            b"G@T / HTTP/1.1\r\n\r\n",
            b"GET /\xed\x95\x9c HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
            b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost\r\n\r\n",
            b"GET / HTTP/1.1\r\n: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        ],
    )
    def test_what_is_not_http_is_refused_with_400(self, data: bytes) -> None:
        with pytest.raises(HandshakeError) as raised:
            Request.parse(data)
        assert raised.value.status == 400

    @pytest.mark.parametrize("data", [b"HTTP/2 200\r\n\r\n", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 1x1 No\r\n\r\n"])
    def test_an_answer_that_is_not_http_is_refused(self, data: bytes) -> None:
        with pytest.raises(HandshakeError, match="not an HTTP status line"):
            Response.parse(data)

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"GET /" + b"a" * 8192, 414),
            (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n\r\n", 414),
            (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD, 431),
            (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD + b"\r\n\r\n", 431),
            (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 129 + b"\r\n", 431),
        ],
    )
    def test_an_oversized_head_is_refused_before_it_is_complete(self, data: bytes, status: int) -> None:
        with pytest.raises(HandshakeError) as raised:
            Request.parse(data)
        assert raised.value.status == status

    @pytest.mark.parametrize("headers", [(("X", "a\r\nY: b"),), (("X Y", "a"),), (("", "a"),), (("X", "한"),)])
    def test_a_header_that_would_break_the_message_is_not_written(self, headers: Headers) -> None:
        with pytest.raises(LocalProtocolError, match="not a header"):
            Request("/", headers).serialize()

    def test_a_list_may_come_in_several_lines(self) -> None:
        headers = (("Connection", "keep-alive, ,"), ("connection", "Upgrade"))
        assert get_tokens(headers, "Connection") == ["keep-alive", "Upgrade"]

    @given(st.binary(max_size=200))
    def test_any_octets_are_a_request_or_are_refused(self, data: bytes) -> None:
        for octets in (data, b"GET / HTTP/1.1\r\n" + data + b"\r\n\r\n"):
            try:
                Request.parse(octets)
                Response.parse(octets)
            except HandshakeError as error:
                assert error.status in (400, 414, 431)


class TestExtensions:
    @pytest.mark.parametrize(
        ("text", "read"),
        [
            ("", []),
            ("foo", [("foo", ())]),
            ("foo, bar; baz=2", [("foo", ()), ("bar", (("baz", "2"),))]),
            (
                ' foo ; a ; b = 1 ,, bar;c="q\\uoted" ,',
                [("foo", (("a", None), ("b", "1"))), ("bar", (("c", "quoted"),))],
            ),
        ],
    )
    def test_the_list_of_9_1(self, text: str, read: list[tuple[str, tuple]]) -> None:
        found = parse_extensions((("Sec-WebSocket-Extensions", text),))
        assert [(extension.name, extension.parameters) for extension in found] == read

    def test_it_may_come_in_several_lines(self) -> None:
        headers = (("Sec-WebSocket-Extensions", "foo"), ("sec-websocket-extensions", "bar"))
        assert [extension.name for extension in parse_extensions(headers)] == ["foo", "bar"]

    @pytest.mark.parametrize(
        "text", [";", "foo bar", "foo;", "foo; a=", "foo; =1", 'foo; a="b', 'foo; a="b c"', "foo; a=(", "@"]
    )
    def test_malformed_extensions_are_refused(self, text: str) -> None:
        with pytest.raises(HandshakeError, match=r"does not parse|not a token"):
            parse_extensions((("Sec-WebSocket-Extensions", text),))


class TestAccept:
    def test_the_answer_of_the_rfc(self) -> None:
        response, agreement = accept(read_request(REQUEST), origins=["http://example.com"], subprotocols=["chat"])
        assert response.serialize() == RESPONSE
        assert agreement == Agreement("chat", None)

    @pytest.mark.parametrize(
        "request_",
        [
            request_with(Upgrade="WebSocket"),
            request_with(Upgrade="h2c, websocket"),
            request_with(Connection="keep-alive, upgrade"),
            request_with(target="http://server.example.com/chat?a=b"),
            request_with(version=(1, 2)),
            request_with(Content_Length="0"),
        ],
    )
    def test_variations_that_the_rfc_allows_are_accepted(self, request_: Request) -> None:
        assert accept(request_)[0].status == 101

    @pytest.mark.parametrize(
        ("request_", "status", "message"),
        [
            (request_with(version=(1, 0)), 400, "HTTP/1.0 cannot be upgraded; HTTP/1.1 can"),
            (request_with(version=(2, 0)), 505, "HTTP/2 is not spoken here"),
            (request_with(method="POST"), 405, "method is POST, not GET"),
            (request_with(method="HEAD"), 405, "method is HEAD, not GET"),
            (request_with(method="POST", without="Host"), 400, "there is no Host header"),
            (request_with(target="*"), 400, "target '*' is neither a path nor an http URL"),
            (request_with(target="/a#b"), 400, "target '/a#b' is neither a path nor an http URL"),
            (request_with(without="Host"), 400, "there is no Host header"),
            (request_with(host="b"), 400, "2 Host headers, not 1"),
            (request_with(Content_Length="5"), 413, "a handshake has no body"),
            (request_with(Transfer_Encoding="chunked"), 413, "a handshake has no body"),
            (
                request_with(without="Upgrade"),
                426,
                "there is no Upgrade header: this address speaks WebSocket only",
            ),
            (request_with(Upgrade="h2c"), 426, "Upgrade is 'h2c', not 'websocket': this address speaks WebSocket only"),
            (request_with(without="Connection"), 426, "there is no Connection header, which names 'Upgrade'"),
            (request_with(Connection="keep-alive"), 426, "Connection is 'keep-alive', without 'Upgrade'"),
            (request_with(without="Sec-WebSocket-Key"), 400, "there is no Sec-WebSocket-Key header"),
            (request_with(sec_websocket_key=KEY), 400, "2 Sec-WebSocket-Key headers, not 1"),
            (request_with(Sec_WebSocket_Key="*"), 400, "Sec-WebSocket-Key is not base64: '*'"),
            (request_with(Sec_WebSocket_Key="é"), 400, "Sec-WebSocket-Key is not base64: 'é'"),
            (request_with(Sec_WebSocket_Key="c2hvcnQ="), 400, "Sec-WebSocket-Key holds 5 bytes, not 16: 'c2hvcnQ='"),
            (request_with(without="Sec-WebSocket-Version"), 400, "there is no Sec-WebSocket-Version header"),
            (request_with(sec_websocket_version="13"), 400, "2 Sec-WebSocket-Version headers, not 1"),
            (request_with(Sec_WebSocket_Version="8"), 426, "WebSocket version '8'; only 13 is spoken"),
            (request_with(Origin="http://evil.example"), 403, "pages of 'http://evil.example' may not connect here"),
            (request_with(Sec_WebSocket_Protocol="a b"), 400, "subprotocol 'a b' is not a token"),
            (request_with(Sec_WebSocket_Protocol="a, b, a"), 400, "subprotocol asked for twice: a, b, a"),
            (request_with(Sec_WebSocket_Extensions="a b"), 400, "Sec-WebSocket-Extensions does not parse at 'b'"),
        ],
    )
    def test_each_broken_rule_has_its_status_and_message(self, request_: Request, status: int, message: str) -> None:
        error = refused(request_)
        assert (error.status, str(error)) == (status, message)
        answer = read_response(refuse(error).serialize())
        assert answer.status == status
        assert answer.body.decode() == f"{message}\n"
        assert answer.get("Connection") == "close"

    def test_an_unsupported_version_is_answered_with_the_supported_one(self) -> None:
        answer = refuse(refused(request_with(Sec_WebSocket_Version="25")))
        assert answer.serialize().startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
        assert answer.get("Sec-WebSocket-Version") == "13"
        assert answer.get("Upgrade") == "websocket"

    def test_a_plain_get_is_answered_with_426_and_the_protocol(self) -> None:
        assert refuse(refused(request_with(without="Upgrade"))).get("Upgrade") == "websocket"

    def test_another_method_is_answered_with_the_allowed_one(self) -> None:
        assert refuse(refused(request_with(method="POST"))).get("Allow") == "GET"

    def test_a_refusal_in_another_script_is_sent_as_utf8(self) -> None:
        answer = refuse(HandshakeError("안 돼요", 403))
        assert read_response(answer.serialize()).body.decode() == "안 돼요\n"

    @pytest.mark.parametrize(
        ("asked", "ours", "chosen"),
        [
            ("chat, superchat", ["superchat", "chat"], "superchat"),
            ("chat", ["superchat"], None),
            ("chat", [], None),
            ("Chat", ["chat"], None),  # 4.1: the comparison is case-sensitive
        ],
    )
    def test_the_servers_first_requested_subprotocol_is_chosen(
        self, asked: str, ours: list[str], chosen: str | None
    ) -> None:
        response, agreement = accept(request_with(Sec_WebSocket_Protocol=asked), subprotocols=ours)
        assert agreement.subprotocol == chosen == response.get("Sec-WebSocket-Protocol")
        assert best_of_ours(asked.split(", "), ours) == chosen

    def test_an_unknown_extension_is_declined_silently(self) -> None:
        response, agreement = accept(request_with(Sec_WebSocket_Extensions="x-foo; bar=1"))
        assert agreement.compression is None
        assert response.get("Sec-WebSocket-Extensions") is None

    def test_compression_is_agreed_on_with_its_parameters_or_declined(self) -> None:
        request = request_with(Sec_WebSocket_Extensions="x-foo, permessage-deflate; server_max_window_bits=10")
        response, agreement = accept(request)
        assert response.get("Sec-WebSocket-Extensions") == "permessage-deflate; server_max_window_bits=10"
        assert agreement.compression == Parameters(server_max_window_bits=10)
        assert accept(request, compression=False)[1].compression is None


class TestOrigin:
    @pytest.mark.parametrize(
        ("origin", "host", "allowed"),
        [
            (None, "example.org", ()),
            (None, None, ()),
            ("http://192.0.2.7", "192.0.2.7", ()),
            ("http://192.0.2.7:80", "192.0.2.7", ()),
            ("https://192.0.2.7", "192.0.2.7:443", ()),
            ("http://localhost:8888", "localhost:8888", ()),
            ("http://LOCALHOST", "localHost", ()),
            ("http://chat.localhost", "chat.localhost", ()),
            (f"http://{platform.node()}:8888", f"{platform.node()}:8888", ()),
            ("http://example.org", "example.org", ("http://example.org",)),
            ("http://[::1]:8000", "[::1]:8000", ()),
            ("https://chat.example", "example.org", ("https://chat.example",)),
            ("https://chat.example", None, ("https://other.example", "https://Chat.Example/")),
            ("https://anyone.example", "example.org", ("*",)),
            ("null", "example.org", ("*",)),
            ("null", "example.org", ("null",)),
        ],
    )
    def test_allowed(self, origin: str | None, host: str | None, allowed: tuple[str, ...]) -> None:
        assert origin_allowed(origin, host, allowed)

    @pytest.mark.parametrize(
        ("origin", "host", "allowed"),
        [
            ("http://evil.example", "example.org", ()),
            ("http://evil.example", None, ()),
            ("http://evil.example", "evil.example", ()),  # and evil.example resolves to this server
            ("http://evil.example:8888", "evil.example:8888", ("http://localhost:8888",)),
            ("http://notlocalhost", "notlocalhost", ()),
            ("http://localhost:8080", "localhost", ()),
            ("http://localhost", "localhost:8080", ()),
            ("http://example.org.evil.example", "example.org", ()),
            ("http://evil.example", "example.org", ("https://evil.example", "http://evil.example:81")),
            ("http://user@localhost", "localhost", ()),
            ("http://localhost/path", "localhost", ()),
            ("http://localhost", "localhost/x", ()),
            ("ws://localhost", "localhost", ()),
            ("null", "example.org", ()),
            ("null", "null", ()),
            ("", "", ()),
            ("http://", "", ()),
            ("http://a:port", "a:port", ()),
            ("http://[", "[", ()),
        ],
    )
    def test_not_allowed(self, origin: str, host: str | None, allowed: tuple[str, ...]) -> None:
        assert not origin_allowed(origin, host, allowed)


class TestMakeRequest:
    def test_the_request_of_the_rfc(self) -> None:
        request = make_request(
            "ws://server.example.com/chat",
            key=KEY,
            origin="http://example.com",
            subprotocols=["chat", "superchat"],
            compression=False,
        )
        assert sorted(request.headers) == sorted(read_request(REQUEST).headers)
        assert request.serialize().splitlines()[0] == b"GET /chat HTTP/1.1"

    @pytest.mark.parametrize(
        ("url", "host", "target"),
        [
            ("ws://example.org", "example.org", "/"),
            ("ws://example.org?a=b", "example.org", "/?a=b"),
            ("wss://user:pw@example.org:8443/a/b?c=d", "example.org:8443", "/a/b?c=d"),
            ("ws://[::1]:80/", "[::1]:80", "/"),
        ],
    )
    def test_a_url_is_a_host_and_a_target(self, url: str, host: str, target: str) -> None:
        assert split_url(url) == (host, target)

    @pytest.mark.parametrize(
        "url", ["http://a/", "ws:///a", "ws://a/#b", "ws://a#", "ws://[/", "a", "ws://a/한", "ws://a/b c"]
    )
    def test_an_invalid_websocket_url_is_refused(self, url: str) -> None:
        with pytest.raises(LocalProtocolError, match="not a WebSocket URL"):
            make_request(url)

    def test_each_request_has_a_new_key(self) -> None:
        assert make_request("ws://a/").get("Sec-WebSocket-Key") != make_request("ws://a/").get("Sec-WebSocket-Key")

    def test_a_request_may_have_further_headers(self) -> None:
        assert make_request("ws://a/", headers=(("Cookie", "a=b"),)).get("cookie") == "a=b"


def response_with(*more: tuple[str, str], without: str = "", status: int = 101, **fields: str) -> Response:
    changed = {name.replace("_", "-"): value for name, value in fields.items()}
    headers: Headers = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", ACCEPT))
    kept = tuple((name, value) for name, value in headers if name != without and name not in changed)
    return Response(status, kept + tuple(changed.items()) + more)


class TestCheckResponse:
    asked = make_request("ws://a/", key=KEY, subprotocols=["chat"])

    @pytest.mark.parametrize(
        "response",
        [
            response_with(),
            response_with(Upgrade="WebSocket"),
            response_with(Connection="keep-alive, upgrade"),
        ],
    )
    def test_a_valid_response_is_accepted(self, response: Response) -> None:
        assert check_response(self.asked, response) == Agreement()

    def test_the_agreement_is_returned(self) -> None:
        response = response_with(
            Sec_WebSocket_Protocol="chat", Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits=9"
        )
        assert check_response(self.asked, response) == Agreement("chat", Parameters(client_max_window_bits=9))

    @pytest.mark.parametrize(
        ("response", "message"),
        [
            (Response(403, (), "Forbidden", b"no\n"), "server answered 403 Forbidden: no"),
            (Response(200, (), "OK"), "server answered 200 OK"),
            (response_with(without="Upgrade"), "Upgrade is '' in the answer, not 'websocket'"),
            (response_with(Upgrade="h2c"), "Upgrade is 'h2c' in the answer, not 'websocket'"),
            (response_with(without="Connection"), "Connection is None in the answer, without 'Upgrade'"),
            (response_with(Connection="close"), "Connection is 'close' in the answer, without 'Upgrade'"),
            (response_with(without="Sec-WebSocket-Accept"), f"Sec-WebSocket-Accept is '', not '{ACCEPT}'"),
            (response_with(Sec_WebSocket_Accept="wrong"), f"Sec-WebSocket-Accept is 'wrong', not '{ACCEPT}'"),
            (
                response_with(Sec_WebSocket_Accept=ACCEPT.lower()),
                f"Sec-WebSocket-Accept is '{ACCEPT.lower()}', not '{ACCEPT}'",
            ),
            (response_with(Sec_WebSocket_Protocol="superchat"), "subprotocol 'superchat' was not asked for"),
            (
                response_with(("Sec-WebSocket-Protocol", "chat"), ("Sec-WebSocket-Protocol", "chat")),
                "subprotocol 'chat, chat' was not asked for",
            ),
            (response_with(Sec_WebSocket_Extensions="x-foo"), "extension that was not asked for: 'x-foo'"),
            (
                response_with(Sec_WebSocket_Extensions="permessage-deflate, permessage-deflate"),
                "extension that was not asked for: 'permessage-deflate, permessage-deflate'",
            ),
            (
                response_with(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"),
                "client_max_window_bits without a value in the server's answer",
            ),
        ],
    )
    def test_a_broken_rule_is_named(self, response: Response, message: str) -> None:
        with pytest.raises(HandshakeError) as raised:
            check_response(self.asked, response)
        assert str(raised.value) == message

    def test_a_refusal_keeps_its_status(self) -> None:
        with pytest.raises(HandshakeError) as raised:
            check_response(self.asked, Response(503))
        assert raised.value.status == 503

    def test_unrequested_compression_is_refused(self) -> None:
        asked = make_request("ws://a/", key=KEY, compression=False)
        with pytest.raises(HandshakeError, match="extension that was not asked for"):
            check_response(asked, response_with(Sec_WebSocket_Extensions="permessage-deflate"))


class TestAgainstTheLibrary:
    def test_the_librarys_server_and_our_client_agree(self) -> None:
        server = ServerProtocol(subprotocols=["chat"])  # type: ignore[list-item]  # a NewType of str
        request = make_request("ws://localhost/chat", subprotocols=["chat"])
        server.receive_data(request.serialize())
        (theirs,) = server.events_received()
        server.send_response(server.accept(theirs))  # type: ignore[arg-type]  # the first event is the request
        assert server.state is LibraryState.OPEN
        response = read_response(b"".join(server.data_to_send()))
        assert check_response(request, response).subprotocol == "chat"

    def test_the_librarys_client_and_our_server_agree(self) -> None:
        client = ClientProtocol(parse_uri("ws://localhost/chat"), subprotocols=["chat"])  # type: ignore[list-item]  # the same
        client.send_request(client.connect())
        request = read_request(b"".join(client.data_to_send()))
        response, _ = accept(request, subprotocols=["chat"])
        client.receive_data(response.serialize())
        assert client.state is LibraryState.OPEN
        assert client.subprotocol == "chat"
