"""Small files in the layouts that the field has on disk, and what is in them.

Keys, shapes, dtypes, the side of the padding, ids, -inf, rows of zeros inside of samples and missing modalities are
those of the real files; only samples are few, and their values random.
"""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

COUNTS = {"train": 7, "valid": 3, "test": 4}

MULT = {
    # positions and features of text, audio, vision; dtype; kind of ids
    "mosi": ({"text": (50, 300), "audio": (375, 5), "vision": (500, 20)}, np.float32, "bytes"),
    "mosei_senti": ({"text": (50, 300), "audio": (500, 74), "vision": (500, 35)}, np.float64, "text"),
    "iemocap": ({"text": (20, 300), "audio": (400, 74), "vision": (500, 35)}, np.float64, "text"),
    "iemocap_aligned": ({"text": (20, 300), "audio": (20, 74), "vision": (20, 35)}, np.float64, None),
}
MMSA = {
    "mosi": {"text": (50, 768), "audio": (375, 5), "vision": (500, 20)},
    "mosei": {"text": (50, 768), "audio": (500, 74), "vision": (500, 35)},
    "sims": {"text": (39, 768), "audio": (400, 33), "vision": (55, 709)},
}
MODALITIES = {"text": "text", "audio": "audio", "vision": "visual"}


@dataclass
class Written:
    """Files, and what is in them: samples of each split, with ids and targets beside the modalities."""

    path: Path
    splits: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    nonfinite: dict[str, dict[str, int]] = field(default_factory=dict)


def write_mult(
    folder: Path,
    corpus: str = "mosi",
    *,
    counts: Mapping[str, int] = COUNTS,
    lengths: Mapping[str, np.ndarray] | None = None,
    zeros: Any = np.zeros,
    writer: Any = pickle.dump,
    nonfinite: bool = False,
    seed: int = 0,
) -> Written:
    """A pickle as MulT has them, padded on the left.

    ``lengths`` are those of each split ``(N, 3)``, random by default; the last sample of each split lacks vision then.
    """
    shapes, dtype, id_kind = MULT[corpus]
    rng = np.random.default_rng(seed)
    data: dict[str, Any] = {}
    written = Written(folder / f"{corpus}_data_noalign.pkl")
    for split, count in counts.items():
        longest = [positions for positions, _ in shapes.values()]
        chosen = rng.integers(1, np.array(longest) + 1, (count, 3)) if lengths is None else lengths[split]
        if lengths is None:
            chosen[0] = longest
            chosen[-1, 2] = 0
        labels, targets = _mult_labels(corpus, count, rng)
        ids, names = _mult_ids(split, count, id_kind)
        arrays = {}
        samples: list[dict[str, Any]] = [{"id": name, "targets": t} for name, t in zip(names, targets, strict=True)]
        bad = dict.fromkeys(MODALITIES.values(), 0)
        for column, (key, (positions, width)) in enumerate(shapes.items()):
            array = zeros((count, positions, width), dtype)
            for index, length in enumerate(chosen[:, column].tolist()):
                real = rng.standard_normal((length, width)).astype(dtype)
                if length > 2:
                    real[1] = 0  # a row of zeros inside of the sample
                true = real.astype(np.float32)
                if nonfinite and key == "audio" and length > 3:
                    real[length - 1, 2], real[2, 0] = -np.inf, np.nan
                    true[length - 1, 2] = true[2, 0] = 0
                    bad["audio"] += 2
                array[index, positions - length :] = real
                samples[index][MODALITIES[key]] = true
            arrays[key] = array
        data[split] = {**arrays, "labels": labels, **({} if ids is None else {"id": ids})}
        written.splits[split], written.nonfinite[split] = samples, bad
    folder.mkdir(exist_ok=True)
    with written.path.open("wb") as file:
        writer(data, file)
    return written


def _mult_labels(corpus: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if corpus.startswith("iemocap"):
        present = rng.integers(0, 2, (count, 4))
        return np.eye(2)[present].astype(np.int64), present.astype(np.int32)
    labels = rng.integers(-15, 16, count) / 5
    return labels.reshape(-1, 1, 1).astype(np.float32), labels.astype(np.float32)


def _mult_ids(split: str, count: int, kind: str | None) -> tuple[np.ndarray | None, list[str]]:
    if kind is None:
        return None, [f"{split}[{index}]" for index in range(count)]
    rows = [[f"{split}-video{index // 2}", f"{index}.5", f"{index + 4}.25"] for index in range(count)]
    names = [f"{video}[{start},{end}]" for video, start, end in rows]
    return np.array(rows, dtype="S20" if kind == "bytes" else object), names


def write_mmsa(folder: Path, corpus: str = "mosi", *, aligned: bool = False, seed: int = 0, **changes: Any) -> Written:
    """A pickle as MMSA has them, padded on the right; truth is by the declared lengths, or the last non-zero row.

    Padded positions of text are not zero, audio holds -inf, and vision goes on after its declared length.
    """
    shapes = MMSA[corpus]
    if aligned:
        shapes = {key: (shapes["text"][0], width) for key, (_, width) in shapes.items()}
    rng = np.random.default_rng(seed)
    data: dict[str, Any] = {}
    written = Written(folder / ("aligned_50.pkl" if aligned else "unaligned_50.pkl"))
    for split, count in {**COUNTS, **changes.get("counts", {})}.items():
        lengths = {key: rng.integers(1, positions + 1, count) for key, (positions, _) in shapes.items()}
        lengths["vision"][-1] = 0
        names = [f"{split}_video{index // 2}$_${index % 2}" for index in range(count)]
        labels = rng.integers(-5, 6, (4, count)) / 5
        samples: list[dict[str, Any]] = [
            {"id": name, "targets": np.float32(label)} for name, label in zip(names, labels[0], strict=True)
        ]
        arrays, bad = {}, dict.fromkeys(MODALITIES.values(), 0)
        for key, (positions, width) in shapes.items():
            array = np.zeros((count, positions, width), np.float32)
            if key == "text":
                array += 0.25  # what BERT makes of padding
            for index, length in enumerate(lengths[key].tolist()):
                array[index, :length] = rng.standard_normal((length, width))
                true = array[index, :length].copy()
                if key == "vision" and length > 2:
                    array[index, 1] = true[1] = 0
                if key == "audio" and length > 2:
                    array[index, 2, 0], true[2, 0] = -np.inf, 0
                    bad["audio"] += 1
                samples[index][MODALITIES[key]] = true
            arrays[key] = array
        if not aligned and lengths["vision"][0] < shapes["vision"][0]:
            arrays["vision"][0, lengths["vision"][0]] = 1.0  # a frame after the declared length
        tokens = np.zeros((count, 3, shapes["text"][0]), np.float32)
        mask = np.arange(shapes["text"][0]) < lengths["text"][:, None]
        tokens[:, 0], tokens[:, 1] = np.where(mask, rng.integers(100, 9000, mask.shape), 0), mask
        data[split] = {
            "raw_text": np.array([f"text {index}" for index in range(count)]),
            "audio": arrays["audio"],
            "vision": arrays["vision"],
            "id": names,
            "text": arrays["text"],
            "text_bert": tokens,
            "annotations": np.where(labels[0] > 0, "Positive", np.where(labels[0] < 0, "Negative", "Neutral")).tolist(),
            "classification_labels": 1.0 + np.sign(labels[0]),
            "regression_labels": labels[0],
        }
        if not aligned:
            data[split]["audio_lengths"] = lengths["audio"].tolist()
            data[split]["vision_lengths"] = np.maximum(lengths["vision"], 1).tolist()  # as MMSA's script has it
        if corpus == "sims":
            data[split] |= {f"regression_labels_{m}": label for m, label in zip("TAV", labels[1:], strict=True)}
        written.splits[split], written.nonfinite[split] = samples, bad
    folder.mkdir(exist_ok=True)
    written.path.write_bytes(pickle.dumps(data, protocol=4))
    return written


CSD = {
    # file, root, rate in Hz, features
    "text": ("CMU_MOSI_TimestampedWordVectors.csd", "glove_vectors", 3, 300),
    "audio": ("CMU_MOSI_COVAREP.csd", "COVAREP", 100, 74),
    "visual": ("CMU_MOSI_VisualFacet_4.1.csd", "FACET_4.1", 30, 47),
}
LABELS = "CMU_MOSI_Opinion_Labels.csd"
FOLDS = {"train": ["v0", "v1", "v2"], "valid": ["v3"], "test": ["v4", "v5"]}


def write_csd(folder: Path, *, seed: int = 0) -> Written:
    """Computational sequences of six videos, each of two or three labelled segments with gaps between; v1 has no face.

    Frames of segment k hold k + 1 in their first feature, those in a gap -1, so that it shows whose they are. The
    frames of v2 stand in random order. Audio of v0 holds -inf. There is a file of words, too.
    """
    import h5py

    rng = np.random.default_rng(seed)
    written = Written(folder, {split: [] for split in FOLDS}, {split: dict.fromkeys(CSD, 0) for split in FOLDS})
    videos = {f"v{number}": 2 + number % 2 for number in range(6)}
    segments = {
        video: np.array([[k * 2.0 + 0.5, k * 2.0 + 1.9 - 0.1 * k] for k in range(count)])
        for video, count in videos.items()
    }
    labels = {video: rng.integers(-15, 16, (len(rows), 1)) / 5 for video, rows in segments.items()}
    write_sequence(folder / LABELS, "Opinion Segment Labels", {v: (labels[v], segments[v]) for v in videos})
    truth: dict[str, dict[str, Any]] = {
        f"{video}[{row}]": {"id": f"{video}[{row}]", "targets": np.float32(labels[video][row, 0])}
        for video, rows in segments.items()
        for row in range(len(rows))
    }
    split_of = {video: split for split, names in FOLDS.items() for video in names}
    for name, (file, root, rate, width) in CSD.items():
        entries = {}
        for video, rows in segments.items():
            starts = np.arange(0, rows[-1, 1] + 1, 1 / rate)
            intervals = np.stack([starts, starts + 1 / rate], axis=1)
            features = rng.standard_normal((len(starts), width)).astype(np.float32)
            features[:, 0] = -1
            missing = name == "visual" and video == "v1"
            for row, (start, stop) in enumerate(rows):
                inside = (np.minimum(intervals[:, 1], stop) - np.maximum(intervals[:, 0], start)) > 1e-5
                features[inside, 0] = row + 1
                true = features[inside].copy()
                if name == "audio" and video == "v0":
                    features[np.argmax(inside), 5] = -np.inf
                    true[0, 5] = 0
                    written.nonfinite[split_of[video]]["audio"] += 1
                truth[f"{video}[{row}]"][name] = true[:0] if missing else true
            if video == "v2":
                order = rng.permutation(len(features))
                features, intervals = features[order], intervals[order]
            if not missing:
                entries[video] = (features, intervals)
        write_sequence(folder / file, root, entries)
    for sample in truth.values():
        written.splits[split_of[sample["id"].split("[")[0]]].append(sample)
    words = {video: (np.full((2, 1), b"word", "S32"), segments[video][:2]) for video in videos}
    write_sequence(folder / "CMU_MOSI_TimestampedWords.csd", "words", words)
    (folder / "folds.json").write_text(json.dumps(FOLDS))
    assert h5py.is_hdf5(folder / LABELS)
    return written


def write_sequence(
    path: Path, root: str, entries: Mapping[str, tuple[np.ndarray, np.ndarray]], dimensions: Any = None
) -> None:
    """A computational sequence as the CMU SDK writes it: features and intervals of each entry."""
    import h5py

    with h5py.File(path, "w") as file:
        for video, (features, intervals) in entries.items():
            group = file.create_group(f"{root}/data/{video}")
            options = {"compression": "gzip", "compression_opts": 9}
            group.create_dataset("features", data=features, chunks=features.shape, **options)
            group.create_dataset("intervals", data=intervals, chunks=intervals.shape, **options)
        metadata = file.create_group(f"{root}/metadata")
        for key, value in {"root name": root, "dimension names": dimensions, "version": "1.0"}.items():
            metadata.create_dataset(key, (1,), dtype=h5py.string_dtype())[0] = json.dumps(value)


MELD_COLUMNS = [
    "Sr No.",
    "Utterance",
    "Speaker",
    "Emotion",
    "Sentiment",
    "Dialogue_ID",
    "Utterance_ID",
    "Season",
    "Episode",
    "StartTime",
    "EndTime",
]


def write_meld(folder: Path, *, features: bool = True, seed: int = 0) -> Written:
    """MELD's three tables, and features of each utterance: audio in ``.npy`` files, visual in ``.npz`` files.

    The last utterance of each split has no visual features; audio of the first one of each holds -inf.
    """
    rng = np.random.default_rng(seed)
    emotions = ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"]
    words = ["oh", "my", "god", "you", "know", "it's", "fine", "!", "."]
    vocabulary: dict[str, int] = {}
    written = Written(folder)
    folder.mkdir(exist_ok=True)
    for split, count in {"train": 8, "dev": 3, "test": 4}.items():
        rows, samples = [], []
        for number in range(count):
            tokens = [words[i] for i in rng.integers(0, len(words), rng.integers(1, 9))]
            emotion = int(rng.integers(0, 7))
            identity = f"dia{number // 2}_utt{number % 2}"
            times = ["00:00:01,000", f"00:00:{int(rng.integers(2, 9)):02d},{int(rng.integers(0, 1000)):03d}"]
            rows.append(
                [number, " ".join(tokens), "Ross", emotions[emotion], "neutral", number // 2, number % 2, 1, 1, *times]
            )
            samples.append({"id": identity, "targets": np.int32(emotion), "tokens": tokens})
        with (folder / f"{split}_sent_emo.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([MELD_COLUMNS, *rows])
        if split == "train":
            counts = {word: sum(sample["tokens"].count(word) for sample in samples) for word in words}
            seen = dict.fromkeys(token for sample in samples for token in sample["tokens"])
            vocabulary = {word: 2 + rank for rank, word in enumerate(sorted(seen, key=lambda word: -counts[word]))}
        written.nonfinite[split] = {"text": 0, "audio": 0, "visual": 0}
        for number, sample in enumerate(samples):
            sample["text"] = np.array([vocabulary.get(token, 1) for token in sample.pop("tokens")], np.int32)
            if features:
                _write_features(folder, split, sample, number, count, rng)
        written.nonfinite[split]["audio"] = int(features)
        written.splits[split] = samples
    return written


def _write_features(
    folder: Path, split: str, sample: dict[str, Any], number: int, count: int, rng: np.random.Generator
) -> None:
    for name, width, suffix in (("audio", 74, ".npy"), ("visual", 35, ".npz")):
        array = rng.standard_normal((int(rng.integers(1, 20)), width))
        sample[name] = array.astype(np.float32)
        if name == "audio" and number == 0:
            array[0, 1], sample[name][0, 1] = -np.inf, 0
        place = folder / "features" / name / split / f"{sample['id']}{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        if name == "visual" and number == count - 1:
            sample[name] = sample[name][:0]
        elif suffix == ".npy":
            np.save(place, array)
        else:
            np.savez(place, visual=array)


def write_numpy_dir(folder: Path, *, seed: int = 0) -> Written:
    """A plain folder of arrays and offsets, with targets and ids."""
    rng = np.random.default_rng(seed)
    samples: list[dict[str, Any]] = []
    for number in range(6):
        text = rng.integers(1, 9, rng.integers(1, 5)).astype(np.int32)
        audio = rng.standard_normal((int(rng.integers(0, 7)), 3)).astype(np.float32)
        samples.append({"id": f"s{number}", "targets": np.float32(number), "text": text, "audio": audio})
    samples[2]["audio"] = samples[2]["audio"][:0]
    samples[3]["audio"] = np.zeros((2, 3), np.float32)
    for name in ("text", "audio"):
        np.save(folder / f"{name}.offsets.npy", np.cumsum([0, *[len(sample[name]) for sample in samples]]))
        values = np.concatenate([sample[name] for sample in samples])
        if name == "audio":
            start = sum(len(sample[name]) for sample in samples[:3])
            values[start, 1] = np.nan
        np.save(folder / f"{name}.npy", values)
    np.save(folder / "targets.npy", np.array([sample["targets"] for sample in samples]))
    np.save(folder / "ids.npy", np.array([sample["id"] for sample in samples]))
    return Written(folder, {folder.name: samples}, {folder.name: {"text": 0, "audio": 1}})


class Python2Pickler(pickle._Pickler):
    """Pickles of protocol 2 as Python 2 wrote them: text and bytes are both ``str``, spelt as bytes."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 - as in the class that it extends

    def save_bytes(self, value: bytes | str) -> None:
        data = value.encode("latin-1") if isinstance(value, str) else value
        size = len(data)
        head = b"U" + size.to_bytes(1, "little") if size < 256 else b"T" + size.to_bytes(4, "little")
        self.write(head + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_bytes


def dump_python2(data: Any, file: Any) -> None:
    """As ``cPickle.dump(data, file, 2)`` of Python 2 with NumPy 1."""

    class Renamed:
        def write(self, chunk: bytes) -> None:
            file.write(chunk.replace(b"numpy._core.", b"numpy.core."))

    Python2Pickler(Renamed(), 2).dump(data)


def make_sample(length, width=2, value=1.0, dtype=np.float32, target=0):
    return {"audio": np.full((length, width), value, dtype), "targets": np.int32(target)}
