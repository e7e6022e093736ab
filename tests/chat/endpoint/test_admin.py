"""Which requests come from this machine itself. The pages: tests/security/test_door.py."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from chatlab.chat.endpoint.admin import AdminSettings, is_local


class Socket:
    """A transport with a local and a peer address."""

    def __init__(self, peer: str) -> None:
        self.ends = {"peername": (peer, 50_000), "sockname": ("127.0.0.1", 8080)}

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self.ends.get(name, default)


def asked(peer: str = "127.0.0.1", **headers: str) -> web.Request:
    fields = {"Host": "localhost:8080"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request("GET", "/metrics", headers=fields, transport=Socket(peer))


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_a_request_from_loopback_is_local(peer: str) -> None:
    assert is_local(asked(peer))


@pytest.mark.parametrize("peer", ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "", "localhost"])
def test_a_request_from_any_other_address_is_not_local(peer: str) -> None:
    assert not is_local(asked(peer))


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Forwarded-Anything", "Forwarded", "VIA", "X-Original-Host"])
def test_a_request_with_a_proxy_header_is_not_local(name: str) -> None:
    assert not is_local(asked(**{name: "x"}))


def test_a_request_with_an_upgrade_that_names_no_protocol_is_not_local() -> None:
    assert not is_local(asked(Connection="upgrade"))


@pytest.mark.parametrize("host", ["localhost:8081", "localhost", "chat.example:8080", "192.0.2.7:8080", "localhost:x"])
def test_a_request_with_another_host_or_port_is_not_local(host: str) -> None:
    assert not is_local(asked(Host=host))


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080"])
def test_a_request_with_the_loopback_address_of_this_port_is_local(host: str) -> None:
    assert is_local(asked(Host=host))


def test_a_key_has_to_be_long_or_absent() -> None:
    assert AdminSettings(key="").key == ""
    assert AdminSettings(key="k" * 16).key
    with pytest.raises(ValueError, match="it needs at least 16"):
        AdminSettings(key="k" * 15)
