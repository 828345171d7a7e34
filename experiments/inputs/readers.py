"""Cases of the readers: files that are damaged, or made to take time and memory."""

from __future__ import annotations

import os
import pickle
import random
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from experiments.inputs.case import case

_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
_DTYPE = b"cnumpy\ndtype\n(Vf8\nI0\nI1\ntR(I3\nV<\nNNNI-1\nI-1\nI0\ntb"
_LONG = _DTYPE.replace(b"f8", b"f16")


def _pickle(data: bytes) -> str:
    from multimodal_pad.sources.pickles import read_pickle

    Path("file.pkl").write_bytes(data)
    return f"reads {len(data):,} bytes as a {type(read_pickle('file.pkl')[0]).__name__}"


def _splits(data: Any) -> str:
    from multimodal_pad.sources import Mult

    Path("file.pkl").write_bytes(pickle.dumps(data))

    return f"opens {len([Mult('file.pkl', split) for split in Mult.split_names('file.pkl')])} splits"


def _split(count: int, **changes: Any) -> dict[str, Any]:
    array = np.ones((count, 1, 1), np.float32)
    split = {"text": array, "audio": array, "vision": array, "labels": array, "id": [f"s{i}" for i in range(count)]}
    return {**split, **changes}


@case("a pickle that takes time", "the state of an array in 30,000 places, built 30,000 times (180 kB)")
def many_places() -> str:
    head = b"\x80\x04(I1\n(I0\nt" + _DTYPE + b"I00\nC\x00tq\x000" + _ARRAY
    return _pickle(head + b"\x94" * 30_000 + b"2h\x00b0" * 30_000 + b"0N.")


@case("a pickle that takes time", "40,000 keys of longdouble that have one hash (1 MB)")
def keys_of_one_hash() -> str:
    keys = b"".join(
        b"h\x01h\x00C\x10" + (2**63 + key).to_bytes(8, "little") + b"\xff\x3f" + bytes(6) + b"\x86RN"
        for key in range(40_000)
    )
    return _pickle(b"\x80\x04" + _LONG + b"\x940cnumpy.core.multiarray\nscalar\n\x940}(" + keys + b"u.")


@case("a pickle that takes time", "one list of 2,000 parts as the id of 2,000 samples (16 kB)")
def one_list_of_ids() -> str:
    return _splits({"train": _split(2000, id=[["b"] * 2000] * 2000)})


@case("a pickle that takes time", "one split of 64 samples under 200 names (4 kB)")
def shared_splits() -> str:
    return _splits(dict.fromkeys([f"split{i}" for i in range(200)], _split(64)))


@case("a file that takes memory", "a pickle whose ids are an array of shape (1000000000, 0)")
def ids_of_nothing() -> str:
    return _splits({"train": _split(2, id=np.zeros((10**9, 0)))})


@case("a file that takes memory", "a .csd with a dataset of shape (400000000, 2) of which nothing was written (6 kB)")
def unallocated() -> str:
    import h5py

    from multimodal_pad.sources import Csd

    for name, width in (("words", 2), ("labels", 1)):
        with h5py.File(f"{name}.csd", "w") as file:
            rows = 4 * 10**8 if name == "words" else 1
            file.create_dataset(f"{name}/data/video/features", (rows, width), "f8", chunks=(1, width))
            intervals = file.create_dataset(f"{name}/data/video/intervals", (rows, 2), "f8", chunks=(1, 2))
            intervals[0] = (0, 1)

    corpus = Csd(".", sequences={"text": "words.csd"}, labels="labels.csd")
    return f"a sample of {len(corpus[0]['text'])} positions"


@case("a file that takes memory", "a .npz of 80 MB of zeros in 78 kB, as features of MELD")
def zip_bomb() -> str:
    _meld()
    np.savez_compressed("audio/train/dia0_utt0.npz", audio=np.zeros((10**6, 10)))
    return _open_meld()


def _meld(times: tuple[str, str] = ("00:00:01,000", "00:00:03,000")) -> None:
    columns = ["Utterance", "Emotion", "Dialogue_ID", "Utterance_ID", "StartTime", "EndTime"]
    row = ["Oh", "joy", "0", "0", *(f'"{time}"' for time in times)]
    Path("train_sent_emo.csv").write_text(f"{','.join(columns)}\n{','.join(row)}\n")
    Path("audio/train").mkdir(parents=True)


def _open_meld() -> str:
    from multimodal_pad.sources import Meld

    corpus = Meld(".", "train", features={"audio": "audio"})
    return f"lengths {corpus.lengths.values.tolist()}"


@case("damaged files", "a time of MELD that has 400 digits")
def long_time() -> str:
    _meld(("9" * 400 + ":00:01,000", "00:00:03,000"))
    np.save("audio/train/dia0_utt0.npy", np.ones((3, 2)))
    return _open_meld()


def _npy(shape: str) -> str:
    _meld()
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(470) + b"\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(24)
    Path("audio/train/dia0_utt0.npy").write_bytes(data)
    return _open_meld()


@case("damaged files", "a .npy of shape (-3, 2)")
def negative_shape() -> str:
    return _npy("(-3, 2)")


@case("damaged files", "a .npy of shape (10^400, 2)")
def huge_shape() -> str:
    return _npy(f"({10**400}, 2)")


@case("damaged files", "a pipe in the place of a .npy")
def pipe() -> str:
    _meld()
    os.mkfifo("audio/train/dia0_utt0.npy")
    return _open_meld()


@case("damaged files", "200 copies of .csd files, each with up to 4 bytes changed")
def damaged_csd() -> str:
    import h5py

    from multimodal_pad.errors import SourceError
    from multimodal_pad.sources import Csd

    for name, width in (("words", 2), ("labels", 1)):
        with h5py.File(f"{name}.csd", "w", libver="latest") as file:
            for video in range(2):
                file[f"{name}/data/v{video}/features"] = np.ones((3, width))
                file[f"{name}/data/v{video}/intervals"] = np.array([[0, 1], [1, 2], [2, 3.0]])
    rng, found = random.Random(0), Counter[str]()
    whole = {name: Path(f"{name}.csd").read_bytes() for name in ("words", "labels")}
    for turn in range(200):
        name = ("words", "labels")[turn % 2]
        data = bytearray(whole[name])
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        Path(f"{name}.csd").write_bytes(data)
        try:
            corpus = Csd(".", sequences={"text": "words.csd"}, labels="labels.csd", nonfinite="zero")
            [corpus[index] for index in range(len(corpus))]
            found["read"] += 1
        except SourceError:
            found["errors that name the file"] += 1
        except Exception:  # noqa: BLE001 - these are what is counted
            found["tracebacks"] += 1
        Path(f"{name}.csd").write_bytes(whole[name])
    return ", ".join(f"{count} {what}" for what, count in sorted(found.items()))


@case("new sources", "an HDF5 folder of MFN, 17 labels, padded on the left")
def mfn() -> str:
    import h5py

    from multimodal_pad import sources

    arrays = {"text_train_emb": 300, "audio_train": 43, "video_train": 41}
    for name, width in arrays.items():
        with h5py.File(f"{name}.h5", "w") as file:
            file["d1"] = np.pad(np.ones((4, 8, width)), ((0, 0), (12, 0), (0, 0)))
    with h5py.File("y_train.h5", "w") as file:
        file["d1"] = np.ones((4, 17))
    corpus = sources.Mfn(".", "train")
    return f"lengths {corpus.lengths.maxima}, targets {corpus[0]['targets'].shape}"


@case("new sources", "a pickle of MAG-BERT: a list of ((words, visual, acoustic), label, segment)")
def mag_bert() -> str:
    from multimodal_pad import sources

    example = ((["so", "good"], np.ones((2, 47)), np.ones((2, 74))), np.array([[2.4]]), "03bSnISJMiM[0]")
    Path("mosi.pkl").write_bytes(pickle.dumps({"train": [example], "dev": [example], "test": [example]}))
    corpus = sources.MagBert("mosi.pkl", "test")
    return f"lengths {corpus.lengths.maxima}, text {corpus[0]['text'].tolist()}, id {corpus.ids[0]}"
