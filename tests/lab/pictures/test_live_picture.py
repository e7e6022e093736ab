"""What every live picture does: it acts on messages, answers bad input, and stops when it is closed."""

from __future__ import annotations

from typing import Any

from chatlab.lab.pictures.live_picture import LivePicture, source


class Counter(LivePicture):
    def received(self, content: dict[str, Any]) -> None:
        if content["do"] != "count":
            raise ValueError("only counting here")
        self.state = {**self.state, "count": self.state.get("count", 0) + 1}

    def still(self) -> str:
        return "<p>0</p>"

    def plain(self) -> str:
        return "zero"


async def test_a_message_changes_the_state_until_the_picture_is_closed() -> None:
    counter = Counter({})
    counter._handle({"do": "count"})
    await counter.aclose()
    counter._handle({"do": "count"})

    assert (counter.state["count"], counter.closed) == (1, True)


async def test_bad_input_is_shown_as_a_sentence_and_nonsense_is_ignored() -> None:
    counter = Counter({})
    counter._handle({"do": "jump"})
    counter._handle("nonsense")

    assert counter.state == {"status": "only counting here"}


async def test_there_is_a_form_for_a_page_without_a_kernel() -> None:
    data, __ = Counter({})._repr_mimebundle_()

    assert (data["text/html"], data["text/plain"]) == ("<p>0</p>", "zero")
    assert "application/vnd.jupyter.widget-view+json" in data


def test_files_are_joined_in_order() -> None:
    both = source("common.js", "header_bits.js")
    assert both.index("const make") < both.index("export default")
