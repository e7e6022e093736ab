"""A page put to axe-core, the accessibility checker, and walked through with the Tab key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from playwright.async_api import Locator, Page

from tests.support import node

# The outputs and texts of a notebook. The rest of the page, its menus, toolbars and editors, is JupyterLab's own.
NOTEBOOK = (".jp-Notebook .jp-OutputArea-output", ".jp-Notebook .jp-RenderedMarkdown")


async def findings(page: Page, *, within: Sequence[str] = ("html",), without: Sequence[str] = ()) -> list[str]:
    """Return what axe finds in the elements of `within`, but for those of `without` (CSS), one line for each.

    Nothing is let pass for being minor.
    """
    await _bring_axe(page)
    violations: list[dict[str, Any]] = await page.evaluate(
        """async ([include, exclude]) =>
            (await axe.run({ include, exclude }, { resultTypes: ["violations"] })).violations""",
        [list(within), list(without)],
    )
    return [
        f"{found['impact']}: {found['help']} ({found['id']}): {place['html'][:200]}"
        for found in violations
        for place in found["nodes"]
    ]


async def tab_through(page: Page, inside: Locator) -> list[str]:
    """Press Tab from the first control inside an element until the focus is outside; return the names on the way.

    A name is what a screen reader says of it, as axe computes it: empty where there is none. Fails if Tab leads past
    a control.
    """
    await _bring_axe(page)
    root = await inside.element_handle()
    controls = await page.evaluate(_START, root)
    for _ in range(100):
        if not await page.evaluate(_NOTE_THE_FOCUSED, root):
            break
        await page.keyboard.press("Tab")
    names: list[str] = await page.evaluate(_NAMES)
    assert len(names) == controls, f"{controls} controls, and Tab stopped at {names}"
    return names


_START = """root => {
    const all = [...root.querySelectorAll("a[href], input, button, select, textarea, summary, [tabindex='0']")];
    const controls = all.filter(each => each.checkVisibility() && !each.disabled);
    window.stops = [];
    controls[0].focus();
    return controls.length;
}"""
_NOTE_THE_FOCUSED = """root => {
    const focused = document.activeElement;
    return focused !== root && root.contains(focused) && window.stops.push(focused) > 0;
}"""
_NAMES = """() => {
    axe.setup(document);
    const names = window.stops.map(stop => axe.commons.text.accessibleText(stop));
    axe.teardown();
    return names;
}"""


async def _bring_axe(page: Page) -> None:
    if not await page.evaluate("'axe' in window"):
        await page.evaluate((node.packages() / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
