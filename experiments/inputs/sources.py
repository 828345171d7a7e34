"""Cases of sources: tables of text, MELD's words, columns of labels, features of TFDS."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.inputs.case import case

COLUMNS = ["Utterance", "Emotion", "Dialogue_ID", "Utterance_ID", "StartTime", "EndTime"]


def _meld(texts: list[str], separator: str = ",", encoding: str = "utf-8") -> Any:
    """Make a folder of MELD's tables with these utterances; return its train split."""
    from multimodal_pad.sources import Meld

    rows = [[text, "joy", "0", str(n), "0:00:01.0", "0:00:03.0"] for n, text in enumerate(texts)]
    lines = [separator.join(f'"{value}"' for value in row) for row in [COLUMNS, *rows]]
    Path("train_sent_emo.csv").write_bytes("\n".join(lines).encode(encoding))
    return Meld(".", "train", payload="none")


def _lengths_of(source: Any) -> list[int]:
    return source.lengths.values[:, 0].tolist()


def _command(*arguments: str) -> str:
    command = [sys.executable, "-m", "multimodal_pad.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [""]
    return f"status {done.returncode}: {lines[0] if done.returncode == 0 else lines[-1]}"


def _segments(labels: np.ndarray, names: list[str] | None = None) -> None:
    """Write the words of one video, and labels of its segments, in the CMU SDK's format."""
    import h5py

    times = np.arange(len(labels) + 1.0)
    intervals = np.stack([times[:-1], times[1:]], axis=1)
    for name, features in (("labels", labels), ("words", np.ones((len(labels), 3)))):
        with h5py.File(f"{name}.csd", "w") as file:
            file[f"{name}/data/video/features"], file[f"{name}/data/video/intervals"] = features, intervals
            text = file.create_dataset(f"{name}/metadata/dimension names", (1,), dtype=h5py.string_dtype())
            text[0] = json.dumps(names)


def _csd(**options: Any) -> str:
    from multimodal_pad.sources import Csd

    source = Csd(".", sequences={"text": "words.csd"}, labels="labels.csd", **options)
    return _targets_of(source)


def _targets_of(source: Any) -> str:
    targets = source.targets
    if targets is None:
        return f"{len(source)} samples without targets"
    return f"targets {targets.dtype} {targets.shape}, the first {targets[0].tolist()}"


def _mult(labels: np.ndarray | None, split: str = "train", **options: Any) -> str:
    from multimodal_pad.sources import Mult

    features = np.ones((2, 4, 3))
    entries = {"text": features, "audio": features, "vision": features, "labels": labels}
    if labels is None:
        del entries["labels"]
    Path("data.pkl").write_bytes(pickle.dumps({split: entries}))
    return _targets_of(Mult("data.pkl", split, **options))


@case("one word in two spellings", 'MELD: "i\'m" with a straight and with a curly apostrophe')
def curly_apostrophe() -> str:
    source = _meld(["I'm fine", "I\u2019m fine"])
    return f"token ids {[source[i]['text'].tolist() for i in range(2)]}, {len(source.vocabulary)} words"


@case(
    "control codes split words",
    'MELD: "I\'m" with U+0092, as cp1252 has the apostrophe; beside it the same with U+2019',
)
def control_codes() -> str:
    source = _meld(["I\u0092m fine", "I\u2019m fine"])
    return f"lengths {_lengths_of(source)}"


@case("tables as spreadsheets save them", "MELD's table with a byte order mark")
def byte_order_mark() -> str:
    return f"lengths {_lengths_of(_meld(['hello there'], encoding='utf-8-sig'))}"


@case("tables as spreadsheets save them", "MELD's table with semicolons")
def semicolons() -> str:
    return f"lengths {_lengths_of(_meld(['hello there'], separator=';'))}"


@case("tables as spreadsheets save them", "lengths.csv with tabs, plan")
def tabs() -> str:
    Path("lengths.csv").write_text("text\taudio\n3\t40\n5\t60\n")
    return _command("plan", "lengths.csv", "--max-shapes", "1")


@case("a row with too many values", "lengths.csv: 3,1,200 under text,audio")
def too_many_values() -> str:
    from multimodal_pad.lengths.files import read_lengths

    Path("lengths.csv").write_text("text,audio\n3,1,200\n")
    return f"lengths {read_lengths('lengths.csv').values.tolist()}"


@case("damaged arrays", "lengths.npy that is no array, plan")
def damaged_array() -> str:
    Path("lengths.npy").write_bytes(b"\x80\x04N.")
    return _command("plan", "lengths.npy", "--modalities", "text")


@case("a file of lengths", "inspect lengths.csv")
def inspect_lengths() -> str:
    Path("lengths.csv").write_text("text,audio\n3,40\n5,60\n")
    return _command("inspect", "lengths.csv")


@case("several columns of labels", "Csd(label_column=[0, 1]) of MOSEI's seven")
def two_columns() -> str:
    _segments(np.arange(14.0).reshape(2, 7))
    return _csd(label_column=[0, 1])


@case("several columns of labels", "Csd(label_column=1.0)")
def float_column() -> str:
    _segments(np.arange(14.0).reshape(2, 7))
    return _csd(label_column=1.0)


@case("several columns of labels", "Csd(label_column=True)")
def bool_column() -> str:
    _segments(np.arange(14.0).reshape(2, 7))
    return _csd(label_column=True)


@case("several columns of labels", 'Csd(label_column="sad"), a name that the file has')
def named_column() -> str:
    _segments(np.arange(14.0).reshape(2, 7), ["sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear"])
    return _csd(label_column="sad")


@case("several columns of labels", "MulT's pickle with labels (N, 3), as of YouTube")
def three_labels() -> str:
    return _mult(np.arange(6.0).reshape(2, 3))


@case("several columns of labels", 'a Hugging Face dataset, targets=["happy", "sad"]')
def hugging_face_columns() -> str:
    import datasets

    from multimodal_pad.sources import HuggingFace

    rows = datasets.Dataset.from_dict({"ids": [[1, 2], [3]], "happy": [1, 0], "sad": [0, 2]})
    targets: Any = ["happy", "sad"]
    return f"targets {HuggingFace(rows, {'text': 'ids'}, targets=targets)[1]['targets'].tolist()}"


@case("files without labels", "a blind test split in MulT's pickle")
def blind_split() -> str:
    return _mult(None, "test")


@case("files without labels", "the same, with label_column=None")
def blind_split_as_told() -> str:
    options: dict[str, Any] = {"label_column": None}
    return _mult(None, "test", **options)


@case("steps of TFDS", 'Sequence({"obs": Tensor((4,))}), features={"obs": "steps/obs"}')
def sequence_of_dicts() -> str:
    return _steps("Sequence")


@case("steps of TFDS", 'Dataset({"obs": Tensor((4,))}), as in RLDS')
def dataset_of_steps() -> str:
    return _steps("Dataset")


def _steps(kind: str) -> str:
    import tensorflow_datasets

    from multimodal_pad.sources import tfds

    features = tensorflow_datasets.features

    class Episodes(tensorflow_datasets.core.GeneratorBasedBuilder):
        VERSION = tensorflow_datasets.core.Version("1.0.0")

        def _info(self) -> Any:
            steps = getattr(features, kind)({"obs": features.Tensor(shape=(4,), dtype=np.float32)})
            return tensorflow_datasets.core.DatasetInfo(builder=self, features=features.FeaturesDict({"steps": steps}))

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            del dl_manager
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            for number in range(3):
                yield number, {"steps": [{"obs": np.full(4, i, np.float32)} for i in range(number + 1)]}

    Episodes(data_dir=".", file_format="array_record").download_and_prepare()
    source = tfds("episodes", "train", features={"obs": "steps/obs"}, data_dir=".")
    return f"lengths {sorted(_lengths_of(source))}, {source[0]['obs'].shape[1:]} {source[0]['obs'].dtype}"
