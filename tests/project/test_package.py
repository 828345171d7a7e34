"""What is built says what the source says; ``make package`` builds, and tools/check_package.py looks into it."""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import multimodal_pad
from multimodal_pad import cli
from tests.helpers.repository import needs_repository
from tools import check_package

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKE = shutil.which("make") or ""


def test_the_version_has_one_home(capsys):
    assert PROJECT["dynamic"] == ["version"]
    assert check_package.source_version(ROOT) == multimodal_pad.__version__
    with pytest.raises(SystemExit) as done:
        cli.main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"multimodal-pad {multimodal_pad.__version__}\n"


def test_the_citation_has_what_the_format_asks_for():
    """https://github.com/citation-file-format, version 1.2.0; the version of the software is left to the command."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == [{"name": "multimodal_pad contributors"}]
    assert "version" not in citation


def test_classifiers_agree_with_the_rest():
    minors = [int(c.rpartition(".")[2]) for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert PROJECT["requires-python"] == f">=3.{min(minors)},<3.{max(minors) + 1}"
    assert minors == list(range(min(minors), max(minors) + 1))
    cuda = {f"cuda{c.rpartition(' ')[2]}" for c in PROJECT["classifiers"] if "CUDA ::" in c}
    assert cuda == {extra for extra in PROJECT["optional-dependencies"] if re.fullmatch(r"cuda\d+", extra)}
    assert not any(c.startswith("License ::") for c in PROJECT["classifiers"])  # `license` says it


def test_every_extra_for_users_is_in_the_page_on_installing():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"'\.\[([\w-]+)\]'", page))
    assert shown == set(PROJECT["optional-dependencies"]) - {"cpu", "dev"}


def test_what_is_installed_to_try_has_the_bounds_of_the_project():
    assert check_package.requirements(ROOT) == [d for d in PROJECT["dependencies"] if d.startswith(("numpy>", "rich>"))]
    assert len(check_package.requirements(ROOT)) == 2


@pytest.fixture
def tree(tmp_path):
    """A small project of the same name."""
    root = tmp_path / "root"
    package = root / "multimodal_pad"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "1.2"\n')
    (package / "py.typed").touch()
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").touch()
    (root / "pyproject.toml").write_text(
        '[project]\nclassifiers = ["Typing :: Typed"]\n[project.optional-dependencies]\ncpu = []\n'
    )
    return root


FOLDER = "multimodal_pad-1.2.dist-info"
WHEEL = {
    "multimodal_pad/__init__.py": "",
    "multimodal_pad/py.typed": "",
    f"{FOLDER}/METADATA": "Version: 1.2\nClassifier: Typing :: Typed\nProvides-Extra: cpu\n\n",
    f"{FOLDER}/entry_points.txt": "[console_scripts]\nmultimodal-pad = multimodal_pad.cli:main\n",
    f"{FOLDER}/licenses/LICENSE": "",
}


def wheel_of(files, path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            if text is not None:
                archive.writestr(name, text)
    return path


def test_a_whole_wheel_has_no_faults(tree, tmp_path):
    assert check_package.wheel_faults(wheel_of(WHEEL, tmp_path / "a.whl"), tree) == []


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"multimodal_pad/py.typed": None}, "not in the wheel: multimodal_pad/py.typed"),
        ({"tests/conftest.py": ""}, "in the wheel, and not in multimodal_pad/: tests/conftest.py"),
        ({f"{FOLDER}/licenses/LICENSE": None}, "the wheel has no LICENSE"),
        ({f"{FOLDER}/entry_points.txt": None}, "the wheel has no command multimodal-pad"),
        (
            {f"{FOLDER}/METADATA": WHEEL[f"{FOLDER}/METADATA"].replace("1.2", "1.1")},
            "Version in METADATA: ['1.1'], and in the source ['1.2']",
        ),
        (
            {f"{FOLDER}/METADATA": "Version: 1.2\nProvides-Extra: cpu\n\n"},
            "Classifier in METADATA: [], and in the source ['Typing :: Typed']",
        ),
    ],
)
def test_faults_of_a_wheel(changed, fault, tree, tmp_path):
    assert check_package.wheel_faults(wheel_of(WHEEL | changed, tmp_path / "a.whl"), tree) == [fault]


def test_a_wheel_lacks_py_typed_even_where_the_source_does(tree, tmp_path):
    (tree / "multimodal_pad" / "py.typed").unlink()
    wheel = wheel_of({**WHEEL, "multimodal_pad/py.typed": None}, tmp_path / "a.whl")
    assert check_package.wheel_faults(wheel, tree) == ["not in the wheel: multimodal_pad/py.typed"]


def sdist_of(names, path):
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"multimodal_pad-1.2/{name}"), io.BytesIO())
    return path


WHOLE = {*check_package.IN_SDIST, "multimodal_pad/__init__.py", "multimodal_pad/py.typed"}


@pytest.mark.parametrize(
    ("names", "faults"),
    [
        (WHOLE, []),
        (WHOLE - {"CITATION.cff"}, ["not in the source distribution: CITATION.cff"]),
        (WHOLE - {"multimodal_pad/py.typed"}, ["not in the source distribution: multimodal_pad/py.typed"]),
        (WHOLE | {"results/a.json"}, ["in the source distribution, and not meant to be: results"]),
        (WHOLE | {"tests/a.pyc"}, ["in the source distribution: tests/a.pyc"]),
    ],
)
def test_faults_of_a_source_distribution(names, faults, tree, tmp_path):
    assert check_package.sdist_faults(sdist_of(sorted(names), tmp_path / "a.tar.gz"), tree) == faults


def test_a_large_source_distribution_is_a_fault(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(check_package, "SDIST_LIMIT", 10)
    (fault,) = check_package.sdist_faults(sdist_of(sorted(WHOLE), tmp_path / "a.tar.gz"), tree)
    assert "at most 10 are meant" in fault


def test_what_is_tried_can_fail(tmp_path):
    """Where JAX is installed, the trial would show nothing, and says so."""
    arguments = [sys.executable, "-c", check_package.TRY, "0", check_package.MODEL_SIDE]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "jax is installed here" in done.stderr


def test_the_source_distribution_has_what_it_is_checked_for():
    include = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    named = {pattern.removeprefix("/") for pattern in include["sdist"]["include"]}
    by_itself = {"LICENSE", "README.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert named | by_itself == check_package.IN_SDIST
    assert all((ROOT / name).exists() for name in named)


@pytest.mark.skipif(not MAKE or os.name != "posix", reason="needs make")
def test_make_help_names_every_goal():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (goals,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    written = set(re.findall(r"^([a-z]+):(?!=)", text, re.MULTILINE))
    assert written == set(goals.split())
    done = subprocess.run([MAKE, "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^make (\w+)", done.stdout, re.MULTILINE)) == written - {"help"}


@needs_repository
def test_ci_runs_what_the_default_run_leaves_out():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    left_out = re.findall(r"not (\w+)", options["addopts"][options["addopts"].index("-m") + 1])
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert left_out == ["slow", "long", "experiment"]
    left_out.remove("long")  # which no run has
    assert {"make package", "make test", f"""make test ARGS="-m '{" or ".join(left_out)}'\""""} <= set(lines)
