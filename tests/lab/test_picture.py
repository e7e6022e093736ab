"""A picture has a name and a text that says the same, and its texts cannot inject HTML."""

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


def test_the_picture_is_followed_by_its_description() -> None:
    html = picture(SVG, "Sequence", "client → server: 안녕")

    assert "<details><summary>Sequence, in words</summary><pre>client → server: 안녕</pre></details>" in html


def test_a_name_and_a_description_cannot_inject_html() -> None:
    html = picture(SVG, '"><script>', "<script>alert(1)</script>")

    assert "<script>" not in html
