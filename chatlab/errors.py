"""Every error chatlab raises, and whose fault it is.

    ChatlabError
    ├── LocalProtocolError        ours: the calling code asked for what the protocol forbids
    ├── RemoteProtocolError       the peer's: it sent what the protocol forbids
    │   ├── HandshakeError            an upgrade refused: the HTTP status to answer with
    │   ├── WebSocketError            a frame or message refused: the close code to answer with
    │   ├── StompError                a STOMP frame refused: what to say in the ERROR frame
    │   └── MessageRefused            a message its handler does not take: the field at fault; the session stays
    ├── NotNow                    a job's: its work cannot be done at present, and the record is not at fault
    ├── SetupError                the set-up's: something is missing, taken or misspelled; `remedy` says what to do
    │   ├── EngineMissing             no server of that kind here
    │   └── EngineUnreachable         a server is named, but it does not answer
    └── BrokerError               a broker could not do what it was asked
        ├── BrokerUnavailable         the engine does not answer; `outcome_unknown` says what that means for a publish
        │   └── BrokerClosed              this broker was closed by its owner: there is no point in trying again
        └── SubscriptionLost          this subscription has ended, with the reason

The message of an error is a short fact in lower case that holds the value which broke the rule.
"""

from __future__ import annotations


class ChatlabError(Exception):
    """The root: `except ChatlabError` catches all that chatlab itself raises."""


class LocalProtocolError(ChatlabError):
    """Our own code asked for something the protocol does not allow in this state."""


class RemoteProtocolError(ChatlabError):
    """The peer sent something the protocol does not allow."""


class HandshakeError(RemoteProtocolError):
    """An opening handshake that must be refused (RFC 6455, section 4).

    `status` is the HTTP status to answer with; `headers` go into that answer.
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
    """A STOMP frame that must be answered with ERROR; `receipt_id` is the receipt the frame asked for, if any.

    `budget` names the limit that the client has come to, if that is the reason.
    """

    def __init__(self, message: str, receipt_id: str | None = None, detail: str = "", *, budget: str = "") -> None:
        super().__init__(message)
        self.receipt_id = receipt_id
        self.detail = detail
        self.budget = budget


def over_budget(budget: str, reason: str) -> StompError:
    """Return the error of a client that has come to a limit; the ERROR frame names it in its header `limit`."""
    return StompError(reason, budget=budget)


class MessageRefused(RemoteProtocolError):
    """A message whose handler does not take it; `field` names the part at fault, "" if the whole is."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class SetupError(ChatlabError):
    """Something this machine lacks or has set wrongly; `remedy` is the one thing to do about it."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.remedy = remedy


class EngineMissing(SetupError):
    """No server of this kind was found; `remedy` is the command that brings it."""


class EngineUnreachable(SetupError):
    """A server was named by URL but does not answer there."""


class NotNow(ChatlabError):
    """Work on a record cannot be done at present (a full disk, say): try again later, it is no fault of the record."""


class BrokerError(ChatlabError):
    """A broker could not do what it was asked. If that was to publish, the record was not taken."""

    outcome_unknown = False


class BrokerUnavailable(BrokerError):
    """The engine behind the broker does not answer.

    With `outcome_unknown`, what was asked may have been done: a record may still be delivered. Without it, it was not
    done and will not be.
    """

    def __init__(self, message: str = "", *, outcome_unknown: bool = True) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class BrokerClosed(BrokerUnavailable):
    """The broker object has been closed: whatever is asked of it now fails, and will fail again."""

    def __init__(self, message: str = "this broker is closed") -> None:
        super().__init__(message, outcome_unknown=False)


class SubscriptionLost(BrokerError):
    """A subscription ended for a reason its reader did not choose; what came in between may be lost.

    `resume`: if records are gone, the id after which a new subscription misses no further ones; None if the engine
    cannot say, or if reading on after the last record received loses nothing. `restarted`: the ids to come may be
    smaller than those received.
    """

    def __init__(self, message: str, *, resume: str | None = None, restarted: bool = False) -> None:
        super().__init__(message)
        self.resume = resume
        self.restarted = restarted


def unpublished(error: BaseException, what_to_do: str = "") -> str:
    """Return what to tell the sender of a message whose publish ended with `error`.

    Only what surely was not taken is called refused. Everything else may still arrive, and is called not confirmed;
    then comes `what_to_do`, where a repeat does no harm.
    """
    if isinstance(error, BrokerError) and not error.outcome_unknown:
        return f"refused: {error}"
    reason = str(error) if isinstance(error, BrokerError) else "the broker failed"
    return "; ".join(filter(None, (f"not confirmed: {reason}", "it may still be delivered", what_to_do)))
