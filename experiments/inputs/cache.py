"""Cases of the flat cache and of its conversion."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

from experiments.inputs.case import case


class _Samples(list):
    """A list of samples with attributes such as ids."""


def _audio(count: int = 3, width: int = 2) -> list[dict[str, Any]]:
    return [{"audio": np.ones((2, width), np.float32), "targets": np.float32(number)} for number in range(count)]


def _named(ids: Any, count: int = 3) -> _Samples:
    samples = _Samples(_audio(count))
    samples.ids = ids  # type: ignore[attr-defined]
    return samples


def _cache() -> Path:
    from multimodal_pad.sources import convert

    convert({"train": _audio(5)}, "cache")
    return Path("cache")


def _opened(folder: Path | str = "cache", split: str = "train") -> str:
    from multimodal_pad.sources import NumpyDir

    source = NumpyDir(folder, split)
    sample = source[0]["audio"]
    return f"opens: {len(source)} samples, audio {sample.dtype} {sample.shape}"


def _edited(*at: str, to: Any) -> None:
    path = Path("cache", "manifest.json")
    manifest = value = json.loads(path.read_text())
    for key in at[:-1]:
        value = value[key]
    value[at[-1]] = to
    path.write_text(json.dumps(manifest))


@case("columns beside those chosen", "convert(modalities=['audio']) of samples with a speaker's name beside")
def text_beside() -> str:
    from multimodal_pad.sources import convert

    convert({"train": [{**sample, "speaker": "Ross"} for sample in _audio()]}, "cache", modalities=["audio"])
    return _opened()


@case("columns beside those chosen", "convert(modalities=['text']) where only audio, which is left out, holds NaN")
def nan_beside() -> str:
    from multimodal_pad.sources import NumpyDir, convert

    Path("plain").mkdir()
    for name, values in {"text": np.arange(4), "audio": np.full((4, 2), np.nan)}.items():
        np.save(f"plain/{name}.npy", values)
        np.save(f"plain/{name}.offsets.npy", [0, 1, 4])
    manifest = convert({"train": NumpyDir("plain")}, "cache", modalities=["text"])
    return f"written: {list(manifest['modalities'])}"


@case("ids of another number", "convert of 3 samples with 2 ids")
def too_few_ids() -> str:
    from multimodal_pad.sources import convert

    convert({"train": _named(["a", "b"])}, "cache")
    return f"written; then {_opened()}"


@case("targets in one split only", "convert of train with targets, and a test split without any")
def blind_split() -> str:
    from multimodal_pad.sources import NumpyDir, convert

    convert({"train": _audio(), "test": [{"audio": np.ones((2, 2), np.float32)}]}, "cache")
    return f"written: targets of test are {NumpyDir('cache', 'test').targets}"


@case("targets in one split only", "convert of train with targets (), and dev with targets (2,)")
def other_targets() -> str:
    from multimodal_pad.sources import convert

    convert({"train": _audio(), "dev": [{"audio": np.ones((2, 2), np.float32), "targets": np.zeros(2)}]}, "cache")
    return "written"


@case("files of a plain folder", "NumpyDir with targets.npy of strings")
def text_targets() -> str:
    from multimodal_pad.sources import NumpyDir

    np.save("audio.npy", np.ones((3, 2), np.float32))
    np.save("audio.offsets.npy", [0, 1, 3])
    np.save("targets.npy", np.array(["joy", "anger"]))
    return f"opens: {NumpyDir('.')[0]}"


@case("files of a plain folder", "NumpyDir with ids.npy of shape (2, 2)")
def ids_in_two_dimensions() -> str:
    from multimodal_pad.sources import NumpyDir

    np.save("audio.npy", np.ones((3, 2), np.float32))
    np.save("audio.offsets.npy", [0, 1, 3])
    np.save("ids.npy", np.array([["a", "b"], ["c", "d"]]))
    return f"opens: {NumpyDir('.').ids}"


@case("byte order", "convert of token ids of dtype >i4")
def big_endian() -> str:
    from multimodal_pad.sources import NumpyDir, convert

    convert({"train": [{"text": np.array([1, 2], ">i4")}]}, "cache")
    return f"the cache holds {NumpyDir('cache', 'train')[0]['text'].dtype.str}"


@case("ids", "convert of ids 'a', 'a\\0' and 'b'")
def nul() -> str:
    from multimodal_pad.sources import NumpyDir, convert

    convert({"train": _named(["a", "a\0", "b"])}, "cache")
    return f"read back: {list(NumpyDir('cache', 'train').ids)}"


@case("ids", "convert of 500 samples, one of whose ids has 200,000 letters")
def one_long_id() -> str:
    from multimodal_pad.sources import convert

    source = _named(["x" * 200_000, *map(str, range(499))], 500)
    tracemalloc.start()
    convert({"train": source}, "cache")
    peak = tracemalloc.get_traced_memory()[1]
    size = sum(path.stat().st_size for path in Path("cache", "train").glob("ids*"))
    return f"ids take {size / 1e6:.1f} MB of disk, and convert {peak / 2**20:,.0f} MiB of memory"


@case("manifest and files", "a cache whose audio.npy was replaced by wider features")
def wider() -> str:
    np.save(_cache() / "train" / "audio.npy", np.ones((10, 3), np.float32))
    return _opened()


@case("manifest and files", "a cache whose audio.npy was replaced by float64")
def float64() -> str:
    np.save(_cache() / "train" / "audio.npy", np.ones((10, 2)))
    return _opened()


@case("manifest and files", "a manifest that says 99 samples, of a cache of 5")
def other_number() -> str:
    _cache()
    _edited("splits", "train", "samples", to=99)
    return _opened()


@case("manifest and files", "a cache one of whose offsets is moved by 1")
def moved_offset() -> str:
    path = _cache() / "train" / "audio.offsets.npy"
    offsets = np.load(path)
    offsets[1] += 1
    np.save(path, offsets)
    return _opened()


@case("manifest and files", "a cache one byte of whose frames is another one: inspect --verify")
def one_byte() -> str:
    path = _cache() / "train" / "audio.npy"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    command = [sys.executable, "-m", "multimodal_pad.cli", "inspect", "cache", "--verify"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"status {done.returncode}: {(done.stderr or done.stdout).strip().splitlines()[-1]}"


def _elsewhere() -> None:
    Path("elsewhere").mkdir()
    np.save("elsewhere/s.npy", np.ones((10, 2), np.float32))
    np.save("elsewhere/s.offsets.npy", np.arange(6) * 2)


@case("names in a manifest", "a modality called '../../elsewhere/s'")
def modality_elsewhere() -> str:
    from multimodal_pad.sources import NumpyDir

    _elsewhere()
    _cache()
    _edited("modalities", to={"../../elsewhere/s": {"dtype": "float32", "feature_shape": [2]}})
    return f"reads {list(NumpyDir('cache', 'train')[0])} from outside"


@case("names in a manifest", "a split called '../elsewhere'")
def split_elsewhere() -> str:
    from multimodal_pad.sources import NumpyDir

    _elsewhere()
    _cache()
    _edited("modalities", to={"s": {"dtype": "float32", "feature_shape": [2]}})
    _edited("splits", to={"../elsewhere": {}})
    return f"reads {list(NumpyDir('cache', '../elsewhere')[0])} from outside"


@case("an input that changes", "a file that grows while it is converted")
def changing_input() -> str:
    from multimodal_pad.sources import convert

    path = Path("corpus.bin")
    path.write_bytes(b"as it was")
    source = _Samples(_audio())
    source.inputs = [path]  # type: ignore[attr-defined]

    def grow(what: str, *_: int) -> None:
        if what == "writing train":
            path.write_bytes(b"as it was, and more")

    convert({"train": source}, "cache", progress=grow)
    return "written, with the SHA-256 of a file that is no longer there"


@case("damage", "each value of a manifest replaced by 20 others, or left out")
def mutations() -> str:
    from multimodal_pad import PaddingError
    from multimodal_pad.sources.inspection import inspect_cache

    path = _cache() / "manifest.json"
    whole = path.read_text()
    odd = [
        None,
        True,
        -1,
        0,
        1,
        7,
        2**31,
        2**64,
        1.5,
        float("nan"),
        "",
        "x",
        "../x",
        "\ud800",
        [],
        [1],
        [[]],
        {},
        {"a": 1},
    ]
    found = {"opens": 0, "an error that names it": 0, "a traceback": 0}
    for place in _places(json.loads(whole)):
        for value in [*odd, ...]:
            path.write_text(json.dumps(_changed(json.loads(whole), place, value)))
            try:
                _opened()
                inspect_cache("cache", batch_size=2, max_shapes=2)
                found["opens"] += 1
            except PaddingError:
                found["an error that names it"] += 1
            except Exception:  # noqa: BLE001 - it is what is counted
                found["a traceback"] += 1
    return ", ".join(f"{count:,} x {what}" for what, count in found.items())


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([at] if at else []), *(place for key, item in items for place in _places(item, (*at, key)))]


def _changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return value
