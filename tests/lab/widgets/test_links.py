"""Links to servers of the kernel: only live ones have the address."""

from chatlab.lab.widgets.links import link


def test_only_the_live_form_of_a_link_has_the_address() -> None:
    shown = link("http://127.0.0.1:1/?a=1&b=2", "Open <it>")
    assert "href='http://127.0.0.1:1/?a=1&amp;b=2'" in shown.widget.value
    assert "Open &lt;it&gt;" in shown.widget.value
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"] == "Open <it> (while this notebook's kernel runs)"
    assert "127.0.0.1" not in bundle["text/plain"] + bundle["text/html"]
