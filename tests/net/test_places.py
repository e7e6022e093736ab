"""Connection slots: limits on connections, how addresses are counted, and which proxies are trusted."""

from __future__ import annotations

import logging

import pytest

from chatlab.net.places import (
    ConnectionLimits,
    ConnectionSlots,
    Refusals,
    TrustedProxies,
    counted_as,
    slots_for_descriptors,
)


def test_slots_are_limited_in_total_and_per_address() -> None:
    slots = ConnectionSlots(total=3, per_address=2)
    assert [slots.acquire("a"), slots.acquire("a"), slots.acquire("a")] == ["", "", "connections-per-address"]
    assert [slots.acquire("b"), slots.acquire("c")] == ["", "connections"]
    slots.release("a")
    assert (slots.acquire("c"), slots.addresses) == ("", 3)


def test_connection_limits_are_parsed_from_the_command_line() -> None:
    limits = ConnectionLimits.parse(["connections=5", " connections-per-address = 0"])
    assert limits == ConnectionLimits(connections=5, connections_per_address=0)
    assert (limits.slots().total, limits.slots().per_address) == (5, 0)
    assert ConnectionLimits().slots().total == slots_for_descriptors()


@pytest.mark.parametrize(
    "given", ["names=3", "connections", "connections=-1", "connections=\u0663", "connections=" + 30 * "9"]
)
def test_an_unknown_connection_limit_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="limit"):
        ConnectionLimits.parse([given])


def test_a_connection_without_an_address_counts_only_in_total_and_released_addresses_are_forgotten() -> None:
    slots = ConnectionSlots(total=0, per_address=1)
    assert [slots.acquire(""), slots.acquire("")] == ["", ""]
    slots.acquire("a")
    slots.release("a")
    assert (slots.in_use, slots.addresses) == (2, 0)


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::2", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("", ""),
        ("/run/chat.sock", ""),
    ],
)
def test_ipv4_is_counted_by_address_and_ipv6_by_64_bit_prefix(address: str, counted: str) -> None:
    assert counted_as(address) == counted


def test_loopback_is_counted_only_on_request() -> None:
    assert counted_as("127.0.0.1", loopback=True) == "127.0.0.1"


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("198.51.100.9", ["192.0.2.7"], "198.51.100.9"),  # not a trusted proxy
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["203.0.113.1, 192.0.2.7"], "192.0.2.7"),  # the first was written by the client
        ("10.0.0.1", ["203.0.113.1", "192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", ["garbage, 192.0.2.7:5123"], "192.0.2.7"),
        ("10.0.0.1", ['"[2001:db8::1]:443"'], "2001:db8::1"),
        ("10.0.0.1", ["garbage, 10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", ["garbage"], ""),
        ("10.0.0.1", [], ""),
        ("::ffff:10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("", ["192.0.2.7"], ""),
    ],
)
def test_the_client_is_the_last_forwarded_address_that_is_not_a_trusted_proxy(
    peer: str, forwarded_for: list[str], client: str
) -> None:
    assert TrustedProxies(["10.0.0.0/8"]).client_behind(peer, forwarded_for) == client


def test_without_trusted_proxies_the_forwarded_header_is_ignored() -> None:
    assert TrustedProxies().client_behind("127.0.0.1", ["192.0.2.7"]) == "127.0.0.1"


def test_descriptors_are_reserved_for_the_engine_and_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for limit, slots in ((256, 128), (1024, 896), (1 << 20, 50_000), (resource.RLIM_INFINITY, 50_000), (40, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert slots_for_descriptors() == slots


def test_every_refusal_is_counted_but_few_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    refusals = Refusals(logging.getLogger("chatlab.test"), seconds=60, clock=lambda: now)
    for _ in range(1000):
        refusals.count("names", whose="x" * 5000)
    now = 61.0
    refusals.count("names")
    refusals.count("connections")
    assert refusals.counts == {"names": 1001, "connections": 1}
    facts = [(record.budget, record.times) for record in caplog.records]  # type: ignore[attr-defined]  # its extra
    assert facts == [("names", 1), ("names", 1000), ("connections", 1)]
    assert len(caplog.records[0].last) == 100  # type: ignore[attr-defined]  # the same
