"""A page's texts are found and replaced, and its markup stays as it is."""

from __future__ import annotations

from chatlab.locale.pages import html_messages, javascript_messages, translated_html, words_script

HTML = '<html lang="en"><p id="x">Tom &amp; Ana</p>\n<div aria-label="Messages"><b> </b></div></html>'


def test_visible_texts_and_labels_are_found() -> None:
    assert list(html_messages(HTML)) == ["Tom & Ana", "Messages"]


def test_an_english_page_is_served_unchanged() -> None:
    assert translated_html(HTML) == HTML


def test_a_script_gets_the_texts_that_it_asks_for() -> None:
    script = 'show(_("in the \\"room\\"")); log("not this");'
    assert list(javascript_messages(script)) == ['in the "room"']
    assert words_script(script) == 'const WORDS = {"in the \\"room\\"": "in the \\"room\\""};\n'
