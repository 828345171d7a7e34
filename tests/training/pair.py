"""One of two processes that train together: ``python -m tests.training.pair PORT INDEX FOLDER``."""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from multimodal_pad import BucketBatcher, Fixed, LengthTable
from multimodal_pad.errors import TrainingError
from multimodal_pad.training import fit, make_optimizer
from tests.training.test_loop import MeanModel, make_batcher, make_samples

LENGTHS = LengthTable.measure(make_samples(41))


class Failing(list):
    """A source whose tenth read fails, or ends the process."""

    def __init__(self, fail):
        super().__init__(make_samples(41))
        self.fail, self.reads = fail, 0

    def __getitem__(self, index):
        self.reads += 1
        if self.reads == 10:
            self.fail()
        return super().__getitem__(index)


def damaged():
    raise OSError("the disk is damaged")


def killed():
    print("dying", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def one_shape(source, lengths=None):
    return BucketBatcher(source, Fixed({"audio": 12}), batch_size=6, lengths=lengths)


def refusal(batcher, kind=TrainingError):
    """What a run over the batcher ends with."""
    try:
        fit(MeanModel(), batcher, epochs=1, progress=False)
    except kind as error:
        return " ".join([str(error), *getattr(error, "__notes__", [])])
    raise SystemExit("nothing was raised")


def train():
    """What one process and two are to come to alike."""
    options = {"epochs": 3, "evaluate_on": make_batcher(make_samples(23, seed=1)), "optimizer": make_optimizer(0.1)}
    result = fit(MeanModel(), make_batcher(make_samples(41)), **options, strict=True, progress=False)
    losses = [[record.train_loss, *record.evaluation.values()] for record in result.history]
    return {"kernel": np.asarray(result.model.head.kernel[...]), "losses": np.array(losses)}


def main(port: str, index: int, folder: Path) -> None:
    seconds = {"heartbeat_timeout_seconds": 10, "shutdown_timeout_seconds": 10}
    jax.distributed.initialize(f"localhost:{port}", 2, index, **seconds)
    np.savez(folder / f"{index}.npz", **train())
    shorter = BucketBatcher(make_samples(41), Fixed({"audio": 12 + index}), batch_size=6)
    print("shapes:", refusal(shorter), flush=True)
    print("steps:", refusal(one_shape(make_samples(41 + 6 * index))), flush=True)
    source = one_shape(Failing(damaged) if index else make_samples(41), LENGTHS)
    print("source:", refusal(source, OSError if index else TrainingError), flush=True)
    print("death:", refusal(one_shape(Failing(killed) if index else make_samples(41), LENGTHS)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
