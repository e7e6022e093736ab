"""What aiokafka does not ask Kafka, or does not expose: which topic a name refers to, and whether a fetcher runs.

A topic that is deleted and recreated keeps its name, and its offsets start over. A reader of the old one would continue
at some offset of the new one. Kafka 2.8 and later give every topic a unique id (KIP-516); it is in the response to a
Metadata request of version 10, and aiokafka uses version 5. An older Kafka has no ids: then only a missing topic is
noticed.

Left out: everything else in that response.
"""

from __future__ import annotations

import logging
from io import BytesIO
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaError,
    LeaderNotAvailableError,
    NodeNotReadyError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

log = logging.getLogger(__name__)

METADATA = 3  # the number of this request


class Uuid(AbstractType[bytes]):  # type: ignore[misc]  # aiokafka has no types
    """16 octets."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        """Return them as they are."""
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        """Read them."""
        return data.read(16)


class MetadataResponse10(Response):  # type: ignore[misc]  # aiokafka has no types
    """The response, as in Kafka's MetadataResponse.json."""

    API_KEY = METADATA
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class MetadataRequest10(RequestStruct):  # type: ignore[misc]  # aiokafka has no types
    """The request, as in Kafka's MetadataRequest.json."""

    FLEXIBLE_VERSION = True
    API_KEY = METADATA
    API_VERSION = 10
    RESPONSE_TYPE = MetadataResponse10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class TopicIdsRequest(Request[MetadataRequest10]):  # type: ignore[misc]  # aiokafka has no types
    """A request for topics by name that does not create missing ones."""

    API_KEY = METADATA

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[MetadataRequest10]) -> MetadataRequest10:
        """Return the request on the wire."""
        return request_struct_class([(bytes(16), name, {}) for name in self._names], False, False, False, {})


class Described(NamedTuple):
    """A topic that exists, its id as a number (0 if Kafka has no topic ids), and how many partitions it has."""

    name: str
    incarnation: int
    partitions: int


async def describe(client: AIOKafkaClient, names: list[str]) -> dict[str, Described]:
    """Return those of the topics that exist. Raises KafkaError if no broker answers."""
    failure: KafkaError = NodeNotReadyError("no broker is known")
    for broker in client.cluster.brokers():
        try:
            answer: Any = await client.send(broker.nodeId, TopicIdsRequest(names))
        except NotImplementedError:  # what aiokafka raises for a version that this Kafka does not have
            return await _describe_without_ids(client, names)
        except KafkaError as error:
            failure = error
        else:
            return {name: described(name, *rest[:3]) for code, name, *rest in answer.topics if is_there(code)}
    raise failure


def described(name: str, key: bytes, internal: bool, partitions: list[Any]) -> Described:
    """Return what Kafka says of a topic that exists. Raises LeaderNotAvailableError if it knows no partition now."""
    if not partitions:
        raise LeaderNotAvailableError(name)
    return Described(name, number_of(key), len(partitions))


async def _describe_without_ids(client: AIOKafkaClient, names: list[str]) -> dict[str, Described]:
    """Ask a Kafka before 2.8, for all topics: a request that names one would create it."""
    partitions = (await client.fetch_all_metadata()).partitions_for_topic
    return {name: Described(name, 0, len(found)) for name in names if (found := partitions(name))}


def is_there(code: int) -> bool:
    """Return whether a topic exists, by its error code: one that currently has no leader does."""
    return for_code(code) is not UnknownTopicOrPartitionError


def number_of(identifier: bytes) -> int:
    """Return a topic's id as a number that fits into a record's id: 32 of its 128 bits, and never 0."""
    return int.from_bytes(identifier[:4], "big") or 1


def fetching_failed(consumer: AIOKafkaConsumer) -> BaseException | None:
    """Return the error that ended a consumer's fetching task: aiokafka would wait for records forever."""
    task = consumer._fetcher.error_future if consumer._fetcher is not None else None
    return task.exception() if task is not None and task.done() and not task.cancelled() else None


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, whatever it raises: aiokafka's `stop` ends early where the consumer has failed before."""
    try:
        await consumer.stop()
    except KafkaError as error:
        log.debug("stopped a consumer that had failed: %r", error)
        await consumer._client.close()
