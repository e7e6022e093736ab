"""One client's session: literal frames in, events out, literal frames back."""

from __future__ import annotations

import pytest

from chatlab.errors import LocalProtocolError
from chatlab.stomp.events import (
    Ack,
    AckMode,
    Commit,
    Connect,
    Disconnect,
    Event,
    Nack,
    Send,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from chatlab.stomp.frames import Limits, MessageFrame
from chatlab.stomp.session import ServerSession, SessionState, choose_subprotocol, choose_version
from tests.support.feeding import SPLITS, Split

CONNECT = b"CONNECT\naccept-version:%b\nhost:x\n\n\0"


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def connected(version: str = "1.2", limits: Limits | None = None, **options: object) -> ServerSession:
    session = ServerSession(limits=limits, heart_beat=(0, 0), **options)  # type: ignore[arg-type]  # as the test has it
    (event,) = session.receive_data(CONNECT % version.encode())
    assert isinstance(event, Connect)
    session.connected()
    session.data_to_send()
    return session


def one(session: ServerSession, data: bytes) -> Event:
    """Feed one frame and return its one event."""
    (event,) = session.receive_data(data)
    return event


def subscribed(session: ServerSession, ack: str = "auto", id: str = "s", destination: str = "/t") -> Subscription:
    event = one(session, f"SUBSCRIBE\nid:{id}\ndestination:{destination}\nack:{ack}\n\n\0".encode())
    assert isinstance(event, Subscribe)
    session.done(event)
    return event.subscription


def fault(session: ServerSession, data: bytes) -> bytes:
    """Feed an invalid frame; return the ERROR without its body."""
    assert session.receive_data(data) == []
    (error,) = session.data_to_send()
    assert session.closing is not None
    assert session.closing.code == 1002
    assert session.receive_data(b"SEND\ndestination:/t\n\n\0") == []  # later frames are ignored
    return error.partition(b"\n\n")[0]


def message_of(error: bytes) -> str:
    assert error.startswith(b"ERROR\nmessage:")
    return error.split(b"\n")[1].removeprefix(b"message:").decode().replace(r"\c", ":").replace(r"\\", "\\")


# --- CONNECT ---


@pytest.mark.parametrize(
    ("accept", "version"),
    [(None, "1.0"), ("1.0", "1.0"), ("1.0,1.1", "1.1"), ("1.0,1.1,1.2", "1.2"), ("1.2,1.1", "1.2"), ("1.2,2.0", "1.2")],
)
def test_the_highest_common_version_is_chosen(accept: str | None, version: str) -> None:
    assert choose_version(accept) == version


def test_without_a_common_version_the_error_lists_ours() -> None:
    session = ServerSession()
    assert session.receive_data(b"CONNECT\naccept-version:2.0,9.9\n\n\0") == []
    assert session.data_to_send() == [
        b"ERROR\nmessage:no common version: accept-version is '2.0,9.9'\nversion:1.2,1.1,1.0\n"
        b"content-type:text/plain\ncontent-length:43\n\nSupported protocol versions are 1.2 1.1 1.0\0"
    ]
    assert session.closing is not None


@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
@pytest.mark.parametrize("split", SPLITS)
def test_connect_is_answered_with_connected(command: str, split: Split) -> None:
    session = ServerSession(server="chatlab/1", heart_beat=(10_000, 20_000))
    data = f"{command}\naccept-version:1.1,1.2\nhost:x\nlogin:kim\npasscode:a:b\nheart-beat:5000,30000\n\n\0".encode()
    (event,) = [event for piece in split(data) for event in session.receive_data(piece)]
    assert isinstance(event, Connect)
    assert (event.login, event.passcode, event.host) == ("kim", "a:b", "x")
    assert session.data_to_send() == []  # the application must answer first
    session.connected("kim", "s1", (("extra", "yes"),))
    assert session.data_to_send() == [
        b"CONNECTED\nversion:1.2\nheart-beat:10000,20000\nserver:chatlab/1\nsession:s1\nuser-name:kim\nextra:yes\n\n\0"
    ]
    assert session.heart_beat == (30_000, 20_000)
    assert session.version == "1.2"


def test_a_passcode_never_appears_in_logs_or_errors() -> None:
    session = ServerSession()
    (event,) = session.receive_data(b"CONNECT\npasscode:sesame\n\n\0")
    assert "sesame" not in repr(event)
    session.receive_data(b"CONNECT\npasscode:sesame\n\n\0")
    assert b"sesame" not in b"".join(session.data_to_send())


def test_text_messages_are_parsed_like_binary_ones() -> None:
    session = connected()
    event = one(session, "SEND\ndestination:/t\n\n안녕\0")  # type: ignore[arg-type]  # str is what is tested
    assert isinstance(event, Send)
    assert event.body == "안녕".encode()
    assert session.receive_data("SEND\ndestination:/t\n\n\ud800\0") == []
    assert b"message:text is not Unicode" in session.data_to_send()[0]


def test_frames_that_follow_connect_are_answered_after_connected() -> None:
    session = ServerSession(heart_beat=(0, 0))
    first, second = session.receive_data(
        b"CONNECT\naccept-version:1.2\n\n\0SUBSCRIBE\nid:1\ndestination:/t\nreceipt:a\n\n\0BEGIN\ntransaction:t\nreceipt:b\n\n\0"
    )
    assert isinstance(first, Connect)
    session.done(second)
    assert session.data_to_send() == []
    session.connected()
    assert [frame.split(b"\n")[0] for frame in session.data_to_send()] == [b"CONNECTED", b"RECEIPT", b"RECEIPT"]


def test_an_error_right_after_connect_closes_the_session_even_if_it_is_accepted() -> None:
    session = ServerSession()
    (event,) = session.receive_data(CONNECT % b"1.2" + b"NONSENSE\n\n\0")
    session.connected()
    session.done(event)
    (error,) = session.data_to_send()
    assert message_of(error) == "'NONSENSE' is not a command a client can send in STOMP 1.2"


def test_connected_may_only_answer_a_connect() -> None:
    with pytest.raises(LocalProtocolError):
        ServerSession().connected()
    with pytest.raises(LocalProtocolError):
        connected().connected()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"SEND\ndestination:/t\n\n\0", "the first frame must be CONNECT, not 'SEND'"),
        (b"CONNECTED\nversion:1.2\n\n\0", "the first frame must be CONNECT, not 'CONNECTED'"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\0", "the first frame must be CONNECT, not 'GET / HTTP/1.1'"),
        (b"CONNECT\nheart-beat:1\n\n\0", "heart-beat '1' is not two numbers of milliseconds, such as 10000,10000"),
    ],
)
def test_the_first_frame_must_be_a_valid_connect(data: bytes, message: str) -> None:
    error = fault(ServerSession(), data)
    assert error.split(b"\n")[1] == b"message:" + message.encode()  # nothing is escaped before the version is known
    assert b"version:1.2,1.1,1.0" in error


def test_the_clients_first_supported_subprotocol_is_chosen() -> None:
    assert choose_subprotocol(["mqtt", "v11.stomp", "v12.stomp"]) == "v11.stomp"
    assert choose_subprotocol(["mqtt"]) is None
    assert choose_subprotocol([]) is None


# --- What each frame requires ---

FAULTS = [
    ("1.2", b"CONNECT\naccept-version:1.2\n\n\0", "CONNECT a second time: this session is connected already"),
    ("1.2", b"STOMP\n\n\0", "STOMP a second time: this session is connected already"),
    ("1.2", b"MESSAGE\n\n\0", "'MESSAGE' is not a command a client can send in STOMP 1.2"),
    ("1.2", b"send\n\n\0", "'send' is not a command a client can send in STOMP 1.2"),
    ("1.2", b"send\ndestination:/t\n\nbody\0", "'send' is not a command a client can send in STOMP 1.2"),
    ("1.2", b"SEND \ndestination:/t\n\nbody\0", "'SEND ' is not a command a client can send in STOMP 1.2"),
    ("1.2", b" SEND\ndestination:/t\n\nbody\0", "' SEND' is not a command a client can send in STOMP 1.2"),
    ("1.1", b"SEND\r\ndestination:/t\n\nbody\0", "'SEND\\r' is not a command a client can send in STOMP 1.1"),
    ("1.0", b"SEND\r\ndestination:/t\n\nbody\0", "'SEND\\r' is not a command a client can send in STOMP 1.0"),
    ("1.1", b"\xec\x95\x88\ndestination:/t\n\nbody\0", "'안' is not a command a client can send in STOMP 1.1"),
    ("1.2", b"MESSAGE\ndestination:/t\n\nbody\0", "'MESSAGE' is not a command a client can send in STOMP 1.2"),
    ("1.0", b"NACK\nmessage-id:1\n\nbody\0", "'NACK' is not a command a client can send in STOMP 1.0"),
    ("1.0", b"NACK\nmessage-id:1\n\n\0", "'NACK' is not a command a client can send in STOMP 1.0"),
    ("1.2", b"SEND\n\nx\0", "SEND without the header 'destination'"),
    ("1.2", b"SUBSCRIBE\nid:1\n\n\0", "SUBSCRIBE without the header 'destination'"),
    ("1.2", b"SUBSCRIBE\ndestination:/t\n\n\0", "SUBSCRIBE without the header 'id'"),
    ("1.1", b"SUBSCRIBE\ndestination:/t\n\n\0", "SUBSCRIBE without the header 'id'"),
    (
        "1.2",
        b"SUBSCRIBE\nid:1\ndestination:/t\nack:maybe\n\n\0",
        "ack 'maybe' is not one of auto, client, client-individual",
    ),
    ("1.2", b"SUBSCRIBE\nid:1\ndestination:/t\n\nbody\0", "SUBSCRIBE must not have a body, and this one has 4 octets"),
    ("1.2", b"UNSUBSCRIBE\n\n\0", "UNSUBSCRIBE without the header 'id'"),
    ("1.0", b"UNSUBSCRIBE\n\n\0", "UNSUBSCRIBE without the header 'destination'"),
    ("1.2", b"UNSUBSCRIBE\nid:9\n\n\0", "no subscription '9' to end"),
    ("1.2", b"ACK\n\n\0", "ACK without the header 'id'"),
    ("1.2", b"ACK\nid:9\n\n\0", "ACK of id '9': no such message waits to be acknowledged"),
    ("1.1", b"ACK\nsubscription:s\n\n\0", "ACK without the header 'message-id'"),
    ("1.1", b"NACK\nmessage-id:1\n\n\0", "NACK without the header 'subscription'"),
    ("1.0", b"ACK\n\n\0", "ACK without the header 'message-id'"),
    ("1.2", b"BEGIN\n\n\0", "BEGIN without the header 'transaction'"),
    ("1.2", b"COMMIT\n\n\0", "COMMIT without the header 'transaction'"),
    ("1.2", b"ABORT\n\n\0", "ABORT without the header 'transaction'"),
    ("1.2", b"COMMIT\ntransaction:t\n\n\0", "transaction 't' has not begun"),
    ("1.2", b"ABORT\ntransaction:t\n\n\0", "transaction 't' has not begun"),
    ("1.2", b"SEND\ndestination:/t\ntransaction:t\n\n\0", "transaction 't' has not begun"),
    ("1.2", b"SEND\ndestination:/t\nx:\\t\n\n\0", "undefined escape sequence \\t in a header (STOMP 1.2)"),
    ("1.1", b"SEND\ndestination:/t\nx:\\r\n\n\0", "undefined escape sequence \\r in a header (STOMP 1.1)"),
]


@pytest.mark.parametrize(("version", "data", "message"), FAULTS)
def test_an_invalid_frame_is_answered_with_an_error_that_describes_it(version: str, data: bytes, message: str) -> None:
    assert message_of(fault(connected(version), data)) == message


def test_an_error_carries_the_receipt_id_of_the_frame_it_answers() -> None:
    error = fault(connected(), b"SEND\nreceipt:a\\cb\n\nx\0")
    assert error.split(b"\n")[2] == b"receipt-id:a\\cb"


def test_before_connected_an_error_is_written_without_escapes() -> None:
    session = ServerSession()
    (event,) = session.receive_data(CONNECT % b"1.2")
    session.error("access refused: no", event=event)
    assert session.data_to_send() == [b"ERROR\nmessage:access refused: no\n\n\0"]
    session = ServerSession()
    session.receive_data(CONNECT % b"1.2" + b"SEND\nreceipt:a\\nb\n\n\0")  # a receipt that 1.0 cannot represent
    assert session.data_to_send()[0].startswith(b"ERROR\nmessage:SEND without the header 'destination'\ncontent-type")


def test_an_error_shows_the_head_of_the_frame_it_answers() -> None:
    session = connected()
    session.receive_data(b"SEND\nreceipt:7\n\nsecret\0")
    (error,) = session.data_to_send()
    assert error.endswith(b"\n\nThe frame was:\n-----\nSEND\nreceipt:7\n\n^@\n-----\n\0")


def test_events_before_an_invalid_frame_are_returned() -> None:
    session = connected()
    (event,) = session.receive_data(b"SEND\ndestination:/t\nreceipt:1\n\n\0SEND\n\n\0SEND\ndestination:/t\n\n\0")
    assert isinstance(event, Send)
    session.done(event)
    (error,) = session.data_to_send()  # "the server MUST then close the connection just after sending the ERROR frame"
    assert message_of(error) == "SEND without the header 'destination'"


def test_the_application_refuses_with_an_error() -> None:
    session = connected()
    event = one(session, b"SUBSCRIBE\nid:1\ndestination:/secret\nreceipt:5\n\n\0")
    session.error("access refused: '/secret'", event=event, code=1008)
    assert session.data_to_send() == [b"ERROR\nmessage:access refused\\c '/secret'\nreceipt-id:5\n\n\0"]
    assert session.closing is not None
    assert (session.closing.code, session.closing.reason) == (1008, "access refused: '/secret'")


def test_an_error_of_several_lines_is_one_line_in_its_header() -> None:
    session = connected("1.0")
    session.error("first\nsecond")
    assert session.data_to_send() == [b"ERROR\nmessage:first second\n\n\0"]


# --- SEND and RECEIPT ---


def test_send_has_its_destination_body_and_user_headers() -> None:
    event = one(connected(), b"SEND\ndestination:/t\nreceipt:1\ncontent-type:text/plain\nmine:x\nmine:y\n\nhello\0")
    assert isinstance(event, Send)
    assert (event.destination, event.body, event.receipt) == ("/t", b"hello", "1")
    assert event.headers == (("content-type", "text/plain"), ("mine", "x"))


def test_every_frame_may_request_a_receipt() -> None:
    session = connected()
    for number, frame in enumerate(
        (
            "SEND\ndestination:/t\n",
            "SUBSCRIBE\nid:1\ndestination:/t\n",
            "UNSUBSCRIBE\nid:1\n",
            "BEGIN\ntransaction:t\n",
            "SEND\ndestination:/t\ntransaction:t\n",
            "ABORT\ntransaction:t\n",
            "BEGIN\ntransaction:t\n",
            "COMMIT\ntransaction:t\n",
            "DISCONNECT\n",
        )
    ):
        for event in session.receive_data(f"{frame}receipt:r{number}\n\n\0"):
            session.done(event)
        assert session.data_to_send() == [b"RECEIPT\nreceipt-id:r%d\n\n\0" % number]


def test_receipts_are_sent_in_the_order_of_the_frames() -> None:
    session = connected()
    sends = session.receive_data(b"".join(b"SEND\ndestination:/t\nreceipt:%d\n\n\0" % n for n in range(3)))
    session.done(sends[2])
    session.done(sends[1])
    assert session.data_to_send() == []
    session.done(sends[0])
    assert session.data_to_send() == [b"RECEIPT\nreceipt-id:%d\n\n\0" % n for n in range(3)]


def test_a_receipt_waits_for_earlier_frames_without_a_receipt() -> None:
    session = connected()
    silent, loud = session.receive_data(b"SEND\ndestination:/t\n\n\0SEND\ndestination:/t\nreceipt:1\n\n\0")
    session.done(loud)
    assert session.data_to_send() == []
    session.done(silent)
    assert session.data_to_send() == [b"RECEIPT\nreceipt-id:1\n\n\0"]


def test_a_failed_frame_has_no_receipt_and_blocks_no_other() -> None:
    session = connected()
    first, second = session.receive_data(b"SEND\ndestination:/t\nreceipt:1\n\n\0SEND\ndestination:/t\nreceipt:2\n\n\0")
    session.done(second)
    session.failed(first)
    assert session.data_to_send() == [b"RECEIPT\nreceipt-id:2\n\n\0"]


def test_answering_an_event_twice_is_an_error() -> None:
    session = connected()
    event = one(session, b"SEND\ndestination:/t\n\n\0")
    session.done(event)
    with pytest.raises(LocalProtocolError, match="answered already"):
        session.done(event)


# --- DISCONNECT and shutdown ---


def test_disconnect_closes_after_its_receipt() -> None:
    session = connected()
    send, disconnect = session.receive_data(b"SEND\ndestination:/t\n\n\0DISCONNECT\nreceipt:77\n\n\0SEND\n\n\0garbage")
    assert isinstance(disconnect, Disconnect)
    session.done(disconnect)
    assert session.closing is None  # the SEND before it is not done
    session.done(send)
    assert session.data_to_send() == [b"RECEIPT\nreceipt-id:77\n\n\0"]
    assert session.closing is not None
    assert (session.closing.code, session.closing.error) == (1000, None)


def test_disconnect_without_a_receipt_is_a_clean_close() -> None:
    session = connected()
    session.done(one(session, b"DISCONNECT\n\n\0"))
    assert session.data_to_send() == []
    assert session.closing is not None
    assert session.closing.code == 1000


def test_frames_after_disconnect_are_ignored() -> None:
    session = connected()
    event = one(session, b"DISCONNECT\n\n\0")
    assert session.receive_data(b"SEND\ndestination:/t\n\n\0") == []
    session.done(event)
    assert session.data_to_send() == []


def test_shutdown_closes_with_1001_and_without_an_error() -> None:
    session = connected()
    session.shut_down("back soon")
    assert session.data_to_send() == []
    assert session.closing is not None
    assert (session.closing.code, session.closing.reason) == (1001, "back soon")


# --- Subscriptions and acknowledgement ---


def test_a_subscription_is_listed_until_it_ends() -> None:
    session = connected()
    event = one(session, b"SUBSCRIBE\nid:a\ndestination:/t\nlast-id:7-0\n\n\0")
    assert isinstance(event, Subscribe)
    subscription = event.subscription
    assert (subscription.id, subscription.destination, subscription.ack) == ("a", "/t", AckMode.AUTO)
    assert subscription.get("last-id") == "7-0"
    assert subscription.prefix == b"MESSAGE\nsubscription:a\n"
    assert session.subscriptions == {"a": subscription}
    gone = one(session, b"UNSUBSCRIBE\nid:a\n\n\0")
    assert isinstance(gone, Unsubscribe)
    assert gone.subscription is subscription
    assert session.subscriptions == {}


def test_a_subscription_id_is_used_once() -> None:
    session = connected()
    subscribed(session, id="1")
    assert message_of(fault(session, b"SUBSCRIBE\nid:1\ndestination:/u\n\n\0")) == "subscription '1' exists already"


def test_in_1_0_a_subscription_is_identified_by_its_destination() -> None:
    session = connected("1.0")
    event = one(session, b"SUBSCRIBE\ndestination:/t\n\nignored\0")
    assert isinstance(event, Subscribe)
    session.message(event.subscription, MessageFrame("/t", "1", b"x"))
    assert session.data_to_send() == [b"MESSAGE\nmessage-id:1\ndestination:/t\ncontent-length:1\n\nx\0"]
    assert isinstance(one(session, b"UNSUBSCRIBE\ndestination:/t\n\n\0"), Unsubscribe)


def test_auto_mode_needs_no_acknowledgement() -> None:
    session = connected()
    subscription = subscribed(session)
    assert session.message(subscription, MessageFrame("/t", "1", b"x"))
    assert session.data_to_send() == [b"MESSAGE\nsubscription:s\nmessage-id:1\ndestination:/t\ncontent-length:1\n\nx\0"]
    assert not subscription.pending


@pytest.mark.parametrize(
    ("version", "acks"),
    [
        ("1.2", [b"ACK\nid:%d\n\n\0" % n for n in (1, 2, 3)]),
        ("1.1", [b"ACK\nsubscription:s\nmessage-id:m%d\n\n\0" % n for n in (1, 2, 3)]),
        ("1.0", [b"ACK\nmessage-id:m%d\n\n\0" % n for n in (1, 2, 3)]),
    ],
)
@pytest.mark.parametrize("ack", ["client", "client-individual"])
def test_messages_are_pending_until_acknowledged(version: str, acks: list[bytes], ack: str) -> None:
    session = connected(version)
    subscription = subscribed(session, ack)
    for n in (1, 2, 3):
        assert session.message(subscription, MessageFrame("/t", f"m{n}", b""))
    (first, _, _) = session.data_to_send()
    assert (b"\nack:1\n" in first) == (version == "1.2")
    event = one(session, acks[1])
    assert isinstance(event, Ack)
    cumulative = ack == "client"  # "and all messages sent to the subscription before the ACK'ed message"
    assert [delivery.message.id for delivery in event.deliveries] == (["m1", "m2"] if cumulative else ["m2"])
    assert [delivery.message.id for delivery in subscription.pending.values()] == (
        ["m3"] if cumulative else ["m1", "m3"]
    )
    assert message_of(fault(session, acks[1])).endswith("no such message waits to be acknowledged")


@pytest.mark.parametrize(("ack", "refused"), [("client", ["m1", "m2"]), ("client-individual", ["m2"])])
def test_nack_returns_the_delivery_and_a_redelivery_is_marked(ack: str, refused: list[str]) -> None:
    session = connected()
    subscription = subscribed(session, ack)
    for n in (1, 2):
        session.message(subscription, MessageFrame("/t", f"m{n}", b""))
    session.data_to_send()
    event = one(session, b"NACK\nid:2\nreceipt:r\n\n\0")
    assert isinstance(event, Nack)
    assert [delivery.message.id for delivery in event.deliveries] == refused
    for delivery in event.deliveries:
        session.message(delivery.subscription, delivery.message, delivery.attempt + 1)
    again = session.data_to_send()
    assert again[-1] == (
        b"MESSAGE\nsubscription:s\nredelivered:true\nack:%d\nmessage-id:m2\ndestination:/t\n\n\0" % (2 + len(refused))
    )
    assert [delivery.attempt for delivery in subscription.pending.values()][-1] == 2


def test_subscriptions_are_acknowledged_independently() -> None:
    session = connected()
    one_, two = subscribed(session, "client", "a"), subscribed(session, "client", "b")
    message = MessageFrame("/t", "m", b"")
    session.message(one_, message)
    session.message(two, message)
    event = one(session, b"ACK\nid:2\n\n\0")
    assert isinstance(event, Ack)
    assert [delivery.subscription for delivery in event.deliveries] == [two]
    assert len(one_.pending) == 1


def test_unacknowledged_deliveries_are_returned_when_the_session_ends() -> None:
    session = connected()
    first, second = subscribed(session, "client", "a"), subscribed(session, "client-individual", "b")
    session.message(first, MessageFrame("/t", "1", b""))
    session.message(second, MessageFrame("/t", "2", b""))
    event = one(session, b"UNSUBSCRIBE\nid:a\n\n\0")
    assert isinstance(event, Unsubscribe)
    assert [delivery.message.id for delivery in event.unacknowledged] == ["1"]
    assert [delivery.message.id for delivery in session.end()] == ["2"]
    assert session.end() == []


def test_nothing_is_sent_to_a_subscription_or_a_session_that_has_ended() -> None:
    session = connected()
    subscription = subscribed(session, "client")
    session.done(one(session, b"UNSUBSCRIBE\nid:s\n\n\0"))
    assert not session.message(subscription, MessageFrame("/t", "1", b""))
    again = subscribed(session)
    session.end()
    assert not session.message(again, MessageFrame("/t", "1", b""))
    assert session.data_to_send() == []


def test_a_client_that_never_acknowledges_is_closed_at_the_limit() -> None:
    session = connected(limits=Limits(max_unacknowledged=2))
    subscription = subscribed(session, "client")
    assert session.message(subscription, MessageFrame("/t", "1", b""))
    assert session.has_room(subscription)
    assert session.message(subscription, MessageFrame("/t", "2", b""))
    assert not session.has_room(subscription)
    assert not session.message(subscription, MessageFrame("/t", "3", b""))
    assert message_of(session.data_to_send()[-1]) == "2 messages unacknowledged on 's'"


# --- Transactions ---


def test_a_transaction_has_no_effect_before_its_commit() -> None:
    session = connected()
    subscription = subscribed(session, "client")
    session.message(subscription, MessageFrame("/t", "m", b""))
    session.data_to_send()
    frames = (
        b"BEGIN\ntransaction:t\n\n\0SEND\ndestination:/t\ntransaction:t\nreceipt:1\n\nx\0ACK\nid:1\ntransaction:t\n\n\0"
    )
    assert session.receive_data(frames) == []
    assert session.data_to_send() == [b"RECEIPT\nreceipt-id:1\n\n\0"]  # which means only that the frame is stored
    assert len(subscription.pending) == 1
    commit = one(session, b"COMMIT\ntransaction:t\nreceipt:2\n\n\0")
    assert isinstance(commit, Commit)
    send, ack = commit.events
    assert isinstance(send, Send)
    assert isinstance(ack, Ack)
    assert (send.body, send.receipt, [d.message.id for d in ack.deliveries]) == (b"x", "2", ["m"])
    session.done(ack)
    session.done(commit)
    assert session.data_to_send() == []
    session.done(send)
    assert session.data_to_send() == [b"RECEIPT\nreceipt-id:2\n\n\0"]


def test_a_commit_with_a_failed_part_has_no_receipt() -> None:
    session = connected()
    session.receive_data(b"BEGIN\ntransaction:t\n\n\0" + b"SEND\ndestination:/t\ntransaction:t\n\nx\0" * 2)
    commit = one(session, b"COMMIT\ntransaction:t\nreceipt:2\n\n\0")
    assert isinstance(commit, Commit)
    session.failed(commit.events[0])
    session.done(commit.events[1])
    session.done(commit)
    assert session.data_to_send() == []
    session.done(one(session, b"SEND\ndestination:/t\nreceipt:3\n\n\0"))
    assert session.data_to_send() == [b"RECEIPT\nreceipt-id:3\n\n\0"]


def test_abort_discards_the_transaction() -> None:
    session = connected()
    subscription = subscribed(session, "client")
    session.message(subscription, MessageFrame("/t", "m", b""))
    frames = b"BEGIN\ntransaction:t\n\n\0SEND\ndestination:/t\ntransaction:t\n\nx\0NACK\nid:1\ntransaction:t\n\n\0"
    assert session.receive_data(frames + b"ABORT\ntransaction:t\n\n\0") == []
    assert len(subscription.pending) == 1
    session.data_to_send()
    assert message_of(fault(session, b"COMMIT\ntransaction:t\n\n\0")) == "transaction 't' has not begun"


def test_a_commit_skips_messages_acknowledged_since() -> None:
    session = connected()
    subscription = subscribed(session, "client")
    for name in ("m1", "m2"):
        session.message(subscription, MessageFrame("/t", name, b""))
    session.receive_data(b"BEGIN\ntransaction:t\n\n\0ACK\nid:1\ntransaction:t\n\n\0")
    session.done(one(session, b"ACK\nid:2\n\n\0"))  # cumulative: it covers the first one too
    session.data_to_send()
    commit = one(session, b"COMMIT\ntransaction:t\nreceipt:1\n\n\0")
    assert isinstance(commit, Commit)
    (ack,) = commit.events
    assert isinstance(ack, Ack)
    assert list(ack.deliveries) == []
    session.done(ack)
    session.done(commit)
    assert session.data_to_send() == [b"RECEIPT\nreceipt-id:1\n\n\0"]


def test_a_commit_with_an_ack_of_an_ended_subscription_is_an_error() -> None:
    session = connected()
    session.message(subscribed(session, "client"), MessageFrame("/t", "m", b""))
    session.receive_data(b"BEGIN\ntransaction:t\n\n\0ACK\nid:1\ntransaction:t\n\n\0")
    session.done(one(session, b"UNSUBSCRIBE\nid:s\n\n\0"))  # its unacknowledged message is returned
    session.data_to_send()
    error = fault(session, b"COMMIT\ntransaction:t\n\n\0")
    assert message_of(error) == "ACK of id '1': no such message waits to be acknowledged"


def test_transactions_are_independent() -> None:
    session = connected()
    for name in "ab":
        session.receive_data(f"BEGIN\ntransaction:{name}\n\n\0SEND\ndestination:/t\ntransaction:{name}\n\n{name}\0")
    commit = one(session, b"COMMIT\ntransaction:b\n\n\0")
    assert isinstance(commit, Commit)
    assert [event.body for event in commit.events if isinstance(event, Send)] == [b"b"]


def test_two_open_transactions_cannot_have_the_same_name() -> None:
    session = connected()
    error = fault(session, b"BEGIN\ntransaction:t\n\n\0BEGIN\ntransaction:t\n\n\0")
    assert message_of(error) == "transaction 't' has begun already"


# --- Limits ---


@pytest.mark.parametrize(
    ("limits", "data", "message"),
    [
        (
            Limits(max_subscriptions=1),
            b"SUBSCRIBE\nid:2\ndestination:/t\n\n\0",
            "too many subscriptions: at most 1 are allowed",
        ),
        (
            Limits(max_transactions=1),
            b"BEGIN\ntransaction:a\n\n\0BEGIN\ntransaction:b\n\n\0",
            "too many open transactions: at most 1 are allowed",
        ),
        (
            Limits(max_transaction_frames=2),
            b"BEGIN\ntransaction:a\n\n\0" + b"SEND\ndestination:/t\ntransaction:a\n\n\0" * 3,
            "transaction 'a' holds too many frames: at most 2 are allowed",
        ),
        (
            Limits(max_transaction=99),
            b"BEGIN\ntransaction:a\n\n\0" + b"SEND\ndestination:/t\ntransaction:a\n\n123456789\0" * 3,
            "transaction 'a' is too large: at most 99 octets are allowed",
        ),
        (
            Limits(max_frame=60),
            b"SEND\ndestination:/t\n\n" + b"x" * 99,
            "frame of 120 octets or more: at most 60 are allowed",
        ),
        (
            Limits(max_headers=3),
            b"SEND\na:1\nb:2\nc:3\nd:4\n\n\0",
            "frame with 4 headers or more: at most 3 are allowed",
        ),
        (
            Limits(max_header=40),
            b"SEND\ndestination:/t\nx:" + b"y" * 39 + b"\n\n\0",
            "header line of 41 octets or more: at most 40 are allowed",
        ),
    ],
)
def test_exceeding_each_limit_has_its_own_error(limits: Limits, data: bytes, message: str) -> None:
    session = connected(limits=limits)
    subscribed(session)
    assert message_of(fault(session, data)) == message


# --- Time ---


def test_a_client_that_never_sends_connect_is_closed() -> None:
    clock = Clock()
    session = ServerSession(connect_timeout=10, clock=clock)
    assert session.deadline() == 1010
    session.tick()
    assert session.closing is None
    clock.now = 1010
    session.tick()
    assert b"message:no CONNECT within 10 s" in session.data_to_send()[0]
    assert session.deadline() is None


def beating(clock: Clock, client: str) -> ServerSession:
    session = ServerSession(heart_beat=(1000, 2000), clock=clock)
    session.receive_data(f"CONNECT\naccept-version:1.2\nheart-beat:{client}\n\n\0")
    session.connected()
    session.data_to_send()
    return session


def test_heart_beats_are_sent_when_nothing_else_is() -> None:
    clock = Clock()
    session = beating(clock, "0,1000")
    assert session.deadline() == pytest.approx(1000.8)
    clock.now = 1000.5
    session.done(one(session, b"SEND\ndestination:/t\nreceipt:1\n\n\0"))
    session.data_to_send()
    assert session.deadline() == pytest.approx(1001.3)  # a frame counts as a heart-beat
    clock.now = 1000.9
    session.record_sent()
    assert session.deadline() == pytest.approx(1001.7)  # so does data sent past the session
    clock.now = 1001.7
    session.tick()
    assert session.data_to_send() == [b"\n"]


def test_a_client_that_falls_silent_is_closed_with_an_error() -> None:
    clock = Clock()
    session = beating(clock, "2000,0")
    assert session.deadline() == 1003.0
    clock.now = 1002.9
    session.receive_data(b"\n")
    clock.now = 1003.0
    session.tick()
    assert session.closing is None
    clock.now = 1005.9
    session.receive_data(b"SEND\ndesti")  # any octets count, even an incomplete frame
    clock.now = 1008.9
    session.tick()
    (error,) = session.data_to_send()
    assert message_of(error) == "nothing received for 3 s: heart-beats were agreed on"


def test_without_heart_beats_there_is_no_deadline() -> None:
    session = beating(Clock(), "0,0")
    assert session.deadline() is None
    session.tick()
    assert session.data_to_send() == []
    assert session.state is SessionState.CONNECTED
