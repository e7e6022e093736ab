"""The catalogue of the language that `CHATLAB_LANG` names, and the functions that look a message up in it."""

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
