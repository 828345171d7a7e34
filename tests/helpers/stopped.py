"""A training that gets SIGTERM in one of its phases: ``python -m tests.helpers.stopped FOLDER PHASE``."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from multimodal_pad.training import fit, make_optimizer, run
from multimodal_pad.training.checkpoint import Checkpoints
from tests.helpers.training import MeanModel, make_batcher, make_samples

PHASES = ["compiling", "training", "evaluating", "saving"]
TWICE = "twice"
"""Two Ctrl-C while it compiles."""


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt_twice():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)


class Terminating(list):
    """A source at one of whose reads the signal comes."""

    def __init__(self, samples, at):
        super().__init__(samples)
        self.reads, self.at = 0, at

    def __getitem__(self, index):
        self.reads += 1
        if self.reads == self.at:
            terminate()
        return super().__getitem__(index)


class TerminatedWhileSaving(Checkpoints):
    def save(self, step, *arguments, **options):
        if step == 14:
            terminate()
        super().save(step, *arguments, **options)


def train(checkpoints=None, phase=None):
    """Seven steps in each of three epochs; what they come to."""
    evaluated = make_samples(23, seed=1)
    lengths = make_batcher(evaluated).lengths
    if phase == "evaluating":
        evaluated = Terminating(evaluated, 30)  # a sample of the example, 23 of the first epoch, 6 of the second
    callbacks = {
        TWICE: {"on_compile": lambda _: interrupt_twice()},
        "compiling": {"on_compile": lambda _: terminate()},
        "training": {"on_step": lambda record: record["steps"] == 9 and terminate()},
    }
    result = fit(
        MeanModel(),
        make_batcher(make_samples(41)),
        epochs=3,
        evaluate_on=make_batcher(evaluated, lengths=lengths),
        optimizer=make_optimizer(0.01),
        checkpoints=checkpoints,
        progress=False,
        **callbacks.get(phase, {}),
    )
    losses = [[record.train_loss, *record.evaluation.values()] for record in result.history]
    return {"kernel": np.asarray(result.model.head.kernel[...]), "losses": np.array(losses), "best": result.best_epoch}


if __name__ == "__main__":
    run.TOLD_SECONDS = -1.0  # callbacks are told of each step by itself
    kind = TerminatedWhileSaving if sys.argv[2] == "saving" else Checkpoints
    train(kind(Path(sys.argv[1])), sys.argv[2])
