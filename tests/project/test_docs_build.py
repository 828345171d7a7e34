"""The site, built without its notebook run and opened from its folder: search, widths, nothing from elsewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.browser import CHROMIUM, look
from tests.helpers.repository import needs_repository

DOCS = Path(__file__).resolve().parents[2] / "docs"

for needed in ("sphinx", "myst_nb", "pydata_sphinx_theme", "sphinx_copybutton"):
    pytest.importorskip(needed)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    options = ["--quiet", "--fail-on-warning", "--doctree-dir", str(folder / "doctrees"), "-D", "nb_execution_mode=off"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(DOCS), str(folder / "site")],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "site"


@pytest.fixture
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.slow
@needs_repository
def test_search_works_from_a_folder(site, browser):
    page = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}).new_page()
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("Control+k")
    page.keyboard.type("packed")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    page.wait_for_function("() => document.querySelectorAll('#search-results li').length > 5")
    found = page.eval_on_selector_all(
        "#search-results li > a", "links => links.map((link) => link.getAttribute('href'))"
    )
    assert any("write-a-packed-model.html" in link for link in found), found
    assert wrong == []


@pytest.mark.slow
@needs_repository
def test_code_is_whole_on_a_page_of_1280_pixels(site, browser):
    page = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}).new_page()
    cut = {}
    for path in sorted(DOCS.glob("*.md")):
        page.goto((site / f"{path.stem}.html").as_uri())
        cut[path.name] = page.eval_on_selector_all(
            "div[class*=highlight-] pre",
            "blocks => blocks.filter((block) => block.scrollWidth > block.clientWidth + 1)"
            ".map((block) => block.textContent.slice(0, 80))",
        )
    assert {name: blocks for name, blocks in cut.items() if blocks} == {}


@pytest.mark.slow
@needs_repository
@pytest.mark.parametrize(("width", "dark"), [(400, True), (1280, False)])
@pytest.mark.parametrize("page", ["index.html", "api/planner.html"])
def test_pages_can_be_read_by_all_and_ask_for_nothing(site, page, width, dark):
    found = look(site / page, width, dark=dark)
    assert not found["wider"]
    assert [url for url in found["fetched"] if not url.startswith(("file:", "data:"))] == []
    # Sphinx writes the arguments of a long signature as definitions without terms.
    assert [(rule, html) for rule, html in found["violations"] if rule != "definition-list"] == []


@pytest.mark.parametrize(
    "loaded",
    ['<img src="https://example.org/a.png">', '<link href="//example.org/a.css">', "<style>@import url(//a.org/b)"],
)
def test_a_page_that_would_load_something_is_an_error(tmp_path, loaded):
    extension = importlib.util.spec_from_file_location("no_network", DOCS / "extensions" / "no_network.py")
    no_network = importlib.util.module_from_spec(extension)
    extension.loader.exec_module(no_network)
    app = SimpleNamespace(outdir=tmp_path)
    (tmp_path / "fine.html").write_text('<a href="https://example.org">there</a><script src="a.js"></script>')
    no_network.check_pages(app, None)
    (tmp_path / "page.html").write_text(f"<p>{loaded}</p>")
    with pytest.raises(no_network.ExtensionError, match=re.escape("page.html would load something from elsewhere")):
        no_network.check_pages(app, None)
