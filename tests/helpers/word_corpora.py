"""Small files of corpora that are aligned to words, in the layouts that the field has on disk, and what is in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.corpora import Written

COUNTS = {"train": 6, "valid": 3, "test": 4}

MFN = {
    # positions, widths of text, audio and visual, columns of labels, the side of the padding
    "mosi": (20, {"text": 300, "audio": 5, "visual": 20}, None, "left"),
    "pom": (20, {"text": 300, "audio": 43, "visual": 41}, 17, "left"),
    "youtube": (20, {"text": 300, "audio": 74, "visual": 36}, 3, "right"),
}


def write_mfn(folder: Path, corpus: str = "pom", *, seed: int = 0) -> Written:
    """HDF5 files as MFN has them: CMU-MOSI in one array per split, others in one for each modality.

    The first sample of each split is as long as the array, and no face was found at its first word; the last one has no
    visual at all. Audio of the second one holds -inf.
    """
    import h5py

    rng = np.random.default_rng(seed)
    positions, widths, columns, side = MFN[corpus]
    written = Written(folder)
    for split, count in COUNTS.items():
        labels = rng.integers(-15, 16, (count,) if columns is None else (count, columns)) / 5
        arrays = {name: np.zeros((count, positions, width)) for name, width in widths.items()}
        samples: list[dict[str, Any]] = []
        for index in range(count):
            length = positions if index == 0 else int(rng.integers(4, positions))
            start = positions - length if side == "left" else 0
            sample: dict[str, Any] = {"id": f"{split}[{index}]", "targets": labels[index].astype(np.float32)}
            for name, width in widths.items():
                real = rng.standard_normal((length, width))
                if name == "visual":
                    real[0 if index == 0 else 2] = 0
                missing = name == "visual" and index == count - 1
                sample[name] = np.zeros((0, width), np.float32) if missing else real.astype(np.float32)
                if name == "audio" and index == 1:
                    real[3, 1], sample[name][3, 1] = -np.inf, 0
                if not missing:
                    arrays[name][index, start : start + length] = real
            samples.append(sample)
        written.splits[split] = samples
        written.nonfinite[split] = {"text": 0, "audio": 1, "visual": 0}
        files = {f"{key}_{split}": arrays[name] for name, key in (("audio", "audio"), ("visual", "video"))}
        files[f"text_{split}_emb"] = arrays["text"]
        if corpus == "mosi":
            files = {f"X_{split}": np.concatenate(list(arrays.values()), axis=2)}
        for name, values in {**files, f"y_{split}": labels}.items():
            with h5py.File(folder / f"{name}.h5", "w") as file:
                file["data" if corpus == "mosi" else "d1"] = values
    return written


def write_mag_bert(folder: Path, *, seed: int = 0, protocol: int = 4) -> Written:
    """A pickle as MAG-BERT has them: lists of ``((words, visual, acoustic), label, segment)``.

    The last example of each split lacks its visual features; audio of the first one holds -inf.
    """
    rng = np.random.default_rng(seed)
    vocabulary = ["so", "very", "good", "movie", "i'm", "fine"]
    written = Written(folder / "mosi.pkl")
    data: dict[str, list[Any]] = {}
    for split, count in {"train": 6, "dev": 3, "test": 4}.items():
        data[split], written.splits[split] = [], []
        for index in range(count):
            length = int(rng.integers(3, 9))
            words = [vocabulary[number] for number in rng.integers(0, len(vocabulary), length)]
            visual, audio = rng.standard_normal((length, 47)), rng.standard_normal((length, 74))
            visual[1] = 0
            label = rng.integers(-15, 16, (1, 1)) / 5
            segment = f"{split}video{index // 2}[{index % 2}]"
            if index == count - 1:
                visual = visual[:0]
            sample = {"id": segment, "targets": np.float32(label[0, 0]), "words": words}
            sample |= {"audio": audio.astype(np.float32), "visual": visual.astype(np.float32)}
            if index == 0:
                audio[2, 3], sample["audio"][2, 3] = -np.inf, 0
            data[split].append(((words, visual, audio), label, segment))
            written.splits[split].append(sample)
        written.nonfinite[split] = {"text": 0, "audio": 1, "visual": 0}
    train = [word for sample in written.splits["train"] for word in sample["words"]]
    ranked = sorted(dict.fromkeys(train), key=lambda word: -train.count(word))
    for samples in written.splits.values():
        for sample in samples:
            numbers = [2 + ranked.index(word) if word in ranked else 1 for word in sample.pop("words")]
            sample["text"] = np.array(numbers, np.int32)
    written.path.write_bytes(pickle.dumps(data, protocol))
    return written
