"""Writing a flat cache: whole or not at all, and what it is refused for."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import LengthTable, PaddingError, output
from multimodal_pad.errors import SampleError, SourceError
from multimodal_pad.sources import Meld, Mult, NumpyDir, Synthetic, convert
from multimodal_pad.sources.inspection import inspect_cache
from tests.helpers.corpora import make_sample, write_meld, write_mult


def nothing_left(folder, *names):
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_the_manifest_says_what_it_is_of(tmp_path):
    written = write_mult(tmp_path, nonfinite=True)
    splits = {name: Mult(written.path, name, nonfinite="zero") for name in written.splits}
    manifest = convert(splits, tmp_path / "out")
    assert (manifest["format"], manifest["version"]) == ("multimodal_pad flat cache", 2)
    digest = hashlib.sha256(written.path.read_bytes()).hexdigest()
    size = written.path.stat().st_size
    assert manifest["source"] == {
        "kind": "mult",
        "inputs": [{"path": str(written.path), "bytes": size, "sha256": digest}],
    }
    assert manifest["modalities"]["audio"] == {"dtype": "float32", "feature_shape": [5]}
    train = manifest["splits"]["train"]
    assert train["samples"] == 7
    assert train["targets"] == {"dtype": "float32", "shape": []}
    assert train["padded_to"] == {"text": 50, "audio": 375, "visual": 500}
    assert train["rules"] == {
        "lengths": "from the first row that is not all zero",
        "label_column": ":",
        "nonfinite": "zero",
    }
    assert train["nonfinite"] == written.nonfinite["train"]
    assert train["missing"] == {"text": 0, "audio": 0, "visual": 1}
    lengths = [len(s["audio"]) for s in written.splits["train"]]
    assert train["lengths"]["audio"]["max"] == max(lengths) == 375
    assert train["lengths"]["audio"]["p50"] == np.median(lengths)
    assert train["lengths"]["audio"]["mean"] == pytest.approx(np.mean(lengths), abs=1e-3)
    nothing_left(tmp_path, "mosi_data_noalign.pkl", "out")
    nothing_left(tmp_path / "out", "manifest.json", "train", "valid", "test")
    files = [f"{m}{end}" for m in ("text", "audio", "visual") for end in (".npy", ".offsets.npy")]
    nothing_left(tmp_path / "out" / "train", "ids.npy", "ids.offsets.npy", "targets.npy", *files)
    for file, facts in train["files"].items():
        data = (tmp_path / "out" / "train" / file).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert train["files"].keys() == {path.name for path in (tmp_path / "out" / "train").iterdir()}


def test_many_input_files_have_one_digest_a_folder(tmp_path):
    write_meld(tmp_path)
    extra = tmp_path / "features" / "audio" / "train"
    for number in range(40):
        np.save(extra / f"dia{number // 2 + 9}_utt{number % 2}.npy", np.ones((2, 74)))
    lines = (tmp_path / "train_sent_emo.csv").read_text().splitlines()
    more = [lines[1].replace(",0,0,1,1,", f",{n // 2 + 9},{n % 2},1,1,") for n in range(40)]
    (tmp_path / "train_sent_emo.csv").write_text("\n".join([*lines, *more]) + "\n")
    source = Meld(tmp_path, features={"audio": tmp_path / "features" / "audio"}, nonfinite="zero")
    inputs = convert({"train": source}, tmp_path / "out")["source"]["inputs"]
    assert [(row["path"], row.get("files")) for row in inputs] == [
        (str(tmp_path / "train_sent_emo.csv"), None),
        (str(extra), 48),
    ]
    again = convert({"train": source}, tmp_path / "again")["source"]["inputs"]
    assert again == inputs
    np.save(extra / "dia9_utt0.npy", np.zeros((2, 74)))
    changed = convert({"train": source}, tmp_path / "changed")["source"]["inputs"]
    assert changed[0] == inputs[0]
    assert changed[1]["sha256"] != inputs[1]["sha256"]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    source = Synthetic(10)
    for name in ("one", "two"):
        convert({"train": source}, tmp_path / name)
    one, two = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert Path("train", "audio.npy") in one
    assert one == two


def test_modalities_in_another_order(tmp_path):
    convert({"train": Synthetic(5)}, tmp_path / "out", modalities=["visual", "text"])
    assert list(NumpyDir(tmp_path / "out", "train")[0]) == ["visual", "text", "targets"]


def test_token_ids_stay_whole_in_float16(tmp_path):
    write_meld(tmp_path, features=False)
    convert({"train": Meld(tmp_path, payload="synthetic")}, tmp_path / "out", dtype="float16")
    cached = NumpyDir(tmp_path / "out", "train")
    assert [cached[0][name].dtype for name in ("text", "audio")] == [np.int32, np.float16]
    vocabulary = cached.vocabularies["text"]
    assert max(vocabulary.values()) + 1 == cached.manifest["modalities"]["text"]["vocabulary_size"]


def test_samples_without_targets(tmp_path):
    convert({"all": [{"audio": np.ones((2, 1), np.float32)}]}, tmp_path / "out")
    assert list(NumpyDir(tmp_path / "out", "all")[0]) == ["audio"]


@pytest.mark.parametrize(
    ("splits", "options", "error", "message"),
    [
        ({}, {}, PaddingError, "got none for the splits; give at least one source, as {'train': source}"),
        ([make_sample(2)], {}, PaddingError, "got list for the splits; give at least one source"),
        ({"dev": iter([make_sample(2)])}, {}, PaddingError, "split 'dev': got samples of type list_iterator; give"),
        ({"train": [make_sample(2)], "dev": []}, {}, PaddingError, "the split 'dev' has no samples"),
        ({"train": [make_sample(2)]}, {"standardize": "audio"}, PaddingError, "got .* standardize='audio'; give lists"),
        (
            {"train": [make_sample(2)], "dev": [{**make_sample(2), "more": np.ones(3)}]},
            {},
            PaddingError,
            r"the split 'dev' has the modalities \['audio', 'more'\], the first one has \['audio'\]",
        ),
        (
            {"train": [make_sample(2, target=0) | {"targets": np.float32("nan")}]},
            {},
            SourceError,
            r"sample 0 \(0\) is labelled nan",
        ),
        (
            {"train": [make_sample(2) | {"targets": "joy"}]},
            {},
            SampleError,
            "split 'train': sample 0, 'targets': got dtype <U3, and a batch holds bool, whole numbers",
        ),
        (
            {"train": [make_sample(2) | {"targets": 2 + 1j}]},
            {},
            SampleError,
            "split 'train': sample 0, 'targets': got dtype complex128",
        ),
        (
            {"train": [make_sample(2)], "dev": [make_sample(2) | {"targets": np.zeros(2)}]},
            {},
            SampleError,
            r"split 'dev': the targets are float64 of shape \(2,\), and those of the split 'train' int32 of shape \(\)",
        ),
        ({"train": [make_sample(2)]}, {"modalities": ["text"]}, PaddingError, "split 'train': sample 0 has no 'text'"),
        ({"train": [make_sample(2)]}, {"dtype": "float64"}, PaddingError, "got dtype='float64'; choose one of"),
        (
            {"train": [make_sample(2)]},
            {"standardize": ["text"]},
            PaddingError,
            r"got standardize=\['text'\] for the modalities",
        ),
        (
            {"dev": [make_sample(2)]},
            {"standardize": ["audio"]},
            PaddingError,
            "have a split 'train' to take the statistics",
        ),
        ({"../train": [make_sample(2)]}, {}, PaddingError, "got '../train' for a modality or a split; it names a file"),
        ({"train": [{"ids": np.ones(3)}]}, {}, PaddingError, "got 'ids' for a modality or a split"),
        ({"train": [{"a.offsets": np.ones(3)}]}, {}, PaddingError, r"got 'a\.offsets' for a modality or a split"),
        (
            {"train": [make_sample(2), make_sample(3, value=np.nan)]},
            {},
            SourceError,
            "split 'train': sample 1, 'audio': holds nan, which is not finite",
        ),
        (
            {"train": [make_sample(2), make_sample(3, value=1e5)]},
            {"dtype": "float16"},
            SourceError,
            "sample 1, 'audio': holds 100000.0, which is too large for float16; standardise it, or take float32",
        ),
        (
            {"train": [make_sample(2), make_sample(3, width=3)]},
            {},
            SampleError,
            r"split 'train': sample 1, 'audio': has the shape \(3, 3\) and dtype float32; by",
        ),
        (
            {"train": [make_sample(2)], "dev": [make_sample(2, dtype=np.int32)]},
            {},
            SampleError,
            "split 'dev': sample 0, 'audio': has",
        ),
        (
            {"train": [make_sample(2), {"audio": np.ones((1, 2), "f4")}]},
            {},
            SampleError,
            "split 'train': sample 1, 'targets': got none",
        ),
    ],
)
def test_what_is_not_converted(splits, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        convert(splits, tmp_path / "out", **options)
    nothing_left(tmp_path)


def test_a_source_that_is_not_as_long_as_it_says(tmp_path):
    class Liar(list):
        lengths = LengthTable(("audio",), np.array([[2], [2]]))

    with pytest.raises(SampleError, match=r"sample 1, 'audio': has the shape \(3, 2\)"):
        convert({"train": Liar([make_sample(2), make_sample(3)])}, tmp_path / "out")
    nothing_left(tmp_path)


def test_an_id_twice(tmp_path):
    class Twins(list):
        ids = ("a", "a")

    with pytest.raises(SourceError, match="split 'train': samples 0 and 1 are both called 'a'"):
        convert({"train": Twins([make_sample(2), make_sample(3)])}, tmp_path / "out")
    nothing_left(tmp_path)


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out exists; name another folder"):
        convert({"train": [make_sample(2)]}, tmp_path / "out")
    nothing_left(tmp_path / "out")


def test_too_little_room_is_known_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"out: takes 0\.00 GB, and 0\.00 GB are free in .*; make room"):
        convert({"train": [make_sample(1000)]}, tmp_path / "out")
    nothing_left(tmp_path)


def test_a_link_that_leads_nowhere_is_not_overwritten(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="out exists; name another folder"):
        convert({"train": [make_sample(2)]}, tmp_path / "out")


def test_who_may_read_it_is_for_the_umask_to_say(tmp_path):
    before = os.umask(0o077)
    try:
        convert({"train": [make_sample(2)]}, tmp_path / "private")
        os.umask(0o022)
        convert({"train": [make_sample(2)]}, tmp_path / "open")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("private", "open")] == [0o700, 0o755]


def test_features_of_no_width(tmp_path):
    with pytest.raises(SampleError, match=r"split 'train': sample 0, 'audio': got shape \(3, 0\), positions without"):
        convert({"train": [{"audio": np.ones((3, 0), np.float32)}]}, tmp_path / "out")


def test_a_cache_of_a_cache_remembers(tmp_path):
    written = write_mult(tmp_path, nonfinite=True)
    splits = {name: Mult(written.path, name, nonfinite="zero") for name in written.splits}
    first = convert(splits, tmp_path / "first", standardize=["audio"])
    caches = {name: NumpyDir(tmp_path / "first", name) for name in splits}
    second = convert(caches, tmp_path / "second", dtype="float16")
    assert second["standardized"] == first["standardized"]
    assert second["source"]["converted_from"] == first["source"]
    for name in splits:
        assert second["splits"][name]["nonfinite"] == first["splits"][name]["nonfinite"] == written.nonfinite[name]
        assert second["splits"][name]["padded_to"] == first["splits"][name]["padded_to"]
    inputs = [row["path"] for row in second["source"]["inputs"]]
    assert str(tmp_path / "first" / "manifest.json") in inputs
    assert str(tmp_path / "first" / "train" / "audio.npy") in inputs
    with pytest.raises(PaddingError, match=r"and \['audio'\] are standardised in the source already"):
        convert(caches, tmp_path / "third", standardize=["audio"])


@pytest.mark.parametrize("after", ["writing train", "SHA-256 of the input", "statistics of audio"])
def test_ctrl_c_leaves_nothing(after, tmp_path):
    written = write_mult(tmp_path)
    splits = {name: Mult(written.path, name) for name in written.splits}

    def interrupt(what, *_):
        if what == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(splits, tmp_path / "out", standardize=["audio"], progress=interrupt)
    nothing_left(tmp_path, written.path.name)


KILL = """
import os, signal, sys
from multimodal_pad.sources import Mult, convert
def die(what, done, total):
    if what == "writing valid":
        os.kill(os.getpid(), signal.SIGKILL)
convert({split: Mult(sys.argv[1], split) for split in ("train", "valid")}, sys.argv[2], progress=die)
"""


def test_what_a_killed_process_leaves_does_not_look_finished(tmp_path):
    written = write_mult(tmp_path)
    command = [sys.executable, "-c", KILL, str(written.path), str(tmp_path / "out")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    (left,) = [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
    with pytest.raises(
        SourceError, match=r"has no manifest\.json; it is no flat cache, or one that was never finished"
    ):
        inspect_cache(left)
    output._swept.clear()  # as in a process that begins
    convert({"train": Mult(written.path, "train")}, tmp_path / "out")  # and it can be run again
    assert not left.exists()
    assert len(NumpyDir(tmp_path / "out", "train")) == 7


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from multimodal_pad.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        (100, r"train/text\.offsets\.npy"),
        (150_000, r"train/(text|audio|visual)\.npy, sample \d;"),
    ],
)
def test_a_disk_that_fills_up(limit, what, tmp_path):
    """A limit on the size of files stands for a full disk: writing fails in the middle."""
    written = write_mult(tmp_path)

    command = [sys.executable, "-c", LIMITED, str(limit), "convert", "mult", str(written.path), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: [Errno 27] File too large while writing ")
    assert re.search(what, done.stderr)
    nothing_left(tmp_path, written.path.name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_by_its_own_error(tmp_path, monkeypatch):
    """The header goes to a device that is always full."""
    import io

    plain = io.open

    def full(self, mode="r", *arguments, **options):
        path = "/dev/full" if self.name == "audio.npy" else self
        return plain(path, mode, *arguments, **options)

    monkeypatch.setattr("pathlib.Path.open", full)
    with pytest.raises(
        OSError, match=r"\[Errno 28\] No space left on device while writing .*; nothing is left of the cache"
    ):
        convert({"train": [make_sample(2)]}, tmp_path / "out")
    nothing_left(tmp_path)


def test_targets_of_a_dtype_that_npy_files_have_no_name_for(tmp_path):
    target = np.asarray(jnp.asarray([0.5, -2.0], jnp.bfloat16))
    manifest = convert({"train": [{"audio": np.ones((2, 1), np.float32), "targets": target}]}, tmp_path / "cache")
    assert manifest["splits"]["train"]["targets"] == {"dtype": "float32", "shape": [2]}
    assert NumpyDir(tmp_path / "cache", "train")[0]["targets"].tolist() == [0.5, -2.0]
