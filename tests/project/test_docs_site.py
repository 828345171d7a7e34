"""The API pages miss no public name, and pages link to what is there."""

import importlib
import inspect
import json
import pkgutil
import re
from pathlib import Path

import pytest

from multimodal_pad.planning import lines, partition, planner, search, task
from tests.helpers.repository import needs_repository

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DOCUMENTED = re.findall(
    r"^\.\. auto\w+:: (\S+)$",
    "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md")),
    re.MULTILINE,
)

COLUMNS = 96
"""Of a block of code, what a screen of 1,280 pixels shows; docs/ruff.toml has it for Python."""


@pytest.mark.parametrize("package", ["", "compiling", "models", "serving", "sources", "batching.streams", "training"])
def test_every_public_name_has_its_place(package):
    module = importlib.import_module(f"multimodal_pad.{package}".rstrip("."))
    missing = [name for name in module.__all__ if not any(leads_to(path, module, name) for path in DOCUMENTED)]
    assert not missing


@pytest.mark.parametrize("name", ["errors", "grain"])
def test_every_public_class_of_a_module_has_its_place(name):
    if name == "grain":
        pytest.importorskip("grain")
    module = importlib.import_module(f"multimodal_pad.{name}")
    public = [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert public
    assert not [name for name in public if not any(leads_to(path, module, name) for path in DOCUMENTED)]


def leads_to(path, module, name):
    """Whether a path on the site is that of a name, there or where it is defined or passed on."""
    where, _, last = path.rpartition(".")
    return last == name and getattr(importlib.import_module(where), last) is getattr(module, name)


def test_each_name_is_documented_once():
    assert len(set(DOCUMENTED)) == len(DOCUMENTED) > 0


def test_names_in_docstrings_are_there():
    names = [
        (path.name, name)
        for path in sorted((ROOT / "multimodal_pad").rglob("*.py"))
        for name in re.findall(r":[a-z]+:`(?:[^`<]+<|~)?(multimodal_pad\.[^`>]+)>?`", path.read_text(encoding="utf-8"))
    ]
    assert len(names) > 50
    assert [(file, name) for file, name in names if not is_there(name)] == []


def is_there(name):
    """Whether a path leads to a module, a name of one, or a member or field of a class."""
    try:
        pkgutil.resolve_name(name)
    except AttributeError:
        owner, _, last = name.rpartition(".")
        return last in getattr(pkgutil.resolve_name(owner), "__annotations__", {})
    except ModuleNotFoundError as error:
        return not (error.name or "").startswith("multimodal_pad")  # an extra that is not installed
    return True


def test_every_page_is_in_the_list_of_pages():
    lists = re.findall(
        r"^```\{toctree\}\n(.*?)^```$", (DOCS / "index.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    listed = re.findall(r"<(.+)>$", "\n".join(lists), re.MULTILINE)
    pages = [
        path.relative_to(DOCS).with_suffix("").as_posix()
        for kind in ("md", "ipynb")
        for path in DOCS.rglob(f"*.{kind}")
    ]
    assert sorted(listed) == sorted({*pages, "self"} - {"index"})


@needs_repository
def test_files_that_pages_link_to_are_there():
    links = [
        (page, link)
        for page in sorted(DOCS.rglob("*.md"))
        for link in re.findall(r"\]\(([^)#:\s]+)", page.read_text(encoding="utf-8"))
    ]
    assert {page.name for page, _ in links} >= {"index.md", "scale.md"}
    assert [(page.name, link) for page, link in links if not page.parent.joinpath(link).is_file()] == []


def test_the_limits_that_the_planner_page_names():
    text = (DOCS / "planner.md").read_text(encoding="utf-8")
    for limit in (
        f"at most {partition.ENUMERATED} distinct aligned lengths",
        f"{lines.POSITIONS} at most",
        f"Up to {search.FEW} shapes",
        f"More than {planner.SEARCHED_ROWS:,} distinct lengths",
        f"at least {task.DRAWN_BATCHES:,} batches ({task.MOST_EPOCHS} epochs at most)",
        f"no further than {planner.MOST_SHAPES} shapes",
    ):
        assert limit in re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_kept_without_what_they_gave(path):
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"] is not None] == []


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.stem)
def test_code_is_no_wider_than_a_page_shows(path):
    blocks = re.findall(r"^```\S*\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert [line for block in blocks for line in block.splitlines() if len(line) > COLUMNS] == []
