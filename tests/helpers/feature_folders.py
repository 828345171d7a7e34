"""Small folders of feature files, as MERTools prepares them and as others have them, and what is in them."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np

from tests.helpers.corpora import Written

MER_SPLITS = {"train": 6, "val": 2, "test1": 3}


def write_mertools(folder: Path, *, seed: int = 0) -> Written:
    """A folder as MERTools prepares it: labels by split in an ``.npz`` of pickled dicts, a folder for each feature.

    Audio is a file per sample, float64, with NaN in the first one of each split; the last one has a single frame, which
    was squeezed. Visual is a file per frame, by numbers that are not padded. Text is token ids.
    """
    rng = np.random.default_rng(seed)
    written = Written(folder)
    corpora = {}
    for split, count in MER_SPLITS.items():
        names = [f"{split}_sample_{number:08d}" for number in rng.permutation(count)]
        emotions = rng.integers(0, len(MER_EMOTIONS), count)
        emotions[0] = len(MER_EMOTIONS) - 1
        samples = []
        for number, (name, emotion) in enumerate(zip(names, emotions.tolist(), strict=True)):
            audio = rng.standard_normal((1 if number == count - 1 else int(rng.integers(2, 20)), 5))
            sample = {"id": name, "targets": np.int32(emotion), "audio": audio.astype(np.float32)}
            if number == 0:
                audio[1, 2], sample["audio"][1, 2] = np.nan, 0
            _save(folder / "features" / "hubert-FRA" / f"{name}.npy", audio[0] if len(audio) == 1 else audio)
            frames = rng.standard_normal((int(rng.integers(1, 13)), 4)).astype(np.float32)
            for place, frame in enumerate(frames):
                _save(folder / "features" / "manet_FRA" / name / f"frame_{place}.npy", frame)
            tokens = rng.integers(0, 30000, int(rng.integers(1, 9)))
            _save(folder / "features" / "tokens" / f"{name}.npy", tokens)
            samples.append(sample | {"visual": frames, "text": tokens})
        corpora[f"{split}_corpus"] = {
            name: {"emo": MER_EMOTIONS[emotion], "val": -10 if split == "test1" else float(rng.integers(-5, 6) / 4)}
            for name, emotion in zip(names, emotions.tolist(), strict=True)
        }
        written.splits[split], written.nonfinite[split] = samples, {"audio": 1, "visual": 0, "text": 0}
    np.savez_compressed(folder / "label-6way.npz", **corpora)
    return written


MER_EMOTIONS = ["neutral", "angry", "happy", "sad", "worried", "surprise"]


def write_feature_files(folder: Path, table: str, *, seed: int = 0) -> Written:
    """Feature files with a table of text or of JSON lines beside them, which has a row for each sample of any split.

    Audio is in ``audio/{split}/{id}.npz``, and one sample of each split lacks it; the table of JSON lines has the paths
    of visual. Targets are two numbers.
    """
    rng = np.random.default_rng(seed)
    written = Written(folder)
    records = []
    for split, count in {"train": 5, "dev": 2}.items():
        samples = []
        for number in range(count):
            name = f"{split}/dia{number}"
            audio = rng.standard_normal((int(rng.integers(1, 9)), 3)).astype(np.float16)
            visual = rng.standard_normal((int(rng.integers(0, 5)), 2, 2)).astype(">f4")
            targets = [float(rng.integers(-6, 7) / 2), float(number)]
            if number == 1:
                audio = audio[:0]
            else:
                place = folder / "audio" / f"{name}.npz"
                place.parent.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(place, audio=audio)
            _save(folder / "visual" / f"{name}.npy", visual)
            record = {"dialogue": number, "part": split, "valence": targets[0], "arousal": targets[1]}
            records.append(record | {"faces": {"path": f"visual/{name}.npy"}})
            samples.append(
                {
                    "id": name,
                    "targets": np.array(targets, np.float32),
                    "audio": audio.astype(np.float32),
                    "visual": visual.astype(np.float32),
                }
            )
        written.splits[split], written.nonfinite[split] = samples, {"audio": 0, "visual": 0}
    if table.endswith(".gz"):
        with gzip.open(folder / table, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
    else:
        with (folder / table).open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file, delimiter=";")
            writer.writerow(list(records[0])[:4])
            writer.writerows([list(record.values())[:4] for record in records])
    return written


def _save(place: Path, array: np.ndarray) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    np.save(place, array)
