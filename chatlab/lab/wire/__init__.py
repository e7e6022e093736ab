"""The wire: a relay that records and damages traffic, and the ways to read its recording."""

from chatlab.lab.wire.trace import Trace, dissect
from chatlab.lab.wire.wire import Wire

__all__ = ["Trace", "Wire", "dissect"]
