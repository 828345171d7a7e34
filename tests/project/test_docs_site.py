"""The API pages miss no public name, and pages link to what is there."""

import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

from multimodal_pad.planning import lines, partition, planner, search, task
from tests.helpers.repository import needs_repository

DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENTED = re.findall(
    r"^::: (\S+)$", "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md")), re.MULTILINE
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


def test_docstrings_become_markdown():
    griffe = pytest.importorskip("griffe")
    extensions = griffe.load_extensions(str(DOCS / "hooks" / "docstrings.py"))
    package = griffe.load("multimodal_pad", search_paths=[str(DOCS.parent)], extensions=extensions)
    found = 0
    for path in DOCUMENTED:
        thing = package.modules_collection.get_member(path)
        thing = thing.final_target if thing.is_alias else thing
        for part in [thing, *(member for member in thing.members.values() if not member.is_alias)]:
            text = part.docstring.value if part.docstring else ""
            assert not re.search(r":(attr|class|data|func|meth|mod):`", text), part.path
            assert text.count("```") == 2 * text.count("```pycon\n"), part.path
            assert not re.search(r"^ *>>>", re.sub(r"```pycon.*?```", "", text, flags=re.DOTALL), re.MULTILINE), (
                part.path
            )
            for name in re.findall(r'identifier="(multimodal_pad\.[^"]+)"', text):
                assert package.modules_collection.get_member(name)
                found += 1
    assert found > 0


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
    blocks = re.findall(r"^```\w*\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert [line for block in blocks for line in block.splitlines() if len(line) > COLUMNS] == []
