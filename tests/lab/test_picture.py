"""A picture has a name, the same in words, and nothing in it that can write HTML."""

import re
from base64 import b64decode

from chatlab.lab.picture import picture

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><text>안녕</text></svg>'


def test_the_image_is_the_drawing_and_has_a_name() -> None:
    html = picture(SVG, "Sequence", "client → server: 안녕")

    assert 'alt="Sequence; in words below"' in html
    source = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert source
    assert b64decode(source[1]).decode() == SVG


def test_the_same_opens_in_words() -> None:
    html = picture(SVG, "Sequence", "client → server: 안녕")

    assert "<details><summary>Sequence, in words</summary><pre>client → server: 안녕</pre></details>" in html


def test_what_the_words_are_about_cannot_write_html() -> None:
    html = picture(SVG, '"><script>', "<script>alert(1)</script>")

    assert "<script>" not in html
