"""The load generators of RabbitMQ and Kafka: `python -m chatlab.lab.engines.load_tools` downloads them with Maven.

RabbitMQ's PerfTest, and Kafka's ProducerPerformance, which is in none of the jars that a server needs. Redis needs no
download: `redis-benchmark` comes with the server. Nothing is downloaded unless this is run.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from chatlab.errors import EngineMissing, SetupError
from chatlab.lab.engines import kafka_jars, maven
from chatlab.lab.engines.kinds import java_version
from chatlab.locale import _

__all__ = ["KAFKA", "RABBITMQ", "fetch", "folder", "java", "redis_benchmark", "remedy"]

PERF_TEST = "2.22.1"
KAFKA, RABBITMQ = "org.apache.kafka.tools.ProducerPerformance", "com.rabbitmq.perf.PerfTest"
OLDEST_JAVA = 17

POM = f"""\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>chatlab</groupId><artifactId>load-tools</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>com.rabbitmq</groupId><artifactId>perf-test</artifactId><version>{PERF_TEST}</version></dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{kafka_jars.VERSION}</version>
      <exclusions>
        <exclusion><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId></exclusion>
        <exclusion><groupId>org.apache.kafka</groupId><artifactId>connect-json</artifactId></exclusion>
        <exclusion><groupId>org.apache.kafka</groupId><artifactId>connect-api</artifactId></exclusion>
      </exclusions>
    </dependency>
  </dependencies>
</project>
"""  # not shown: a file


def folder() -> Path:
    """Return the folder of the jars."""
    return maven.cached(f"load-tools-{PERF_TEST}-{kafka_jars.VERSION}")


def fetch() -> Path:
    """Download the load generators, unless they are here. Raises SetupError."""
    return maven.fetch(_("the load generators"), POM, folder(), _("install maven"))


def remedy() -> str:
    """Return the command that downloads them."""
    return f"`{Path(sys.executable).name} -m chatlab.lab.engines.load_tools`"  # not shown: a command


# Without it the logging library that comes with PerfTest prints every request of Kafka's program, which takes eight
# times as long as its work. PerfTest itself configures that library.
OPTIONS = {KAFKA: ["-Dslf4j.provider=org.slf4j.helpers.NOP_FallbackServiceProvider"]}


def java(program: str) -> list[str]:
    """Return the command that runs a load generator. Raises EngineMissing."""
    if not folder().is_dir() or java_version() < OLDEST_JAVA:
        missing = _("no load generators here, or no Java {version} to run them").format(version=OLDEST_JAVA)
        raise EngineMissing(missing, remedy())
    return ["java", "-Xmx256m", *OPTIONS.get(program, []), "-cp", f"{folder()}/*", program]


def redis_benchmark() -> str:
    """Return the path of redis-benchmark or valkey-benchmark. Raises EngineMissing."""
    for name in ("valkey-benchmark", "redis-benchmark"):
        if path := shutil.which(name):
            return path
    raise EngineMissing(_("no redis-benchmark here"), _("it comes with the package of Redis or Valkey"))


if __name__ == "__main__":
    try:
        print(fetch())
    except SetupError as error:
        sys.exit(str(error))
