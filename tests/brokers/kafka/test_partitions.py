"""Where a topic's records are in Kafka: which partition, which offsets, and what an id says of both."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from chatlab.brokers.kafka.partitions import SLACK, Extent, Index, Place, identifier, offset, partition_of, place_of
from chatlab.brokers.kafka.topics import Described
from chatlab.brokers.names import parse_id

LOG = Described("chatlab", 77, 16)
CATS, DOGS = b"cats", b"dogs"


def test_an_id_is_the_offset_counted_from_one() -> None:
    assert [identifier(at) for at in (0, 1, 41)] == ["1-0", "2-0", "42-0"]
    assert [offset(identifier(at, 77)) for at in (0, 1, 41)] == [0, 1, 41]


@pytest.mark.parametrize(
    ("key", "murmur2"),
    # clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java, testMurmur2
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_a_key_has_the_partition_that_javas_producers_give_it(key: str, murmur2: int) -> None:
    assert partition_of(key.encode(), 16) == (murmur2 & 0x7FFFFFFF) % 16


def test_rooms_are_spread_over_the_partitions() -> None:
    counts = [0] * 16
    for number in range(1600):
        counts[place_of(f"chat:{{room{number}}}", LOG).partition.partition] += 1
    assert min(counts) > 50


def extent(place: Place, first: int = 0, end: int = 100) -> Extent:
    return Extent(place, first, end)


def test_an_id_of_another_partition_or_another_log_is_recognized() -> None:
    here = place_of("cats", LOG)
    recreated, grown = place_of("cats", LOG._replace(incarnation=78)), place_of("cats", LOG._replace(partitions=17))
    assert here.partition != grown.partition
    own = parse_id(here.id_of(41))
    assert extent(here).lost(own) is None
    assert extent(here).start(own) == 42
    for other in (recreated, grown):
        lost = extent(other).lost(own)
        assert lost is not None
        assert (lost.resume, lost.restarted) == ("0-0", True)
        assert extent(other).start(own) == 0  # all of it is newer


def test_without_topic_ids_no_id_is_foreign() -> None:
    """Kafka before 2.8."""
    old = place_of("cats", LOG._replace(incarnation=0))
    assert extent(old).lost(parse_id("42-12345678")) is None


def test_what_was_trimmed_or_never_there_is_lost() -> None:
    place = place_of("cats", LOG)
    trimmed = extent(place, first=50).lost((42, place.number))
    assert trimmed is not None
    assert trimmed.resume == place.id_of(49)
    beyond = extent(place).lost((101, place.number))
    assert beyond is not None
    assert (beyond.resume, beyond.restarted) == (place.id_of(99), True)


def test_an_index_skips_to_the_next_record_of_a_topic() -> None:
    index = Index(10)
    index.append(10, 14, [(10, CATS), (11, DOGS), (12, DOGS), (13, CATS)])
    assert [index.skip(CATS, at) for at in (10, 11, 13)] == [10, 13, 13]
    assert index.skip(DOGS, 13) == 14  # nothing more that is known
    assert [index.skip(CATS, at) for at in (9, 14, 20)] == [9, 14, 20]  # not known


def test_an_index_takes_no_record_twice_and_no_part_that_leaves_a_hole() -> None:
    index = Index(10)
    index.append(10, 12, [(10, CATS), (11, CATS)])
    index.append(10, 13, [(10, CATS), (11, CATS), (12, CATS)])
    index.append(14, 15, [(14, CATS)])
    assert index.high == 13
    assert [index.newest(CATS, count, 0) for count in (1, 2, 3, 4)] == [12, 11, 10, None]


def test_an_index_forgets_what_is_no_longer_kept() -> None:
    index = Index(0)
    index.append(0, SLACK + 10, [(0, DOGS), *((at, CATS) for at in range(1, SLACK + 10))])
    index.forget(SLACK // 2)
    assert index.low == 0  # it is not worth it yet
    index.forget(SLACK + 5)
    assert (index.low, index.newest(CATS, 5, 0), index.newest(CATS, 6, 0)) == (SLACK + 5, SLACK + 5, None)
    assert DOGS not in index._offsets


@given(st.lists(st.sampled_from([CATS, DOGS]), max_size=60), st.integers(0, 60), st.lists(st.integers(1, 9)))
def test_an_index_that_grows_both_ways_knows_what_a_list_would(keys: list[bytes], start: int, steps: list[int]) -> None:
    records, index = list(enumerate(keys)), Index(min(start, len(keys)))
    for turn, step in enumerate(steps):
        if turn % 2:
            end = min(len(keys), index.high + step)
            index.append(index.high, end, records[index.high : end])
        else:
            low = max(0, index.low - step)
            index.prepend(low, records[low : index.low])
    known = [at for at, key in records[index.low : index.high] if key == CATS]
    for count in range(1, 12):
        expected = known[-count] if count <= len(known) else None
        assert index.newest(CATS, count, 0) == expected
    for at in range(index.low, index.high):
        assert index.skip(CATS, at) == min((each for each in known if each >= at), default=index.high)


def test_a_place_names_its_partition_and_its_ids() -> None:
    place = place_of("chat:{방}", LOG)
    assert place.key == "chat:{방}".encode()
    assert place.partition == TopicPartition("chatlab", partition_of(place.key, 16))
    assert place.id_of(4).startswith("5-")
