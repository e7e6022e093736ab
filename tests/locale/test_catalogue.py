"""Without a catalogue for the language asked for, texts stay English."""

from __future__ import annotations

from chatlab.locale.catalogue import _, ngettext, shown_language


def test_texts_are_english_without_a_catalogue() -> None:
    assert shown_language() == "en"
    assert _("The room is closing.") == "The room is closing."
    assert ngettext("{count} message", "{count} messages", 2) == "{count} messages"
