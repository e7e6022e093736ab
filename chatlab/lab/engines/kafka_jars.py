"""Download the official jars of Kafka into a cache folder with Maven: `python -m chatlab.lab.engines.kafka_jars`.

For tests, CI and lessons on machines with Java and without Docker. Nothing is downloaded unless this is run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from chatlab.errors import SetupError
from chatlab.locale import _

VERSION = "4.1.1"
OLDEST_JAVA = 17  # that runs a broker of Kafka 4

POM = f"""\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>chatlab</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""  # not shown: a file


def folder() -> Path:
    """Return the folder of the jars, which is outside any checkout."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "chatlab" / f"kafka-{VERSION}"


def fetch() -> Path:
    """Download Kafka and its dependencies with Maven, unless they are here. Raises SetupError with Maven's output."""
    jars = folder()
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise SetupError(
            _("no Maven here to fetch Kafka with"), _("install maven, or use `docker compose --profile kafka up -d`")
        )
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars.parent) as place:
        Path(place, "pom.xml").write_text(POM)
        goal = [
            maven,
            "-q",
            "-B",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={place}/jars",
        ]
        done = subprocess.run(goal, cwd=place, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            failure = _("Maven could not fetch Kafka {version}: {output}")
            raise SetupError(
                failure.format(version=VERSION, output=done.stdout.strip()[-500:]), _("see Maven's message")
            )
        Path(place, "jars").replace(jars)  # all of them or none, even if two downloads run at once
    return jars


if __name__ == "__main__":
    try:
        print(fetch())
    except SetupError as error:
        sys.exit(str(error))
