"""Download programs in Java and what they depend on into the user's cache, with Maven, where a module names them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from chatlab.errors import SetupError
from chatlab.locale import _

__all__ = ["cached", "fetch"]


def cached(name: str) -> Path:
    """Return a folder of the user's cache, which is outside any checkout."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "chatlab" / name


def fetch(what: str, pom: str, jars: Path, remedy: str) -> Path:
    """Copy the dependencies in `pom` to the folder `jars`, unless they are there, and return it.

    Raises SetupError with Maven's output, or with the `remedy` if there is no Maven.
    """
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise SetupError(_("no Maven here to fetch {what} with").format(what=what), remedy)
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent) as place:
        Path(place, "pom.xml").write_text(pom, encoding="utf-8")
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={place}/jars"]
        done = subprocess.run(
            [maven, "-q", "-B", *goal], cwd=place, capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            failure = _("Maven could not fetch {what}: {output}")
            raise SetupError(failure.format(what=what, output=done.stdout.strip()[-500:]), _("see Maven's message"))
        Path(place, "jars").replace(jars)  # all of them or none, even if two downloads run at once
    return jars
