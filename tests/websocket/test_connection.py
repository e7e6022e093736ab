from __future__ import annotations

from functools import partial

import pytest

from chatlab.errors import HandshakeError, LocalProtocolError
from chatlab.websocket import handshake
from chatlab.websocket.connection import (
    TRANSITIONS,
    Cause,
    Closed,
    CloseReceived,
    Connection,
    Event,
    Failed,
    Message,
    Opened,
    Ping,
    Pong,
    Refused,
    State,
)
from chatlab.websocket.deflate import Deflater, Parameters
from chatlab.websocket.frames import Close, Frame, Opcode, Side
from chatlab.websocket.handshake import Request, make_request
from tests.support.conversation import MASK, binary, close, close_code, frame, more, parse_all, ping, pong, text
from tests.support.feeding import SPLITS, Split

REQUEST = (
    b"GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def server() -> Connection:
    return Connection.opened(Side.SERVER)


def client() -> Connection:
    return Connection.opened(Side.CLIENT, mask=lambda: MASK)


def feed(connection: Connection, data: bytes, split: Split) -> list[Event]:
    return [event for piece in split(data) for event in connection.receive_data(piece)]


def failure(connection: Connection, data: bytes) -> tuple[int, str]:
    """Return the code and reason of the Close that the connection sends in response to `data`."""
    events = list(connection.receive_data(data))
    assert isinstance(events[-1], Failed)
    sent = connection.close_sent
    assert sent is not None and sent.code is not None
    assert events[-1].error.code == sent.code
    assert parse_all(connection.data_to_send())[-1].payload == sent.serialize()
    assert connection.state is State.ENDING
    return sent.code, sent.reason


class TestStates:
    def test_every_state_can_be_reached_and_left_but_the_last(self) -> None:
        assert set(TRANSITIONS.values()) == set(State) - {State.CONNECTING}
        assert {before for before, _ in TRANSITIONS} == set(State) - {State.CLOSED}
        assert {cause for _, cause in TRANSITIONS} == set(Cause)

    def test_tcp_may_end_in_any_state(self) -> None:
        for state in set(State) - {State.CLOSED}:
            assert TRANSITIONS[state, Cause.TCP_ENDED] is State.CLOSED

    def test_the_state_and_its_history_are_recorded(self) -> None:
        connection = Connection(Side.SERVER)
        list(connection.receive_data(REQUEST + close(1000)))
        connection.receive_eof()
        assert connection.history == [
            (Cause.ACCEPTED, State.OPEN),
            (Cause.CLOSE_RECEIVED, State.CLOSE_RECEIVED),
            (Cause.CLOSE_SENT, State.ENDING),
            (Cause.TCP_ENDED, State.CLOSED),
        ]
        assert all(TRANSITIONS[before, cause] is after for before, (cause, after) in _steps(connection))

    @pytest.mark.parametrize("side", Side)
    def test_sending_before_the_handshake_is_refused(self, side: Side) -> None:
        connection = Connection(side)
        for command in (partial(connection.send, "a"), connection.ping, connection.pong, connection.close):
            with pytest.raises(LocalProtocolError, match="CONNECTING: the opening handshake is under way"):
                command()

    def test_sending_after_a_close_is_refused(self) -> None:
        connection = server()
        connection.close()
        for command in (partial(connection.send, "a"), connection.ping, connection.pong, connection.close):
            with pytest.raises(LocalProtocolError, match="state CLOSE_SENT: we sent a Close and send no more"):
                command()

    def test_data_after_the_end_of_tcp_is_refused(self) -> None:
        connection = server()
        connection.receive_eof()
        assert connection.receive_eof() == []
        with pytest.raises(LocalProtocolError, match="after the end"):
            connection.receive_data(b"")


def _steps(connection: Connection) -> list[tuple[State, tuple[Cause, State]]]:
    states = [State.CONNECTING, *(state for _, state in connection.history)]
    return list(zip(states, connection.history, strict=False))


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.__name__)
class TestOpening:
    """Section 4, with the first frames directly after the handshake."""

    def test_a_server_answers_the_request_and_reads_on(self, split: Split) -> None:
        connection = Connection(Side.SERVER)
        opened, message = feed(connection, REQUEST + text(b"Hello"), split)
        assert isinstance(opened, Opened)
        assert (opened.request.target, opened.response.status) == ("/chat", 101)
        assert message == Message("Hello")
        assert connection.data_to_send() == RESPONSE

    def test_a_client_asks_and_reads_the_answer_and_on(self, split: Split) -> None:
        connection = Connection(Side.CLIENT)
        request = make_request("ws://server.example.com/chat", key=KEY)
        connection.request(request)
        assert connection.data_to_send() == request.serialize()
        opened, message = feed(connection, RESPONSE + frame(Opcode.TEXT, b"Hello", mask=None), split)
        assert isinstance(opened, Opened)
        assert opened.request is request
        assert message == Message("Hello")

    def test_a_server_refuses_and_closes(self, split: Split) -> None:
        connection = Connection(Side.SERVER)
        (refused,) = feed(connection, REQUEST.replace(b"Version: 13", b"Version: 8") + text(b"Hello"), split)
        assert isinstance(refused, Refused)
        assert refused.error.status == 426
        assert connection.data_to_send().startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
        assert connection.state is State.ENDING
        assert connection.must_close_tcp

    def test_a_refused_client_sends_nothing_and_closes(self, split: Split) -> None:
        connection = Connection(Side.CLIENT)
        connection.request(make_request("ws://server.example.com/chat", key=KEY))
        connection.data_to_send()
        (refused,) = feed(connection, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", split)
        assert isinstance(refused, Refused)
        assert (refused.error.status, str(refused.error)) == (403, "server answered 403 Forbidden: no")
        assert connection.data_to_send() == b""
        assert connection.must_close_tcp

    def test_what_is_not_http_is_refused(self, split: Split) -> None:
        connection = Connection(Side.SERVER)
        (refused,) = feed(connection, b"\x16\x03\x01\x02\x00\x01\xfc\r\n\r\n", split)
        assert isinstance(refused, Refused)
        assert connection.data_to_send().startswith(b"HTTP/1.1 400 Bad Request\r\n")


class TestHandshake:
    def test_a_server_may_pass_its_own_accept(self) -> None:
        connection = Connection(Side.SERVER, accept=partial(handshake.accept, subprotocols=["chat"], compression=False))
        asked = make_request("ws://a/", subprotocols=["chat"])
        list(connection.receive_data(asked.serialize()))
        assert connection.agreement.subprotocol == "chat"
        assert connection.agreement.compression is None

    def test_a_path_may_be_refused(self) -> None:
        def accept(request: Request) -> tuple[handshake.Response, handshake.Agreement]:
            raise HandshakeError(f"nothing at {request.target}", 404)

        connection = Connection(Side.SERVER, accept=accept)
        list(connection.receive_data(REQUEST))
        assert connection.data_to_send().startswith(b"HTTP/1.1 404 Not Found\r\n")

    def test_only_a_client_asks_and_only_once(self) -> None:
        with pytest.raises(LocalProtocolError, match="only a client"):
            Connection(Side.SERVER).request(make_request("ws://a/"))
        connection = Connection(Side.CLIENT)
        connection.request(make_request("ws://a/"))
        with pytest.raises(LocalProtocolError, match="only once"):
            connection.request(make_request("ws://a/"))

    def test_an_unsolicited_response_is_refused(self) -> None:
        (refused,) = Connection(Side.CLIENT).receive_data(RESPONSE)
        assert isinstance(refused, Refused)
        assert str(refused.error) == "the server answered before it was asked"

    @pytest.mark.parametrize("side", Side)
    def test_the_end_of_tcp_in_the_middle_is_a_refusal(self, side: Side) -> None:
        connection = Connection(side)
        list(connection.receive_data(b"GET / HT" if side is Side.SERVER else b"HTTP/1.1 1"))
        (refused,) = connection.receive_eof()
        assert isinstance(refused, Refused)
        assert connection.state is State.CLOSED

    def test_our_client_and_server_negotiate_all_features(self) -> None:
        ours = Connection(Side.CLIENT)
        theirs = Connection(Side.SERVER)
        ours.request(make_request("ws://a/"))
        list(theirs.receive_data(ours.data_to_send()))
        list(ours.receive_data(theirs.data_to_send()))
        assert ours.agreement == theirs.agreement
        assert ours.agreement.compression == Parameters()


class TestSending:
    """Commands, to the octet: the examples of RFC 6455, 5.7, and RFC 7692, 7.2.3."""

    def test_a_server_sends_unmasked(self) -> None:
        connection = server()
        connection.send("Hello")
        assert connection.data_to_send() == bytes.fromhex("81 05 48 65 6c 6c 6f")
        assert connection.data_to_send() == b""

    def test_a_client_sends_masked(self) -> None:
        connection = client()
        connection.send("Hello")
        assert connection.data_to_send() == bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58")

    def test_a_client_masks_each_frame_with_a_new_key(self) -> None:
        connection = Connection.opened(Side.CLIENT)
        for _ in range(20):
            connection.ping()
        assert len({each.mask for each in parse_all(connection.data_to_send())}) > 15

    def test_bytes_are_binary(self) -> None:
        connection = server()
        for data in (b"\x01", bytearray(b"\x02"), memoryview(b"\x03")):
            connection.send(data)
        assert connection.data_to_send() == bytes.fromhex("82 01 01 82 01 02 82 01 03")

    def test_a_message_may_go_in_fragments_with_a_ping_between(self) -> None:
        connection = server()
        connection.send("Hel", fin=False)
        connection.ping(b"?")
        connection.send("lo")
        connection.send("next")
        assert connection.data_to_send() == bytes.fromhex("01 03 48 65 6c 89 01 3f 80 02 6c 6f 81 04 6e 65 78 74")

    def test_text_and_binary_do_not_mix_in_one_message(self) -> None:
        connection = server()
        connection.send("Hel", fin=False)
        with pytest.raises(LocalProtocolError, match="bytes in the middle of a message of str"):
            connection.send(b"lo")

    def test_messages_are_compressed_if_negotiated(self) -> None:
        connection = Connection.opened(Side.SERVER, Parameters())
        connection.send("Hello")
        connection.send("Hello")
        connection.send("")
        assert connection.data_to_send() == bytes.fromhex("c1 07 f2 48 cd c9 c9 07 00 c1 05 f2 00 11 00 00 c1 01 00")

    def test_fragments_are_compressed_as_one_message(self) -> None:
        connection = Connection.opened(Side.SERVER, Parameters())
        connection.send("Hel", fin=False)
        connection.send("lo")
        first, last = parse_all(connection.data_to_send())
        assert (first.opcode, first.rsv1, first.fin) == (Opcode.TEXT, True, False)
        assert (last.opcode, last.rsv1, last.fin) == (Opcode.CONTINUATION, False, True)
        receiver = Connection.opened(Side.CLIENT, Parameters())
        assert list(receiver.receive_data(first.serialize() + last.serialize())) == [Message("Hello")]

    def test_each_side_compresses_by_its_own_parameters(self) -> None:
        parameters = Parameters(client_no_context_takeover=True)
        theirs, ours = Connection.opened(Side.SERVER, parameters), Connection.opened(Side.CLIENT, parameters)
        for connection in (theirs, ours):
            connection.send("Hello")
            connection.send("Hello")
        assert [len(each.payload) for each in parse_all(theirs.data_to_send())] == [7, 5]
        assert [len(each.payload) for each in parse_all(ours.data_to_send())] == [7, 7]

    def test_half_of_a_surrogate_pair_is_no_text(self) -> None:
        with pytest.raises(LocalProtocolError, match="cannot be UTF-8"):
            server().send("\ud800")

    @pytest.mark.parametrize("name", ["ping", "pong"])
    def test_control_frames_are_short(self, name: str) -> None:
        connection = server()
        getattr(connection, name)(b"a" * 125)
        with pytest.raises(LocalProtocolError, match=f"{name.upper()} of 126 bytes; control frames carry 125 at most"):
            getattr(connection, name)(b"a" * 126)

    @pytest.mark.parametrize(("code", "reason"), [(1005, ""), (1006, ""), (999, ""), (1000, "a" * 124), (None, "a")])
    def test_a_close_that_may_not_be_sent_changes_nothing(self, code: int | None, reason: str) -> None:
        connection = server()
        with pytest.raises(LocalProtocolError):
            connection.close(code, reason)
        assert (connection.state, connection.data_to_send()) == (State.OPEN, b"")


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: split.__name__)
class TestReceiving:
    """Section 5; test_conformance.py has the violations of its rules."""

    def test_text_and_binary(self, split: Split) -> None:
        assert feed(server(), text("한글".encode()) + binary(b"\xff"), split) == [Message("한글"), Message(b"\xff")]

    def test_a_client_reads_unmasked_frames(self, split: Split) -> None:
        assert feed(client(), bytes.fromhex("81 05 48 65 6c 6c 6f"), split) == [Message("Hello")]

    def test_control_frames_between_fragments(self, split: Split) -> None:
        connection = server()
        data = text(b"Hel", fin=False) + ping(b"?") + more(b"", fin=False) + pong(b"!") + more(b"lo")
        assert feed(connection, data, split) == [Ping(b"?"), Pong(b"!"), Message("Hello")]
        assert connection.data_to_send() == bytes.fromhex("8a 01 3f")

    def test_a_character_may_be_split_between_fragments(self, split: Split) -> None:
        octets = "한".encode()
        assert feed(server(), text(octets[:1], fin=False) + more(octets[1:]), split) == [Message("한")]

    def test_compressed_and_fragmented(self, split: Split) -> None:
        data = frame(Opcode.TEXT, b"\xf2\x48\xcd", fin=False, rsv=4) + more(b"\xc9\xc9\x07\x00")
        connection = Connection.opened(Side.SERVER, Parameters())
        assert feed(connection, data + data, split) == [Message("Hello"), Message("Hello")]

    def test_a_message_of_the_largest_size_and_one_octet_more(self, split: Split) -> None:
        connection = Connection.opened(Side.SERVER, max_message=10)
        message, failed = feed(connection, binary(b"a" * 10) + binary(b"a" * 11), split)
        assert message == Message(b"a" * 10)
        assert isinstance(failed, Failed)
        assert (failed.error.code, str(failed.error)) == (1009, "message of 11 bytes or more; at most 10 are read")

    def test_fragments_count_together(self, split: Split) -> None:
        connection = Connection.opened(Side.SERVER, max_message=10)
        (failed,) = feed(connection, binary(b"a" * 6, fin=False) + more(b"a" * 5), split)
        assert isinstance(failed, Failed)
        assert failed.error.code == 1009


class TestLimits:
    def test_a_message_too_big_is_refused_at_its_header(self) -> None:
        connection = server()
        assert failure(connection, bytes.fromhex("82 ff 7f ff ff ff ff ff ff ff 37 fa 21 3d")) == (
            1009,
            "message of 9223372036854775807 bytes or more; at most 16777216 are read",
        )

    def test_a_decompression_bomb_is_refused_at_the_size_limit(self) -> None:
        connection = Connection.opened(Side.SERVER, Parameters(), max_message=1000)
        bomb = Deflater().piece(bytes(10_000_000))
        assert failure(connection, frame(Opcode.BINARY, bomb, rsv=4))[0] == 1009

    def test_a_reason_is_cut_to_what_fits(self) -> None:
        connection = Connection.opened(Side.SERVER)
        code, reason = failure(connection, frame(Opcode.TEXT, b"\xff", rsv=7, mask=None) * 2)
        assert code == 1002
        assert len(reason.encode()) <= 123

    def test_data_that_was_read_is_not_kept(self) -> None:
        connection = server()
        for _ in range(100):
            list(connection.receive_data(binary(bytes(1000)) + binary(bytes(1000))[:500]))
            list(connection.receive_data(binary(bytes(1000))[500:]))
        assert len(connection._buffer) == 0

    def test_data_after_a_failure_is_discarded(self) -> None:
        connection = server()
        failure(connection, frame(3))
        assert list(connection.receive_data(text(b"a" * 1000))) == []
        assert len(connection._buffer) == 0


class TestClosing:
    """Section 7, for both sides in both roles."""

    def test_the_peer_starts(self) -> None:
        connection = server()
        assert list(connection.receive_data(close(4000, b"bye"))) == [CloseReceived(Close(4000, "bye"))]
        assert connection.data_to_send() == bytes.fromhex("88 02 0f a0")
        assert connection.must_close_tcp
        assert connection.receive_eof() == [Closed(4000, "bye", clean=True)]
        assert connection.state is State.CLOSED

    def test_we_start(self) -> None:
        connection = server()
        connection.close(1001, "bye")
        assert connection.data_to_send() == bytes.fromhex("88 05 03 e9 62 79 65")
        assert connection.state is State.CLOSE_SENT
        assert not connection.must_close_tcp
        assert list(connection.receive_data(close(1001))) == [CloseReceived(Close(1001))]
        assert connection.data_to_send() == b""
        assert connection.receive_eof() == [Closed(1001, "", clean=True)]

    def test_both_start_at_once(self) -> None:
        ours, theirs = client(), server()
        ours.close(1000)
        theirs.close(1001)
        assert list(theirs.receive_data(ours.data_to_send())) == [CloseReceived(Close(1000))]
        assert list(ours.receive_data(theirs.data_to_send())) == [CloseReceived(Close(1001))]
        assert ours.data_to_send() == theirs.data_to_send() == b""
        assert ours.state is theirs.state is State.ENDING

    def test_the_server_closes_tcp_first(self) -> None:
        ours, theirs = client(), server()
        ours.close()
        list(theirs.receive_data(ours.data_to_send()))
        list(ours.receive_data(theirs.data_to_send()))
        assert theirs.must_close_tcp
        assert not ours.must_close_tcp

    def test_messages_before_the_peers_close_arrive_after_our_close(self) -> None:
        connection = server()
        connection.close()
        connection.data_to_send()
        events = list(connection.receive_data(text(b"late") + ping(b"?") + close(1000)))
        assert events == [Message("late"), Ping(b"?"), CloseReceived(Close(1000))]
        assert connection.data_to_send() == b""  # no Pong after a Close

    def test_output_for_an_event_precedes_the_answer_to_the_next(self) -> None:
        connection = server()
        for event in connection.receive_data(text(b"a") + ping(b"?") + text(b"b") + close(1000)):
            if isinstance(event, Message):
                connection.send(event.data)
        assert [str(each).split(" [")[0] for each in parse_all(connection.data_to_send())] == [
            'TEXT "a"',
            'PONG "?"',
            'TEXT "b"',
            "CLOSE 1000 (the purpose of the connection has been fulfilled)",
        ]

    def test_a_message_in_fragments_may_be_ended_before_the_answer_to_a_close(self) -> None:
        connection = server()
        connection.send("Hel", fin=False)
        for event in connection.receive_data(close(1000)):
            assert event == CloseReceived(Close(1000))
            assert connection.state is State.CLOSE_RECEIVED
            connection.send("lo")
        assert [each.opcode for each in parse_all(connection.data_to_send())] == [Opcode.TEXT, 0, Opcode.CLOSE]

    def test_the_answer_to_a_close_may_have_another_code(self) -> None:
        connection = server()
        for _ in connection.receive_data(close(1000)):
            connection.close(4001, "mine")
        assert parse_all(connection.data_to_send()) == [Frame(Opcode.CLOSE, b"\x0f\xa1mine")]
        assert connection.state is State.ENDING

    def test_events_that_were_not_iterated_are_not_lost(self) -> None:
        connection = server()
        connection.receive_data(text(b"a"))
        assert list(connection.receive_data(text(b"b"))) == [Message("a"), Message("b")]
        connection.receive_data(close(1000))
        assert connection.receive_eof() == [CloseReceived(Close(1000)), Closed(1000, "", clean=True)]

    def test_without_a_code_it_is_1005(self) -> None:
        connection = server()
        list(connection.receive_data(close()))
        assert connection.data_to_send() == bytes.fromhex("88 00")
        assert connection.receive_eof() == [Closed(1005, "", clean=True)]

    def test_without_a_close_it_is_1006(self) -> None:
        connection = server()
        assert connection.receive_eof() == [Closed(1006, "", clean=False)]

    def test_with_only_our_close_it_is_1006_too(self) -> None:
        connection = server()
        connection.close()
        assert connection.receive_eof() == [Closed(1006, "", clean=False)]

    def test_in_the_middle_of_a_frame_it_is_1006(self) -> None:
        connection = server()
        list(connection.receive_data(text(b"Hello")[:-1]))
        assert connection.receive_eof() == [Closed(1006, "", clean=False)]

    def test_a_failure_sends_a_close_with_its_reason(self) -> None:
        connection = server()
        assert failure(connection, frame(Opcode.TEXT, b"Hello", mask=None)) == (
            1002,
            "TEXT frame from the client is not masked",
        )
        assert connection.must_close_tcp
        assert connection.receive_eof() == [Closed(1006, "", clean=False)]

    def test_a_client_that_fails_the_connection_closes_tcp_itself(self) -> None:
        connection = client()
        assert failure(connection, text(b"Hello")) == (1002, "TEXT frame from the server is masked")
        assert connection.must_close_tcp

    def test_a_failure_after_our_close_sends_no_second_one(self) -> None:
        connection = server()
        connection.close()
        connection.data_to_send()
        (failed,) = connection.receive_data(frame(3))
        assert isinstance(failed, Failed)
        assert connection.data_to_send() == b""
        assert connection.must_close_tcp

    def test_a_broken_answer_to_our_close_is_a_failure(self) -> None:
        connection = server()
        connection.close()
        (failed,) = connection.receive_data(close(1005))
        assert isinstance(failed, Failed)
        assert connection.receive_eof() == [Closed(1006, "", clean=False)]

    def test_valid_frames_after_a_failure_are_ignored(self) -> None:
        connection = server()
        events = list(connection.receive_data(text(b"good") + frame(3) + text(b"good") + close(1000)))
        assert events[0] == Message("good")
        assert [type(event) for event in events] == [Message, Failed]
        assert close_code(parse_all(connection.data_to_send())[0]) == 1002
