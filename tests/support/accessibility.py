"""Check a page with axe-core, the accessibility checker, and move through it with the Tab key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from playwright.async_api import Locator, Page

from tests.support import node

# The outputs and texts of a notebook. The rest of the page (menus, toolbars, editors) belongs to JupyterLab.
NOTEBOOK = (".jp-Notebook .jp-OutputArea-output", ".jp-Notebook .jp-RenderedMarkdown")


async def findings(page: Page, *, within: Sequence[str] = ("html",), without: Sequence[str] = ()) -> list[str]:
    """Return what axe finds in the elements of `within` except those of `without` (CSS), one line each.

    Minor findings are included.
    """
    await _load_axe(page)
    violations: list[dict[str, Any]] = await page.evaluate(
        """async ([include, exclude]) =>
            (await axe.run({ include, exclude }, { resultTypes: ["violations"] })).violations""",
        [list(within), list(without)],
    )
    return [
        f"{violation['impact']}: {violation['help']} ({violation['id']}): {node['html'][:200]}"
        for violation in violations
        for node in violation["nodes"]
    ]


async def tab_through(page: Page, inside: Locator) -> list[str]:
    """Press Tab from the first control in an element until the focus leaves it; return the names of the controls.

    A name is what a screen reader announces, as axe computes it; it is empty if there is none. Raise AssertionError if
    Tab skips a control.
    """
    await _load_axe(page)
    root = await inside.element_handle()
    controls = await page.evaluate(_START, root)
    for _ in range(100):
        if not await page.evaluate(_RECORD_FOCUS, root):
            break
        await page.keyboard.press("Tab")
    names: list[str] = await page.evaluate(_NAMES)
    assert len(names) == controls, f"{controls} controls, but Tab reached only {names}"
    return names


_START = """root => {
    const all = [...root.querySelectorAll("a[href], input, button, select, textarea, summary, [tabindex='0']")];
    const controls = all.filter(each => each.checkVisibility() && !each.disabled);
    window.stops = [];
    controls[0].focus();
    return controls.length;
}"""
_RECORD_FOCUS = """root => {
    const focused = document.activeElement;
    return focused !== root && root.contains(focused) && window.stops.push(focused) > 0;
}"""
_NAMES = """() => {
    axe.setup(document);
    const names = window.stops.map(stop => axe.commons.text.accessibleText(stop));
    axe.teardown();
    return names;
}"""


async def _load_axe(page: Page) -> None:
    if not await page.evaluate("'axe' in window"):
        await page.evaluate((node.packages() / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
