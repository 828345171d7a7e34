"""A page in headless Chromium: what goes wrong in it, what is cut, and what an accessibility check says."""

import shutil
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)

_CUT = """() => {
  const wide = document.documentElement.clientWidth;
  return [...document.querySelectorAll("th, td, p, h1, h2, li, figcaption, caption, svg")].filter((each) => {
    if (each.closest(".scroll")) return false;  // moved by itself, its row names stay
    const head = each.closest("thead");
    if (head && getComputedStyle(head).position === "absolute") return false;  // its names stand in each card
    const box = each.getBoundingClientRect();
    const within = each.clientWidth && each.scrollWidth > each.clientWidth + 1;
    return box.width > 1 && (box.right > wide + 1 || box.left < -1 || within);
  }).concat([...document.querySelectorAll(".chart svg text")].filter((each) => {
    const box = each.getBoundingClientRect(), whole = each.closest("svg").getBoundingClientRect();
    return box.left < whole.left - 2 || box.right > whole.right + 2 || each.textContent.endsWith("…");
  })).map((each) => each.tagName + ": " + each.textContent.slice(0, 60));
}"""


def look(page: Path, width: int, *, dark: bool = False, picture: Path | None = None) -> dict[str, Any]:
    """Open the page in a window of so many pixels, without network; what was found there.

    ``wrong`` are errors of scripts, ``cut`` texts and drawings that are not whole, ``wider`` whether the page has to be
    moved sideways, ``violations`` those of axe-core, ``charts`` how many were drawn, ``fetched`` what it asked for.
    """
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", offline=True
        )
        shown = context.new_page()
        wrong: list[str] = []
        fetched: list[str] = []
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        shown.on("request", lambda request: fetched.append(request.url))
        shown.goto(page.as_uri())
        shown.wait_for_function(
            "() => document.querySelectorAll('.chart svg').length === document.querySelectorAll('.chart').length"
        )
        found = {
            "cut": shown.evaluate(_CUT),
            "wider": shown.evaluate("() => document.documentElement.scrollWidth > innerWidth"),
            "charts": shown.locator(".chart svg").count(),
            "violations": [(each["id"], each["nodes"][0]["html"]) for each in axe.run(shown).response["violations"]],
            "wrong": wrong,
            "fetched": fetched[1:],
        }
        if picture is not None:
            shown.screenshot(path=picture, full_page=True)
        browser.close()
    return found
