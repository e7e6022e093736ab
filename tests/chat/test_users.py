"""Users from a file: who is admitted, and the faults of a file."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from unicodedata import normalize

import pytest

from chatlab.chat.access import Credentials
from chatlab.chat.app import User
from chatlab.chat.directory import handle_of
from chatlab.chat.users import among, passcodes_in, read_handle_key, read_passcodes
from chatlab.clients.stomp import StompClient
from chatlab.errors import SetupError, StompError
from tests.support.commands import chatlab

FILE = "# of the class\nkim:secret\n\n민지:다른: 암호\r\n"


def test_each_line_holds_a_name_and_its_passcode() -> None:
    assert passcodes_in(FILE) == {"kim": "secret", "민지": "다른: 암호"}


@pytest.mark.parametrize(
    ("login", "passcode", "let_in"),
    [
        ("kim", "secret", True),
        ("민지", "다른: 암호", True),
        (normalize("NFD", "민지"), "다른: 암호", True),  # as a Mac may spell it
        ("kim", "Secret", False),
        ("kim", "", False),
        ("kim", None, False),
        ("민지", "secret", False),
        ("lee", "secret", False),
        ("lee", "", False),
        ("", "", False),
        (None, None, False),
    ],
)
def test_only_a_name_with_its_own_passcode_is_admitted(login: str | None, passcode: str | None, let_in: bool) -> None:
    found = among(passcodes_in(FILE))(Credentials(login, passcode))
    name = normalize("NFC", login or "")
    assert found == (User(name, name) if let_in else None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nobody is named in the file"),
        ("# kim:secret\n", "nobody is named in the file"),
        ("kim:a\nlee\n", "line 2 of the file names no user"),
        ("kim:\n", "line 1 of the file names no user"),
        (":secret\n", "line 1 of the file names no user"),
        ("k\x00m:secret\n", "line 1 of the file names no user"),
        (f"{'k' * 65}:secret\n", "line 1 of the file names no user"),
        ("kim:a\nkim:b\n", "line 2 of the file names 'kim' for the second time"),
    ],
)
def test_an_invalid_users_file_is_refused_by_line_number_without_its_passcodes(text: str, said: str) -> None:
    with pytest.raises(SetupError, match=said) as refused:
        passcodes_in(text, "the file")
    assert "secret" not in str(refused.value)


def test_a_users_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no users in .*nowhere: No such file or directory"):
        read_passcodes(tmp_path / "nowhere")
    (tmp_path / "latin").write_bytes(b"jos\xe9:secret\n")
    with pytest.raises(SetupError, match=r"no users in .*latin: not UTF-8"):
        read_passcodes(tmp_path / "latin")


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_world_readable_users_file_is_logged_as_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "users"
    file.write_text(FILE, encoding="utf-8")
    with caplog.at_level(logging.WARNING, "chatlab.chat"):
        file.chmod(0o600)
        assert set(read_passcodes(file)) == {"kim", "민지"}
        assert caplog.text == ""
        file.chmod(0o644)
        read_passcodes(file)
    assert f"everybody on this machine may read the passcodes in {file}; chmod 600 forbids it" in caplog.text


async def test_the_server_takes_users_heart_beats_and_the_size_of_a_frame_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(FILE, encoding="utf-8")
    arguments = ["--users", str(file), "--heart-beat", "1500,0", "--max-frame", "300000"]
    async with chatlab("serve", "chat", "--broker", "memory://", "--port", "0", *arguments) as command:
        url = await command.url()
        for login, passcode in (("kim", "wrong"), (None, None)):
            with pytest.raises(StompError):
                await StompClient(url, login=login, passcode=passcode).connect()
        async with StompClient(url, login="kim", passcode="secret") as client:
            assert client.connected.get("heart-beat") == "1500,0"
            assert client.connected.get("user-name") == "kim"
            await client.subscribe("/topic/big")
            await client.send("/topic/big", b"x" * 299_000)
            with pytest.raises((StompError, ConnectionError)):
                await client.send("/topic/big", b"x" * 301_000)


def test_a_users_file_with_two_names_that_look_alike_is_refused() -> None:
    with pytest.raises(SetupError, match="line 2 of the users names 'Kіm', which looks like 'Kim'"):
        passcodes_in("Kim:one\nKіm:two")


def test_a_final_newline_does_not_change_a_handle_key(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"0123456789abcdef")
    other.write_bytes(b"0123456789abcdef\n")
    assert read_handle_key(one) == read_handle_key(other) and len(read_handle_key(one)) == 64


def test_a_missing_or_short_handle_key_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no handle key in"):
        read_handle_key(tmp_path / "nothing")
    (tmp_path / "short").write_bytes(b"secret\n")
    with pytest.raises(SetupError, match="fewer than 16 octets"):
        read_handle_key(tmp_path / "short")


async def test_the_command_line_reads_a_handle_key_and_reports_its_faults(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"too short")
    async with chatlab("serve", "chat", "--port", "0", "--broker", "memory://", "--handle-key", str(key)) as command:
        status, _, errors = await command.ended()
    assert status != 0 and "fewer than 16 octets" in errors and len(errors.strip().splitlines()) <= 2
    key.write_bytes(b"a secret for all instances")
    async with (
        chatlab("serve", "chat", "--port", "0", "--broker", "memory://", "--handle-key", str(key)) as command,
        StompClient(await command.url(), login="kim") as kim,
    ):
        principal = kim.connected.get("user-name") or ""
        assert kim.connected.get("user-handle") == handle_of(principal, read_handle_key(key))
