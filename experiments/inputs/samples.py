"""Cases of samples, containers, dtypes and targets."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from experiments.inputs.case import case


def _batcher(samples, **options):
    from multimodal_pad import BucketBatcher, Fixed

    return BucketBatcher(samples, Fixed({"audio": 8}), batch_size=4, prefetch=0, **options)


def _audio(values) -> str:
    from multimodal_pad import pad_samples

    features = pad_samples([{"audio": values}]).features["audio"]
    return f"a batch of {features.dtype.str}: {features.ravel().tolist()}"


def _targets(targets) -> str:
    batch = next(iter(_batcher([{"audio": np.ones((2, 3), "f4"), "targets": targets}] * 3)))
    return f"targets of {batch.targets.dtype.str}: {batch.targets.tolist()}"


def _missing(value) -> str:
    samples = [{"audio": value}, {"audio": np.ones((2, 3), np.float32)}]
    found = [f"{batch.features['audio'].shape} {batch.features['audio'].dtype}" for batch in _batcher(samples)]
    return f"batches of {', '.join(found)}"


@case("a source reuses its buffer", "200 samples read into one array, BucketBatcher, batches of 4")
def reused_buffer() -> str:
    from multimodal_pad import LengthTable

    class Source:
        buffer = np.zeros((8, 2), np.float32)

        def __len__(self):
            return 200

        def __getitem__(self, index):
            self.buffer[:] = index
            return {"audio": self.buffer, "targets": np.float32(index)}

    table = LengthTable(("audio",), np.full((200, 1), 8))
    wrong = 0
    for batch in _batcher(Source(), lengths=table):
        wrong += int((batch.features["audio"][:, 0, 0] != batch.targets).sum())
    return f"{wrong} of 200 rows wrong"


@case("a source reuses its buffer", "200 samples read into one array, StreamBatcher, buffer of 64")
def reused_by_a_stream() -> str:
    from multimodal_pad import Fixed, StreamBatcher

    def stream():
        buffer = np.zeros((8, 2), np.float32)
        for index in range(200):
            buffer[:] = index
            yield {"audio": buffer, "targets": np.float32(index)}

    wrong = 0
    for batch in StreamBatcher(stream(), Fixed({"audio": 8}), batch_size=4, buffer=64):
        wrong += int((batch.features["audio"][:, 0, 0] != batch.targets).sum())
    return f"{wrong} of 200 rows wrong"


@case("a source reuses its dict", "200 samples in one dict, BucketBatcher, batches of 4")
def reused_dict() -> str:
    from multimodal_pad import LengthTable

    class Source:
        sample: dict = {}  # noqa: RUF012  that is the input

        def __len__(self):
            return 200

        def __getitem__(self, index):
            self.sample.update(audio=np.full((8, 2), index, np.float32), targets=np.float32(index))
            return self.sample

    table = LengthTable(("audio",), np.full((200, 1), 8))
    found = [label for batch in _batcher(Source(), lengths=table) for label in batch.targets.tolist()]
    return f"{200 - len(set(found))} of 200 samples lost"


@case("masked array", "np.ma.array([1, 999, 3], mask=[0, 1, 0]) as a modality")
def masked() -> str:
    return _audio(np.ma.array([1, 999, 3], mask=[False, True, False]))


@case("dtype", "big-endian features, >f4")
def big_endian() -> str:
    return _audio(np.array([1, 2], ">f4"))


@case("dtype", "longdouble features")
def longdouble() -> str:
    return _audio(np.array([1, 2], np.longdouble))


@case("dtype", "datetime targets")
def datetime_targets() -> str:
    return _targets(np.datetime64("2020-01-01"))


@case("dtype", "complex targets")
def complex_targets() -> str:
    return _targets(1 + 2j)


@case("targets of the wrong kind", 'the text "happy"')
def text_targets() -> str:
    return _targets("happy")


@case("targets of the wrong kind", "None in all samples")
def none_targets() -> str:
    batch = next(iter(_batcher([{"audio": np.ones((2, 3), "f4"), "targets": None}] * 3)))
    return f"a batch with targets {batch.targets}"


@case("targets of the wrong kind", "2**70")
def huge_target() -> str:
    return _targets(2**70)


@case("nothing found", "[] for a missing modality in the first sample")
def missing_list() -> str:
    return _missing([])


@case("nothing found", "None for a missing modality in the first sample")
def missing_none() -> str:
    return _missing(None)


@case("nothing found", "np.zeros(0) for a missing modality in the first sample")
def missing_array() -> str:
    return _missing(np.zeros(0))


@case("width 0", 'np.ones((2, 0), "f4") as a modality')
def width_0() -> str:
    return _audio(np.ones((2, 0), "f4"))


@case("containers", "a generator in BucketBatcher")
def generator() -> str:
    return repr(_batcher({"audio": np.ones((2, 3), "f4")} for _ in range(3)))


@case("containers", "a grain.MapDataset with .repeat() in BucketBatcher")
def repeated() -> str:
    import grain

    return repr(_batcher(grain.MapDataset.source([{"audio": np.ones((2, 3), "f4")}] * 3).repeat()))


@case("containers", "a grain.MapDataset with .filter() in BucketBatcher")
def filtered() -> str:
    import grain

    dataset = grain.MapDataset.source([{"audio": np.ones((n, 3), "f4")} for n in (1, 2)])
    return repr(_batcher(dataset.filter(lambda sample: len(sample["audio"]) > 1)))


@case("containers", "StreamIterDataset(grain.DataLoader)")
def data_loader() -> str:
    import grain

    from multimodal_pad import Fixed
    from multimodal_pad.grain import StreamIterDataset

    sampler = grain.samplers.SequentialSampler(2, shard_options=grain.sharding.NoSharding())
    source: Any = [{"audio": np.ones((2, 3), "f4")}] * 2
    loader: Any = grain.DataLoader(data_source=source, sampler=sampler)
    return f"{len(list(StreamIterDataset(loader, Fixed({'audio': 8}), batch_size=2)))} batches"


@case("containers", "plan_shapes([3, 5, 9])")
def list_of_lengths() -> str:
    from multimodal_pad import plan_shapes

    lengths: Any = [3, 5, 9]
    return repr(plan_shapes(lengths, max_shapes=1))


@case("containers", "pad_value=None")
def no_pad_value() -> str:
    from multimodal_pad import pad_samples

    samples = [{"audio": np.ones(2, "f4")}, {"audio": np.ones(1, "f4")}]
    value: Any = None
    return str(pad_samples(samples, pad_value=value).features["audio"].tolist())


@case("containers", 'StreamBatcher.planned(longest={"audio": 10}, long_samples="truncate"), an early sample of 90')
def planned_truncate() -> str:
    from multimodal_pad import StreamBatcher

    samples = [{"audio": np.ones((n, 3), "f4")} for n in (3, 90, 5)]
    batcher = StreamBatcher.planned(samples, batch_size=2, max_shapes=1, longest={"audio": 10}, long_samples="truncate")
    return f"{sum(int(batch.sample_mask.sum()) for batch in batcher)} samples, {batcher.stats.truncated} truncated"


@case("containers", "lengths.npy of one axis, --modalities text")
def one_axis() -> str:
    import subprocess
    import sys

    np.save("lengths.npy", [3, 5, 9, 40])
    command = [sys.executable, "-m", "multimodal_pad.cli", "plan", "lengths.npy", "--modalities", "text"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"status {done.returncode}: {(done.stderr or done.stdout).strip().splitlines()[-1]}"


@case("containers", "lengths 3/40, 5/80, 60/900, 1/2 in a CSV, --batch-positions 100")
def small_budget() -> str:
    import subprocess
    import sys
    from pathlib import Path

    Path("lengths.csv").write_text("text,audio\n3,40\n5,80\n60,900\n1,2\n")
    command = [sys.executable, "-m", "multimodal_pad.cli", "plan", "lengths.csv", "--batch-positions", "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"status {done.returncode}: {(done.stderr or done.stdout).strip().splitlines()[-1]}"


@case("samples that are no dicts", "a dataclass with the fields audio and targets")
def as_dataclass() -> str:
    from dataclasses import dataclass

    @dataclass
    class Sample:
        audio: np.ndarray
        targets: int

    batch = next(iter(_batcher([Sample(np.ones((2, 3), "f4"), 1)] * 3)))
    return f"a batch of {int(batch.sample_mask.sum())} samples"


@case("samples that are no dicts", "tuples (audio, targets)")
def as_tuple() -> str:
    samples = [(np.ones((2, 3), "f4"), 1)] * 3
    batch = next(iter(_batcher(samples)))
    return f"a batch of {int(batch.sample_mask.sum())} samples"


@case("samples that are no dicts", "a torch tensor that requires a gradient as a modality")
def tensor() -> str:
    if find_spec("torch") is None:
        return "not tried: torch is not installed"
    torch = import_module("torch")
    return _audio(torch.ones(2, requires_grad=True))
