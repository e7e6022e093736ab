"""What is sent to the article's chat, frame by frame, to see what comes back. Both programs get the same octets.

A case is the WebSocket messages that one client sends, in order. What a case shows is in the recording.
"""

from __future__ import annotations

from dataclasses import dataclass

CONNECT = "CONNECT\naccept-version:1.2\nhost:x\n\n\0"
SUBSCRIBE = "SUBSCRIBE\nid:s\ndestination:/topic/public\n\n\0"
CALL = "/app/chat.sendMessage"
TOPIC = "/topic/public"


def send(body: str, destination: str = CALL, headers: str = "") -> str:
    """Return a SEND; `headers` are lines, each with its line feed."""
    return f"SEND\ndestination:{destination}\n{headers}\n{body}\0"


@dataclass(frozen=True, slots=True)
class Case:
    """One client's messages."""

    name: str
    messages: tuple[str, ...]


def _connected(name: str, *messages: str) -> Case:
    """Return the case of a client that has connected and subscribed."""
    return Case(name, (CONNECT, SUBSCRIBE, *messages))


def _connecting(name: str, headers: str, *messages: str, command: str = "CONNECT") -> Case:
    return Case(name, (f"{command}\n{headers}\n\0", *messages))


CONNECTING = (
    _connecting("version 1.1 is the best in common", "accept-version:1.0,1.1\nhost:x\n"),
    _connecting("version 1.0", "accept-version:1.0\n"),
    _connecting(
        "no version in common: silence, and messages", "accept-version:9\n", SUBSCRIBE, send('{"content":"x"}')
    ),
    _connecting("no version named: silence", "host:x\n"),
    _connecting("STOMP instead of CONNECT", "accept-version:1.2\nhost:x\n", command="STOMP"),
    _connecting("heart-beats are not agreed to", "accept-version:1.2\nhost:x\nheart-beat:1000,1000\n"),
    _connecting("a heart-beat that is no number", "accept-version:1.2\nhost:x\nheart-beat:x\n"),
    _connecting("lines end with CR LF", "accept-version:1.2\r\nhost:x\r\n\r"),
    Case("CONNECT twice: ERROR", (CONNECT, CONNECT)),
    Case("SUBSCRIBE before CONNECT: ERROR", (SUBSCRIBE,)),
    Case("a line feed between frames", (CONNECT, "\n", SUBSCRIBE)),
    Case("half a frame waits", (CONNECT, "SEND\ndestination:/topic/public\n\nabc")),
    Case("no frame at all waits", ("garbage",)),
)
CALLS = (
    _connected(
        "one message", send('{"content":"안녕"}', headers="content-type:application/json\nfoo:bar\nreceipt:9\n")
    ),
    _connected("an unknown field is ignored", send('{"content":"x","sender":"y"}')),
    _connected("no content is null", send("{}")),
    _connected("a number becomes text", send('{"content":1.50}')),
    _connected("a boolean becomes text", send('{"content":true}')),
    _connected("a JSON string alone is a message", send('"s"')),
    _connected("what follows the object is ignored", send('{"content":"x"} and more')),
    _connected("control characters, quotes and emoji", send('{"content":"\\u001f<\\/\\"\\u007f\\n😀"}')),
    _connected("bad JSON: silence", send('{"con')),
    _connected("an array: silence", send("[]")),
    _connected("a number: silence", send("5")),
    _connected("an object as content: silence", send('{"content":{}}')),
    _connected("an empty body: silence", send("")),
    _connected("null: silence", send("null")),
    _connected("text/plain: silence", send('{"content":"x"}', headers="content-type:text/plain\n")),
    _connected("two subscriptions", SUBSCRIBE.replace("id:s", "id:t"), send('{"content":"x"}')),
    _connected("the same subscription twice", SUBSCRIBE, send('{"content":"x"}')),
    _connected("unsubscribed", "UNSUBSCRIBE\nid:s\n\n\0", send('{"content":"x"}')),
    Case("a pattern", (CONNECT, SUBSCRIBE.replace("/public", "/*"), send('{"content":"x"}'))),
    _connected("two frames in one message", send('{"content":"x"}') + send("raw", TOPIC)),
)
TOPICS = (
    _connected(
        "a SEND to the topic goes out with all its headers",
        send("raw text", TOPIC, "receipt:1\nfoo:bar\nmessage-id:mine\nsubscription:other\n"),
    ),
    _connected("repeated headers", send("hm", TOPIC, "a:1\nb:x\na:2\ncontent-type:text/plain\ncontent-length:2\n")),
    _connected("escapes", send("hm", TOPIC, "a\\cb:c\\nd\\\\e\n")),
    _connected(
        "a transaction is ignored", "BEGIN\ntransaction:t\nreceipt:2\n\n\0", send("hm", TOPIC, "transaction:t\n")
    ),
    _connected("no destination: silence", "SEND\n\n{}\0"),
    _connected("an unknown destination: silence", send("{}", "/nowhere")),
    _connected("no such handler: silence", send("{}", "/app/none")),
    Case("SUBSCRIBE without an id: silence", (CONNECT, SUBSCRIBE.replace("id:s\n", ""), send("hm", TOPIC))),
    Case("SUBSCRIBE without a destination: silence", (CONNECT, "SUBSCRIBE\nid:1\n\n\0")),
    Case("a receipt for SUBSCRIBE never comes", (CONNECT, SUBSCRIBE.replace("id:s", "id:s\nreceipt:5"))),
    Case("receipts for ACK and BEGIN never come", (CONNECT, "ACK\nid:1\nreceipt:1\n\n\0")),
)
ENDS = (
    Case("an unknown command: ERROR", (CONNECT, "HELLO\n\n\0")),
    Case("a bad escape: ERROR", (CONNECT, "SEND\ndestination:/topic/a\nx:a\\tb\n\n\0")),
    Case("a header without a colon: ERROR", (CONNECT, "SEND\nfoo\n\n\0")),
    Case("a wrong content-length: ERROR", (CONNECT, send("abcdef", TOPIC, "content-length:3\n"))),
    Case("DISCONNECT with a receipt", (CONNECT, "DISCONNECT\nreceipt:7\n\n\0")),
    Case("DISCONNECT without one: ERROR", (CONNECT, "DISCONNECT\n\n\0")),
    _connected("after DISCONNECT a message is stored", "DISCONNECT\nreceipt:7\n\n\0", send('{"content":"late"}')),
)
CASES = (*CONNECTING, *CALLS, *TOPICS, *ENDS)
