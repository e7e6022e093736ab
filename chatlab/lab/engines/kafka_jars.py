"""The official jars of Kafka in a cache folder, brought there by Maven: `python -m chatlab.lab.engines.kafka_jars`.

For tests, CI and lessons where Java is there and Docker is not. Nothing is fetched unless somebody asks for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from chatlab.errors import SetupError

VERSION = "4.1.1"
OLDEST_JAVA = 17  # for a broker of Kafka 4

POM = f"""\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>chatlab</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


def folder() -> Path:
    """Where the jars are kept, outside any checkout."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "chatlab" / f"kafka-{VERSION}"


def fetch() -> Path:
    """Let Maven bring Kafka and what it needs, unless they are here. Raises SetupError with what Maven said."""
    jars = folder()
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise SetupError(
            "no Maven here to fetch Kafka with", "install maven, or use `docker compose --profile kafka up -d`"
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
            raise SetupError(f"Maven could not fetch Kafka {VERSION}: {done.stdout.strip()[-500:]}", "see what it says")
        Path(place, "jars").replace(jars)  # all of them or none, even if two fetch at once
    return jars


if __name__ == "__main__":
    try:
        print(fetch())
    except SetupError as error:
        sys.exit(str(error))
