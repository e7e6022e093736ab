"""Each part of a Redis URL is used, ignored with a warning, or refused with one line; none is a surprise later."""

from __future__ import annotations

import string
from pathlib import Path
from ssl import TLSVersion
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from chatlab.brokers.redis.connections import url as redis_url
from chatlab.errors import SetupError

LOCAL = {"host": "localhost", "port": 6379}


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://", LOCAL),
        ("redis:///", LOCAL),
        ("redis://127.0.0.1", {"host": "127.0.0.1", "port": 6379}),
        ("redis://127.0.0.1:", {"host": "127.0.0.1", "port": 6379}),
        ("redis://:7000/2", {"host": "localhost", "port": 7000, "db": 2}),
        ("redis://h/3/", {"host": "h", "port": 6379, "db": 3}),
        ("redis://h?db=3", {"host": "h", "port": 6379, "db": 3}),
        ("redis://h/3?db=3&db=3", {"host": "h", "port": 6379, "db": 3}),
        ("redis://[::1]:7000/1", {"host": "::1", "port": 7000, "db": 1}),
        ("redis://[fe80::1%25eth0]", {"host": "fe80::1%eth0", "port": 6379}),
        ("redis://me:pw@h", {"host": "h", "port": 6379, "username": "me", "password": "pw"}),
        ("redis://:p@ss:w@h", {"host": "h", "port": 6379, "password": "p@ss:w"}),
        ("redis://h?username=me&password=p%2Fw", {"host": "h", "port": 6379, "username": "me", "password": "p/w"}),
        ("redis://h?client_name=a@b", {"host": "h", "port": 6379, "client_name": "a@b"}),
        ("redis://h?socket_keepalive=no&socket_read_size=4096",
         {"host": "h", "port": 6379, "socket_keepalive": False, "socket_read_size": 4096}),
        (" redis://h \n", {"host": "h", "port": 6379}),
    ],
)  # fmt: skip  # a line for each
def test_the_parts_of_a_url_are_used(url: str, options: dict[str, Any]) -> None:
    parsed = redis_url.parse(url)
    assert (parsed.kind, parsed.options, parsed.warning) == (Connection, options, "")


def test_a_unix_socket_has_its_database_in_the_query() -> None:
    parsed = redis_url.parse("unix://me:pw@/run/my%20redis/a@b.sock?db=4".replace("a@b", "a%40b"))
    assert parsed.kind is UnixDomainSocketConnection
    assert parsed.options == {"path": "/run/my redis/a@b.sock", "db": 4, "username": "me", "password": "pw"}
    assert redis_url.parse("unix:///run/a@b.sock").options == {"path": "/run/a@b.sock"}


def test_a_password_may_contain_any_character_percent_encoded() -> None:
    password = string.printable + "비밀🙂"
    parsed = redis_url.parse(f"redis://me:{quote(password, safe='')}@h:1/2")
    assert parsed.options["password"] == password
    assert parsed.name == "redis://me:***@h:1/2"


def test_tls_options_are_for_rediss() -> None:
    parsed = redis_url.parse("rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false&ssl_min_version=TLSv1.3&ssl=true")
    assert parsed.kind is SSLConnection
    assert parsed.options == {
        "host": "h",
        "port": 6379,
        "ssl_cert_reqs": "none",
        "ssl_check_hostname": False,
        "ssl_min_version": TLSVersion.TLSv1_3,
    }


@pytest.mark.parametrize(
    "option",
    [
        "protocol=2",
        "decode_responses=True",
        "encoding=euc-kr",
        "socket_timeout=5",
        "socket_connect_timeout=0.5",
        "timeout=1",
        "health_check_interval=30",
        "retry_on_timeout=true",
        "max_connections=1",
        "lib_name=mine",
    ],
)
def test_an_option_that_chatlab_sets_itself_is_ignored_with_one_warning(option: str) -> None:
    parsed = redis_url.parse(f"redis://me:secret@h/1?{option}&client_name=chat&{option}")
    assert parsed.options == {
        "host": "h", "port": 6379, "db": 1, "username": "me", "password": "secret", "client_name": "chat"
    }  # fmt: skip
    assert parsed.warning.startswith(f"ignored in redis://me:***@h/1: {option.partition('=')[0]} (")
    assert parsed.url == "redis://me:secret@h/1?client_name=chat"


@pytest.mark.parametrize("option", ["protocol=3", "decode_responses=false", "encoding=UTF-8", "ssl=false"])
def test_an_option_equal_to_our_setting_needs_no_warning(option: str) -> None:
    parsed = redis_url.parse(f"redis://h?{option}")
    assert (parsed.options, parsed.warning) == ({"host": "h", "port": 6379}, "")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h?typo=1", "unknown option 'typo' in redis://h; the options are db, username"),
        ("redis://h?typo", "unknown option 'typo'"),
        ("redis://h?decode_response=1", "did you mean decode_responses?"),
        ("redis://h?DB=1", "unknown option 'DB' in redis://h; did you mean db?"),
        (
            "redis://h?socket_timeout=abc",
            "the option socket_timeout must be a number of seconds, not 'abc', in redis://h",
        ),
        ("redis://h?socket_timeout=nan", "the option socket_timeout must be a number of seconds"),
        ("redis://h?max_connections=0", "the option max_connections must be a number, 1 or more, not '0'"),
        ("redis://h?protocol=4", "the option protocol must be 2 or 3, not '4'"),
        ("redis://h?decode_responses=maybe", "the option decode_responses must be true or false, not 'maybe'"),
        ("redis://h?encoding=klingon", "the option encoding must be the name of an encoding"),
        ("redis://h?db=", "the option db must be a number, 0 or more, not ''"),
        ("redis://h?db=-1", "the option db must be a number, 0 or more"),
        ("redis://h?client_name=a%20b", "the option client_name must be one word"),
        ("redis://h/1?db=2", "the option db has two values"),
        ("redis://h?db=1&db=2", "the option db has two values"),
        ("redis://:secret@h?password=other", "the option password has two values"),
        ("redis://h/abc", "the database is not a number in redis://h/abc: 'abc'"),
        ("redis://h/0/1", "the database is not a number"),
        ("redis://h/-1", "the database is not a number"),
        ("redis://h?ssl=true", "the option ssl contradicts redis://"),
        ("rediss://h?ssl=false", "the option ssl contradicts rediss://"),
        ("redis://h?ssl_cert_reqs=none", "the option ssl_cert_reqs is only for rediss://"),
        ("unix:///run/redis.sock?ssl_cert_reqs=none", "the option ssl_cert_reqs is only for rediss://"),
        ("rediss://h?ssl_cert_reqs=never", "the option ssl_cert_reqs must be none, optional or required"),
        ("rediss://h?ssl_ca_certs=/no/such/file", "the option ssl_ca_certs must be an existing file"),
        ("rediss://h?ssl_min_version=SSLv3", "the option ssl_min_version must be TLSv1.2 or TLSv1.3"),
        ("rediss://h?ssl_ciphers=none-such", "the options ssl_ciphers do not work"),
        ("redis://h:99999", "Port out of range 1-65535: 99999"),
        ("redis://h:0", "Port out of range"),
        ("redis://h:6379secret", "the port is not a number in redis://***"),
        ("redis://::1:6379", "put an IPv6 address in brackets"),
        ("redis://one:1,two:2", "no host and port"),
        ("unix://run/redis.sock", "no absolute path to a socket"),
        ("unix://", "no absolute path to a socket"),
        ("http://h", "not a Redis URL: http://h"),
        ("h:6379", "not a Redis URL: h:6379"),
        ("", "not a Redis URL"),
        ("redis://:sec/ret@h", "cannot tell where the password ends"),
        ("redis://:sec#ret@h", "cannot tell where the password ends"),
        ("redis://:sec?ret@h", "cannot tell where the password ends"),
        ("redis://:sec[ret]@h[", "no host and port"),
        ("redis://:secret", "the port is not a number"),
    ],
)
def test_an_invalid_url_is_refused_with_one_line_that_names_the_fault(url: str, words: str) -> None:
    with pytest.raises(SetupError) as refused:
        redis_url.parse(url)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    for secret in ("secret", "sec", "ret@"):
        assert secret not in str(refused.value).replace(words, "")


def test_an_unusable_certificate_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(SetupError, match="the options ssl_certfile, ssl_keyfile do not work"):
        redis_url.parse(f"rediss://h?ssl_certfile={tmp_path}/key.pem&ssl_keyfile={tmp_path}/key.pem")


def test_our_settings_win_over_those_of_the_url() -> None:
    pool = redis_url.parse("redis://h/1?protocol=2&socket_timeout=1&client_name=theirs").pool(
        ConnectionPool, {"protocol": 3, "socket_timeout": None, "client_name": "ours"}
    )
    connection = pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py's gap
    assert (connection.protocol, connection.socket_timeout, connection.client_name) == (3, None, "ours")
    assert (connection.host, connection.db) == ("h", 1)


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("redis://me:p%40w@h:1", "redis://me:p%40w@h:1/9"),
        ("redis://h/1?client_name=a%20b".replace("%20", ""), "redis://h/9?client_name=ab"),
        ("redis://h?db=2&protocol=2", "redis://h/9"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=9"),
        ("unix://:pw@/run/redis.sock?db=1&client_name=a", "unix://:pw@/run/redis.sock?client_name=a&db=9"),
    ],
)
def test_another_database_of_the_same_server(url: str, other: str) -> None:
    assert redis_url.in_database(url, 9) == other
    assert redis_url.parse(other).options["db"] == 9
