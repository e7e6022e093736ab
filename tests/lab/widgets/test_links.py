"""Links to servers of the kernel: live ones have the address, stored ones do not."""

from chatlab.lab.widgets.links import link


def test_the_address_is_in_the_live_form_only() -> None:
    shown = link("http://127.0.0.1:1/?a=1&b=2", "Open <it>")
    assert "href='http://127.0.0.1:1/?a=1&amp;b=2'" in shown.widget.value
    assert "Open &lt;it&gt;" in shown.widget.value
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"] == "Open <it> (while this notebook's kernel runs)"
    assert "127.0.0.1" not in bundle["text/plain"] + bundle["text/html"]
