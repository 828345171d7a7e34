"""A training that is to be killed: ``python -m tests.helpers.killed FOLDER LAYOUT``; the next call goes on with it."""

import sys
import time
from pathlib import Path

import numpy as np

from multimodal_pad.training import fit, make_optimizer
from multimodal_pad.training.checkpoint import Checkpoints
from tests.helpers.training import MeanModel, make_batcher, make_samples

STEPS_BETWEEN = 3


class Slow(list):
    """A source that takes a moment for each sample, so that there is time to be killed in."""

    def __getitem__(self, index):
        time.sleep(0.001)
        return super().__getitem__(index)


def train(folder: Path | None, layout="padded", samples=None):
    """What every run has to come to: the kernel, and the losses of each epoch."""
    samples = make_samples(41) if samples is None else samples
    options = {"evaluate_on": make_batcher(make_samples(23, seed=1), layout), "optimizer": make_optimizer(0.01)}
    if folder is not None:
        options |= {"checkpoints": Checkpoints(folder), "save_every": STEPS_BETWEEN}
    batcher = make_batcher(samples, layout)
    result = fit(MeanModel(), batcher, epochs=25, **options, strict=True, progress=False)
    losses = [[record.train_loss, *record.evaluation.values()] for record in result.history]
    return {"kernel": np.asarray(result.model.head.kernel[...]), "losses": np.array(losses), "best": result.best_epoch}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print("training", flush=True)
    np.savez(folder / "result.npz", **train(folder / "checkpoints", sys.argv[2], Slow(make_samples(41))))
