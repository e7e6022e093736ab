"""Download the official jars of Kafka into a cache folder with Maven: `python -m chatlab.lab.engines.kafka_jars`.

For tests, CI and lessons on machines with Java and without Docker. Nothing is downloaded unless this is run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from chatlab.errors import SetupError
from chatlab.lab.engines import maven
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
    """Return the folder of the jars."""
    return maven.cached(f"kafka-{VERSION}")


def fetch() -> Path:
    """Download Kafka and its dependencies, unless they are here. Raises SetupError."""
    remedy = _("install maven, or use `docker compose --profile kafka up -d`")
    return maven.fetch(f"Kafka {VERSION}", POM, folder(), remedy)


if __name__ == "__main__":
    try:
        print(fetch())
    except SetupError as error:
        sys.exit(str(error))
