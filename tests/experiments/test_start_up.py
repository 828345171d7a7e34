import json
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
from rich.progress import Progress

from experiments.start_up import __main__ as start_up
from experiments.start_up import part as start_up_part
from multimodal_pad import PaddingError
from tests.helpers.caches import no_cache
from tests.helpers.devices import cpu_environment

OPTIONS = {
    **asdict(start_up.Config()),
    **start_up.QUICK,
    "policy": "planned_2/length",
    "cache_dir": None,
    "started": time.time(),
}


@pytest.mark.parametrize("policy", ["exact/random", "planned_2/length"])
@pytest.mark.experiment
@no_cache()
def test_a_start_says_what_it_took(policy):
    row = start_up_part.start({**OPTIONS, "policy": policy, "started": time.time()})
    assert 0 < row["seconds_to_prepare"] < row["seconds_to_first_step"] < row["seconds_to_last_step"]
    assert row["steps"] == 2
    assert (row["compiled_after_first_step"] > 0) == (policy == "exact/random")
    assert row["cache_hits"] == 0
    exact = policy == "exact/random"
    assert row["steps_compiled"] == (1 + row["compiled_after_first_step"] if exact else row["shapes"])
    assert "train_step" in row["report"]


@pytest.mark.experiment
def test_the_other_parts():
    small = {**OPTIONS, "rounds": 1}
    dispatch = start_up_part.dispatch(small)
    assert dispatch["compiled_us_median"] > 0
    warmed = start_up_part.warming(small)
    assert (len(warmed["lazy_seconds"]), len(warmed["warm_up_seconds"]), warmed["shapes"]) == (1, 1, 2)
    sizes = start_up_part.batch_sizes(small)
    assert all(0 < row["bytes"] <= sizes["limit"] for row in sizes["shapes"])
    assert sizes["compilations"] >= len(sizes["shapes"]) == 2


@pytest.mark.slow
def test_a_part_that_fails_is_told(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with Progress(disable=True) as progress, pytest.raises(PaddingError, match=r"part 'start' .*\n(.*\n)*.*'shortest'"):
        start_up.run(replace(start_up.Config(), policies=("shortest",)), progress)


def test_a_limit_is_a_number_or_the_device(tmp_path, capsys):
    assert start_up.main(["--bytes-limit", "much", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == 'error: got --bytes-limit much; give a number of bytes, or "device"\n'


def test_a_folder_without_the_corpus_is_told_at_once(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.start_up", "--data-dir", "nowhere", "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env=cpu_environment(),
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: nowhere")
    assert not (tmp_path / "run").exists()


def test_the_table_has_a_row_per_policy():
    def start(policy, kind, seconds, late):
        return {
            "policy": policy,
            "start": kind,
            "shapes": 1738,
            "steps": 10,
            "seconds_to_first_step": seconds,
            "seconds_to_last_step": 3 * seconds,
            "compiled_after_first_step": late,
        }

    late = {"exact/random": (9, 9, 9, 0), "planned_8/length": (0, 0, 0, 0)}
    results = {
        "config": {"batch_size": 32},
        "corpus": "MELD",
        "starts": [
            start(policy, kind, 10.0 + place, late[policy][place])
            for policy in late
            for place, kind in enumerate(start_up.STARTS)
        ],
        "warming": {"shapes": 8, "lazy_seconds": [60.0, 66, 63], "warm_up_seconds": [41.0, 42, 43]},
        "dispatch": {"overhead_us_median": 1.4, "overhead_us_quartiles": [0.8, 2.1], "compiled_us_median": 11.0},
        "batch_sizes": {
            "limit": 4.5e8,
            "seconds": 100.0,
            "compilations": 24,
            "shapes": [{"rows": 20, "most": 99, "bytes": 4e8}, {"rows": 7, "most": 7, "bytes": 1e8}],
            "predictions": [{"predicted": 4.1e8, "bytes": 4e8}],
        },
        "device": {"platform": "cpu", "kind": "cpu", "count": 1, "cpu": "a CPU", "cores": 2, "memory_gib": 8},
        "python": "3.11",
        "versions": {"jax": "0.10", "flax": "0.12"},
        "commit": "0" * 40,
        "command": "python",
    }
    lines = start_up.markdown(json.loads(json.dumps(results))).splitlines()
    assert lines[4].startswith(
        "| exact, random | 1,738 | 10 s, 30 s | 11 s, 33 s | 12 s, 36 s | 13 s, 39 s | 9 (0 with"
    )
    assert lines[5].endswith("| 0 |")
    findings = lines[-3]
    assert "takes 42 s (41 to 43), compiling them one by one 63 s (60 to 66): 1.50 times as long" in findings
    assert "within 2.5 % of XLA's analysis, and the limit 89 to 89 % full." in findings
