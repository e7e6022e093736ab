"""The wire: a relay that records and spoils what passes, and the ways to read what it saw."""

from chatlab.lab.wire.trace import Trace, dissect
from chatlab.lab.wire.wire import Wire

__all__ = ["Trace", "Wire", "dissect"]
