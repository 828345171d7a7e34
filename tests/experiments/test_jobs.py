"""The scripts of a new user's jobs: all run, and their lines are counted."""

import pytest
from rich.progress import Progress

from experiments.jobs.__main__ import FOLDER, JOBS, SIDES, count_lines, markdown, run, run_script
from multimodal_pad import PaddingError

SAME = ["own_nnx_loop", "equinox_loop", "linen_loop", "save_and_predict", "serve"]
"""Jobs whose scripts print losses of their own loop or outputs, which are the same on both sides."""


def test_every_job_has_both_scripts_and_no_other_is_there():
    for side in SIDES:
        assert {path.stem for path in (FOLDER / side).glob("*.py")} == {*JOBS, "__init__"}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", 0),
        ('"""A docstring\nof two lines."""\nimport numpy\n', 1),
        ("x = [\n\n    1,  # one\n    # two\n]\n", 3),
        ('def f():\n    """Says."""\n    return """a\nb"""\n', 3),
        ("a = 1; b = 2\n", 1),
    ],
)
def test_lines_of_code_are_counted(text, lines):
    assert count_lines(text) == lines


def test_no_script_hides_lines_in_what_is_given():
    for job in JOBS:
        imported = {
            side: {
                line
                for line in (FOLDER / side / f"{job}.py").read_text(encoding="utf-8").splitlines()
                if line.startswith("from experiments.")
            }
            for side in SIDES
        }
        given = {side: {line.split(" import ")[0] for line in lines} for side, lines in imported.items()}
        assert given["before"] == given["after"], job


@pytest.mark.experiment
@pytest.mark.parametrize("job", JOBS)
def test_the_script_of_a_job_runs_and_is_shorter(job):
    before = count_lines((FOLDER / "before" / f"{job}.py").read_text(encoding="utf-8"))
    after = run_script("after", job)
    assert 0 < after["lines"] < before
    if job in SAME:
        assert after["printed"] != []


@pytest.mark.long
@pytest.mark.parametrize("job", SAME)
def test_both_scripts_of_a_job_print_the_same(job):
    results = run([job], Progress(disable=True))
    before, after = (results["jobs"][job][side] for side in SIDES)
    assert after["printed"] == before["printed"] != []


def test_a_script_that_fails_is_named():
    with pytest.raises(PaddingError, match=r"(?s)the script .*after/none\.py failed:\n.*No module named"):
        run_script("after", "none")


def test_the_table_has_a_line_for_each_job_and_the_sum():
    jobs = {job: {"before": {"lines": 9}, "after": {"lines": 4}} for job in JOBS}
    device = {"count": 1, "kind": "cpu", "platform": "cpu", "cpu": "a CPU", "cores": 2, "memory_gib": 8}
    origin = {"device": device, "versions": {"jax": "1", "flax": "1"}, "python": "3", "commit": None, "command": "-"}
    table = markdown({"jobs": jobs, **origin}).splitlines()
    assert len([line for line in table if line.startswith("|")]) == len(JOBS) + 3
    assert f"| **all** | {9 * len(JOBS)} | {4 * len(JOBS)} |" in table
