"""Translate what a person reads: panels, verdicts, checks, hints, pages, the command line.

    _("The room is closing.")
    _("{name} joined ({count} here)").format(name=name, count=count)
    ngettext("{count} message", "{count} messages", count).format(count=count)

A message is a whole sentence with named placeholders, never glued from pieces: languages order their words differently.
`CHATLAB_LANG` names the language, as "ko"; without a catalogue for it, the English stands. Not translated: log lines,
what a server says on the wire, and docstrings.
"""

from __future__ import annotations

import gettext
import os
from pathlib import Path

__all__ = ["DOMAIN", "FOLDER", "_", "language", "ngettext"]

DOMAIN = "chatlab"
FOLDER = Path(__file__).parent


def language() -> str:
    """Return the code of the language that a person reads here: "en" unless `CHATLAB_LANG` names another."""
    return os.environ.get("CHATLAB_LANG", "") or "en"


_catalogue = gettext.translation(DOMAIN, FOLDER, [language()], fallback=True)
_ = _catalogue.gettext
ngettext = _catalogue.ngettext
