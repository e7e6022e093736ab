"""Build the article's programs with Maven: `make spring`, or `python -m chatlab.lab.engines.spring_jar`.

The sources are in the folder `spring` of a checkout; the wheel does not contain them. CHATLAB_SPRING_JAR names a jar
that was built elsewhere. Nothing is built or downloaded unless this is run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from chatlab.errors import SetupError
from chatlab.locale import _

OLDEST_JAVA = 17  # for Spring Boot 3 and 4
SOURCES = Path(__file__).parents[3] / "spring"
UNREACHABLE = ("Could not transfer artifact", "Non-resolvable import POM", "offline mode")  # not shown: Maven's words


def jar() -> Path:
    """Return where the jar is, or where it will be."""
    named = os.environ.get("CHATLAB_SPRING_JAR")
    return Path(named) if named else SOURCES / "target" / "original.jar"


def sources() -> bool:
    """Return whether the sources are here."""
    return (SOURCES / "pom.xml").is_file()


def build(*options: str) -> Path:
    """Build the jar with Maven and return its path. Raise SetupError that says what is missing and what brings it."""
    if not sources():
        raise SetupError(_("the folder spring is not here: it is in a checkout"), _("clone the repository"))
    maven = shutil.which("mvn")
    if shutil.which("javac") is None or maven is None:
        missing = _("building the article's programs needs a JDK, version {version} or newer, and Maven")
        raise SetupError(missing.format(version=OLDEST_JAVA), remedy())
    done = subprocess.run(
        [maven, "-q", "-B", *options, "package"],
        cwd=SOURCES,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise _failure(done.stdout)
    return SOURCES / "target" / "original.jar"


def remedy() -> str:
    """Return the command that installs what the build needs."""
    if sys.platform == "darwin":
        return "`brew install openjdk@17 maven`"  # not shown: a command
    return "`sudo apt-get install openjdk-17-jdk-headless maven`"  # not shown: a command


def _failure(output: str) -> SetupError:
    errors = [line.removeprefix("[ERROR] ") for line in output.splitlines() if line.startswith("[ERROR]")]
    first = errors[0] if errors else output.strip()[-500:]
    if any(each in output for each in UNREACHABLE):
        failure = _("Maven cannot reach its repository: {error}").format(error=first)
        return SetupError(failure, _("connect to the network, or name a mirror in ~/.m2/settings.xml, and repeat"))
    return SetupError(_("Maven could not build the article's programs: {error}").format(error=first), _("see above"))


if __name__ == "__main__":
    try:
        print(build(*sys.argv[1:]))
    except SetupError as error:
        sys.exit(str(error))
