"""The recording of the article's own programs, as a lesson reads it."""

from pathlib import Path

import pytest

from chatlab.lab.engines.engine import Engine
from chatlab.lab.experiments import original
from chatlab.lab.experiments.original import recording


def test_the_recording_says_which_spring_boot_it_is_of_and_shows_the_empty_message() -> None:
    found = recording()
    assert found["version"].startswith("Spring Boot 3.")
    frames = found["one message"]["frames"]
    assert {frame.rpartition("\n")[2] for frame in frames[1:]} == {'{"content":"안녕"}\0', '{"content":null}\0'}
    assert found["one message"]["stored"] == [{"¬í\0\5t\0\7content": "¬í\0\5t\0\6" + "안녕".encode().decode("latin-1")}]


def test_the_recording_shows_that_without_a_group_nothing_is_read() -> None:
    assert recording()["chat: nobody made the group"] == ["after", "before"]


async def test_where_the_original_is_not_built_the_rebuild_runs_and_says_what_builds_it(
    valkey_engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHATLAB_SPRING_JAR", str(tmp_path / "none.jar"))
    for profile, path in (("one", "/ws/websocket"), ("raw", "/room")):
        program = await original.start(profile, valkey_engine.url)
        assert program.url.endswith(path)
        assert "our rebuild in Python" in program.how
        assert "`make spring`" in program.how
        await program.aclose()
