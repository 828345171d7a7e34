"""One of two processes that train together: ``python -m tests.helpers.pair PORT INDEX FOLDER``."""

import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from multimodal_pad import BucketBatcher, Fixed, LengthTable
from multimodal_pad.errors import TrainingError
from multimodal_pad.training import DataMesh, Stopped, fit, make_optimizer
from multimodal_pad.training.checkpoint import Checkpoints
from tests.helpers.training import MeanModel, make_batcher, make_samples

LENGTHS = LengthTable.measure(make_samples(41))


class Failing(list):
    """A source one of whose reads fails, or ends the process."""

    def __init__(self, fail, at, count=41):
        super().__init__(make_samples(count))
        self.fail, self.reads, self.at = fail, 0, at

    def __getitem__(self, index):
        self.reads += 1
        if self.reads == self.at:
            self.fail()
        return super().__getitem__(index)


def damaged():
    raise OSError("the disk is damaged")


def terminated():
    os.kill(os.getpid(), signal.SIGTERM)


def killed():
    print("dying", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def one_shape(source, lengths=None):
    return BucketBatcher(source, Fixed({"audio": 12}), batch_size=6, lengths=lengths)


def one_of_each():
    """The first device of each process."""
    return list({device.process_index: device for device in reversed(jax.devices())}.values())


def refusal(batcher, kind=TrainingError, model=None, **options):
    """What a run over the batcher ends with."""
    try:
        fit(model or MeanModel(), batcher, **{"epochs": 1, "progress": False, "devices": one_of_each(), **options})
    except kind as error:
        return " ".join([str(error), *getattr(error, "__notes__", [])])
    raise SystemExit("nothing was raised")


def train(layout="padded", epochs=3, terminated_at=None, **options):
    """What one device and several are to come to alike; in the last batch of 37 samples, the first has the only row."""
    how = {"layout": layout, "batch_size": 12 if layout == "packed" else 6, "shares": 4}
    options |= {"evaluate_on": make_batcher(make_samples(23, seed=1), **how), "optimizer": make_optimizer(0.1)}
    lengths = make_batcher(make_samples(37), **how).lengths
    samples = make_samples(37) if terminated_at is None else Failing(terminated, terminated_at, 37)
    samples = make_batcher(samples, **how, lengths=lengths)
    result = fit(MeanModel(), samples, epochs=epochs, **options, strict=True, progress=False)
    losses = [[record.train_loss, *record.evaluation.values()] for record in result.history]
    return {"kernel": np.asarray(result.model.head.kernel[...]), "losses": np.array(losses)}


def train_in_two_goes(layout, folder, devices):
    """:func:`train`, from checkpoints after two epochs on."""
    with Checkpoints(folder) as checkpoints:
        train(layout, 2, checkpoints=checkpoints, save_every=2, devices=devices)
    with Checkpoints(folder) as checkpoints:
        return train(layout, checkpoints=checkpoints, devices=devices)


def train_with_a_stop(folder, index, devices):
    """:func:`train`, where one process gets SIGTERM in the second epoch, and both go on from there."""
    with Checkpoints(folder) as checkpoints:
        try:
            train(terminated_at=30 if index else None, checkpoints=checkpoints, devices=devices)
        except Stopped as stopped:
            print("stop:", stopped.code, stopped.epoch, stopped.step, flush=True)
        return train(checkpoints=checkpoints, devices=devices)


def main(port: str, index: int, folder: Path) -> None:
    seconds = {"heartbeat_timeout_seconds": 10, "shutdown_timeout_seconds": 10}
    jax.distributed.initialize(f"localhost:{port}", 2, index, **seconds)
    assert jax.device_count() == 4
    for layout, devices in (("padded", one_of_each()), ("packed", jax.devices())):
        np.savez(folder / f"{layout}-{index}.npz", **train_in_two_goes(layout, folder / layout, devices))
    np.savez(folder / f"stopped-{index}.npz", **train_with_a_stop(folder / "stopped", index, one_of_each()))
    batcher = one_shape(make_samples(41))
    print("model:", refusal(batcher, model=MeanModel(2 + index)), flush=True)
    print("epochs:", refusal(batcher, epochs=1 + index), flush=True)
    print("data:", refusal(one_shape(make_samples(41 + 6 * index))), flush=True)
    wider = [{**sample, "audio": np.repeat(sample["audio"], 1 + index, axis=1)} for sample in make_samples(41)]
    print("samples:", refusal(make_batcher(wider, "packed", shares=2)), flush=True)
    mesh = DataMesh(one_of_each())
    for what, other in (("shapes", 13), ("steps", 12)):
        batches = BucketBatcher(make_samples(41 + 6 * index), Fixed({"audio": other if index else 12}), batch_size=6)
        try:
            list(mesh.epoch(mesh.share(batches), 0))
        except TrainingError as error:
            print(f"{what}: {error}", flush=True)
    source = one_shape(Failing(damaged, 10) if index else make_samples(41), LENGTHS)
    print("source:", refusal(source, OSError if index else TrainingError), flush=True)
    source = one_shape(Failing(killed, 45) if index else make_samples(41), LENGTHS)
    death = refusal(source, epochs=9, checkpoints=Checkpoints(folder / "other"), save_every=3)
    print("death:", death, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
