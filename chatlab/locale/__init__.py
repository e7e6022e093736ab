"""Translate what a person reads: panels, verdicts, checks, hints, pages, the command line.

    _("The room is closing.")
    _("{name} joined ({count} here)").format(name=name, count=count)
    ngettext("{count} message", "{count} messages", count).format(count=count)

A message is a whole sentence with named placeholders, never glued from pieces: languages order their words differently.
`CHATLAB_LANG` names the language, as "ko"; without a catalogue for it, the text stays English. Not translated: log
lines, what a server says on the wire, and docstrings.
"""

from __future__ import annotations

from chatlab.locale.catalogue import DOMAIN, FOLDER, _, language, ngettext, shown_language

__all__ = ["DOMAIN", "FOLDER", "_", "language", "ngettext", "shown_language"]
