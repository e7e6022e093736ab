"""The article's own programs beside our rebuild of them: the same octets to both, and a recording of the original."""

from chatlab.lab.original.live import Live, start
from chatlab.lab.original.observe import recording

__all__ = ["Live", "recording", "start"]
