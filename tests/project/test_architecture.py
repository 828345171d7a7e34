"""The house: which room may import which, no circles, and no test that imports another test."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [
    ["errors"],
    ["output", "progress_bars", "reading", "signals", "spans", "text_table"],
    ["terminal"],
    ["delimited", "json_lines"],
    ["lengths"],
    ["layouts"],
    ["scheduling"],
    ["planning"],
    ["batching"],
    ["models", "compiling"],
    ["sources"],
    ["training", "grain"],
    ["serving"],
    ["commands"],
    ["cli"],
]
FLOORS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
"""A room imports what is on its own floor only from itself, and what is below."""

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "multimodal_pad").rglob("*.py")
}


def imported(path):
    """The modules of the project that a file imports anywhere, even within a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room(module):
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_import_runs_upward(module):
    here = room(module)
    if not here:
        return
    others = {room(name) for name in imported(MODULES[module]) & set(MODULES)} - {"", here}
    assert {other for other in others if FLOORS[other] >= FLOORS[here]} == set()


def test_no_modules_import_each_other_in_a_circle():
    needs = {name: imported(path) & set(MODULES) - {name} for name, path in MODULES.items() if room(name)}
    while free := {name for name, others in needs.items() if not others & set(needs)}:
        needs = {name: others for name, others in needs.items() if name not in free}
    assert not needs


def test_the_package_imports_neither_experiments_nor_tests():
    roots = {name.split(".")[0] for path in MODULES.values() for name in imported(path)}
    assert not roots & {"experiments", "tests"}


def test_no_test_imports_another_test():
    for path in (ROOT / "tests").rglob("*.py"):
        others = {name for name in imported(path) if name.startswith("tests.")}
        assert not {name for name in others if ".test_" in name}, path
