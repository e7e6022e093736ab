"""STOMP frames on a WebSocket: one message each, text if it is UTF-8."""

from chatlab.chat.delivery.transport import WEBSOCKET_FRAMING


def test_each_stomp_frame_is_one_text_message() -> None:
    assert WEBSOCKET_FRAMING.frame([b"A\n\n\0", b"B\n\n\0"]) == b"\x81\x04A\n\n\0\x81\x04B\n\n\0"


def test_a_frame_that_is_not_utf_8_is_a_binary_message() -> None:
    assert WEBSOCKET_FRAMING.frame([b"A\n\n\xff\0"]) == b"\x82\x05A\n\n\xff\0"
