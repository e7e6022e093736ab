"""Translate what a person reads: panels, verdicts, checks, hints, pages, the command line.

    _("The room is closing.")
    _("{name} joined ({count} here)").format(name=name, count=count)
    ngettext("{count} message", "{count} messages", count).format(count=count)

A message is a whole sentence with named placeholders, never glued from pieces: languages order their words differently.
`CHATLAB_LANG` names the language, as "ko"; without a catalogue for it, the text stays English. Not translated: log
lines, what a server says on the wire, and docstrings.
"""

from __future__ import annotations

import gettext
import os
from pathlib import Path

__all__ = ["DOMAIN", "FOLDER", "_", "language", "ngettext", "shown_language"]

DOMAIN = "chatlab"
FOLDER = Path(__file__).parent


def language() -> str:
    """Return the code of the language asked for: "en" unless `CHATLAB_LANG` names another."""
    return os.environ.get("CHATLAB_LANG", "") or "en"


def shown_language() -> str:
    """Return the code of the language that texts are in: "en" if the one asked for has no catalogue."""
    return language() if isinstance(_catalogue, gettext.GNUTranslations) else "en"


_catalogue = gettext.translation(DOMAIN, FOLDER, [language()], fallback=True)
_ = _catalogue.gettext
ngettext = _catalogue.ngettext
