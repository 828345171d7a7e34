import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from experiments.lib.worker import start
from experiments.peers import batcher as benchmark_batcher
from experiments.peers.batcher import main, markdown
from experiments.peers.batcher_contenders import CONTENDERS, Padded
from experiments.peers.batcher_process import Config, check_epoch, load, prepare

SMALL = replace(Config(), **{**benchmark_batcher.QUICK, "samples": 50})


@pytest.fixture(scope="module")
def work():
    return load(SMALL)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_a_contender_gives_the_batches_of_the_schedule_each_time(contender, work):
    if not find_spec(contender.package):
        pytest.skip(f"{contender.package} is not installed")
    epoch = contender.make(work)
    wanted = sum(x.nbytes for batch in work.ready for x in (*batch.features.values(), *batch.lengths.values()))
    if not contender.fills:
        wanted = sum(array.nbytes for _, ids in work.steps for i in ids for array in work.samples[i].values())
    for _ in range(2):
        size = check_epoch(contender, epoch, work)
        assert size < wanted if contender.own_maxima else size == wanted


def test_the_work_has_a_batch_with_empty_rows(work):
    assert any(-1 in ids for _, ids in work.steps)


@pytest.mark.parametrize("change", ["features", "lengths"])
def test_other_batches_are_not_compared(work, change):
    def epoch():
        for batch in work.ready:
            arrays = {"features": batch.features, "lengths": batch.lengths}
            yield Padded(**{**arrays, change: {name: np.roll(x, 1, axis=0) for name, x in arrays[change].items()}})

    with pytest.raises(RuntimeError, match=r"np\.copyto of ready batches: its batches are not those of the schedule"):
        check_epoch(CONTENDERS[0], epoch, work)


def test_a_quick_run(tmp_path, capsys, monkeypatch):
    absent = CONTENDERS[4]._replace(package="nowhere")
    monkeypatch.setattr(benchmark_batcher, "CONTENDERS", (CONTENDERS[0], CONTENDERS[2], absent))
    assert main(["--quick", "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in results["rows"]] == [CONTENDERS[0].name, CONTENDERS[2].name]
    for row in results["rows"]:
        assert len(row["seconds"]) == 2
        assert min(row["seconds"]) > 0
        assert row["bytes"] == results["rows"][0]["bytes"]
    assert results["not_installed"] == ["nowhere"]
    assert "Not installed: nowhere." in shown
    assert markdown(results) in shown
    (copied,) = (line for line in shown.splitlines() if line.startswith(f"| {CONTENDERS[0].name} |"))
    assert "| 1.00 |" in copied


def test_a_contender_that_dies_is_named(capfd):
    with (
        pytest.raises(RuntimeError, match="nobody: its process ended"),
        start("nobody", prepare, "nobody", SMALL),
    ):
        pass
    assert "ValueError" in capfd.readouterr().err


def test_bad_arguments_are_one_line(tmp_path, capsys):
    assert main(["--data-dir", "nowhere", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere")
    assert not (tmp_path / "run").exists()
