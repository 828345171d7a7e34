"""The inputs of ``experiments/inputs``: each is handed in alone, and whatever comes out is told."""

import subprocess
import sys

import pytest

from experiments.inputs.__main__ import SUBJECTS, markdown, package_of
from experiments.inputs.case import ROOT, cases_of, hand_in
from multimodal_pad import PaddingError

PROBE = """
import os
import sys

from experiments.inputs.case import case


@case("values", "one and one")
def value():
    return f"{1 + 1}\\n\\x1b[31mred {os.getcwd()}/file"


@case("errors", "of the package")
def ours():
    from multimodal_pad import PaddingError

    raise PaddingError("got 1")


@case("errors", "of Python")
def other():
    return {}["key"]


@case("errors", "no end")
def endless():
    while True:
        pass


@case("errors", "the end of the process")
def ends():
    os._exit(7)


@case("errors", "too much memory")
def large():
    return str(len(bytearray(16 * 2**30)))
"""


@pytest.fixture
def probe(tmp_path, monkeypatch):
    """A module of cases, which the processes find as well."""
    (tmp_path / "probe_cases.py").write_text(PROBE, encoding="utf-8")
    monkeypatch.setattr("experiments.inputs.case.SECONDS", 2)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind", "outcome"),
    [
        ("value", "value", "2 [31mred file"),
        ("ours", "error of the package", "PaddingError: got 1"),
        ("other", "other error", "KeyError: 'key'"),
        ("ends", "other error", "the process ends with status 7: "),
        ("large", "other error", "MemoryError:"),
    ],
)
def test_what_comes_out_is_told_whatever_it_is(probe, monkeypatch, name, kind, outcome):
    monkeypatch.setattr("experiments.inputs.case.SECONDS", 60)
    package = _with_probe(probe)
    found = hand_in("probe_cases", name, package)
    assert (found["kind"], found["outcome"]) == (kind, outcome)


def test_an_input_without_end_is_given_up(probe):
    found = hand_in("probe_cases", "endless", _with_probe(probe))
    assert (found["kind"], found["outcome"]) == ("no end", "no end after 2 s")


def _with_probe(folder):
    (folder / "multimodal_pad").symlink_to(ROOT / "multimodal_pad")
    return folder


def test_a_case_has_a_kind_an_input_and_a_module_that_the_processes_find():
    for subject in SUBJECTS:
        cases = cases_of(f"experiments.inputs.{subject}")
        assert cases, subject
        assert all(
            each.kind and each.text and each.module == f"experiments.inputs.{subject}" for each in cases.values()
        )


def test_a_commit_that_git_does_not_know_is_an_error(tmp_path):
    with pytest.raises(PaddingError, match="no package of commit 'nothing'"):
        package_of("nothing", tmp_path)


def test_the_table_counts_what_is_no_error_of_ours():
    sides = {
        "before": {"kind": "no end", "outcome": "no end after 120 s", "seconds": 120, "peak_mib": None},
        "now": {"kind": "value", "outcome": "a|b", "seconds": 7.2, "peak_mib": 2048},
    }
    results = {
        "before_commit": "1234567",
        "cases": [{"kind": "bombs", "input": "a file", **sides}],
        "device": {"platform": "cpu", "kind": "cpu", "count": 1, "cpu": "a CPU", "cores": 2, "memory_gib": 1.0},
        "python": "3.11",
        "versions": {"jax": "0", "flax": "0"},
        "commit": None,
        "command": "python -m experiments.inputs",
    }
    table = markdown(results)
    assert "| bombs | a file | no end after 120 s | a\\|b (7 s, 2.0 GiB) |" in table
    assert "no end within two minutes: 1 before, 0 now" in table


@pytest.mark.long
def test_all_cases_end_in_a_value_or_an_error_of_the_package():
    found = {
        f"{subject}.{name}": hand_in(each.module, name)
        for subject in SUBJECTS
        for name, each in cases_of(f"experiments.inputs.{subject}").items()
    }
    assert {name: each for name, each in found.items() if each["kind"] not in ("value", "error of the package")} == {}


@pytest.mark.slow
def test_help_says_what_it_does():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.inputs", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "before and now" in done.stdout
