"""Every error chatlab raises, and whose fault it is.

    ChatlabError
    ├── LocalProtocolError        our fault: the calling code did something the protocol forbids
    ├── RemoteProtocolError       the peer's fault: it sent something the protocol forbids
    │   ├── HandshakeError            an upgrade is refused: the HTTP status to answer with
    │   ├── WebSocketError            a frame or message is refused: the close code to answer with
    │   ├── StompError                a STOMP frame is refused: the text of the ERROR frame
    │   └── MessageRefused            a handler rejects a message: the field at fault; the session stays open
    ├── NoHandler                 the application has no handler for a destination
    ├── NotNow                    a job cannot be done at present, through no fault of its record
    ├── SetupError                something on this machine is missing, taken or misspelled; `remedy` says what to do
    │   ├── WrongAddress              a URL that no Redis server can have
    │   ├── EngineMissing             no server of that kind was found
    │   └── EngineUnreachable         a server was named, but it does not answer
    └── BrokerError               a broker could not do what it was asked to do
        ├── BrokerUnavailable         the engine does not answer; `outcome_unknown` says what that means for a publish
        │   ├── BrokerClosed              the broker was closed by its owner; retrying is pointless
        │   ├── LinkLost                  one connection to the engine broke
        │   └── StillLoading              a Redis server is loading its data from disk
        └── SubscriptionLost          a subscription ended; the message says why

An error's message is a short fact in lower case with the value that broke the rule.
"""

from __future__ import annotations


class ChatlabError(Exception):
    """The base class of every error that chatlab raises."""


class LocalProtocolError(ChatlabError):
    """Our own code did something the protocol does not allow in this state."""


class RemoteProtocolError(ChatlabError):
    """The peer sent something the protocol does not allow."""


class HandshakeError(RemoteProtocolError):
    """An opening handshake that must be refused (RFC 6455, section 4).

    `status` is the HTTP status to answer with; `headers` are added to that answer.
    """

    def __init__(self, message: str, status: int = 400, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class WebSocketError(RemoteProtocolError):
    """Bytes that fail the WebSocket connection (RFC 6455, section 7.1.7); `code` is the close code to send."""

    def __init__(self, message: str, code: int = 1002) -> None:
        super().__init__(message)
        self.code = code


class StompError(RemoteProtocolError):
    """A STOMP frame that must be answered with ERROR; `receipt_id` is the receipt the frame requested, if any.

    `budget` names the limit the client has reached, if that is the reason.
    """

    def __init__(self, message: str, receipt_id: str | None = None, detail: str = "", *, budget: str = "") -> None:
        super().__init__(message)
        self.receipt_id = receipt_id
        self.detail = detail
        self.budget = budget


def over_budget(budget: str, reason: str) -> StompError:
    """Return the error for a client that has reached a limit; the ERROR frame's `limit` header names it."""
    return StompError(reason, budget=budget)


class MessageRefused(RemoteProtocolError):
    """A message that its handler rejects; `field` names the part at fault, "" for the whole message."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class NoHandler(ChatlabError, LookupError):
    """The application has no handler for this destination."""


class NotNow(ChatlabError):
    """A job's work cannot be done at present (the disk is full, say). Try again later: the record is not at fault."""


class SetupError(ChatlabError):
    """Something this machine lacks or has misconfigured; `remedy` is the one thing to do about it."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.remedy = remedy


class WrongAddress(SetupError, ValueError):
    """A URL that no Redis server can have, whatever its options."""


class EngineMissing(SetupError):
    """No server of this kind was found; `remedy` is the command that installs it."""


class EngineUnreachable(SetupError):
    """A server was named by URL but does not answer there."""


class BrokerError(ChatlabError):
    """A broker could not do what it was asked to do. If that was a publish, the record was not stored."""

    outcome_unknown = False


class BrokerUnavailable(BrokerError):
    """The engine behind the broker does not answer.

    With `outcome_unknown`, the request may have been carried out: a record may still be delivered. Without it, the
    request was not carried out and will not be.
    """

    def __init__(self, message: str = "", *, outcome_unknown: bool = True) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class BrokerClosed(BrokerUnavailable):
    """The broker object has been closed: every further call fails."""

    def __init__(self, message: str = "this broker is closed") -> None:
        super().__init__(message, outcome_unknown=False)


class LinkLost(BrokerUnavailable):
    """A connection to the engine broke. Requests sent but not answered may or may not have been carried out."""


class StillLoading(BrokerUnavailable):
    """A Redis server answers, but only after it has loaded its data from disk."""


class SubscriptionLost(BrokerError):
    """A subscription ended although its reader did not close it; records may be missed until the next one.

    `resume`: if records were deleted, the id after which a new subscription misses no more of them. None if the engine
    cannot say, or if nothing is lost by reading on after the last record received. `restarted`: ids to come may be
    smaller than those already received.
    """

    def __init__(self, message: str, *, resume: str | None = None, restarted: bool = False) -> None:
        super().__init__(message)
        self.resume = resume
        self.restarted = restarted


def unpublished(error: BaseException, what_to_do: str = "") -> str:
    """Return the text for the sender of a message whose publish ended with `error`.

    A message that was certainly not stored is "refused". Any other may still arrive: it is "not confirmed", followed
    by `what_to_do`, for callers whose message may safely be sent again.
    """
    if isinstance(error, BrokerError) and not error.outcome_unknown:
        return f"refused: {error}"
    reason = str(error) if isinstance(error, BrokerError) else "the broker failed"
    return "; ".join(filter(None, (f"not confirmed: {reason}", "it may still be delivered", what_to_do)))
