"""``multimodal-pad convert`` and ``inspect``."""

import json
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from multimodal_pad.cli import main
from multimodal_pad.sources import Mult, NumpyDir, Synthetic, convert
from tests.helpers.corpora import (
    CSD,
    LABELS,
    write_csd,
    write_meld,
    write_mmsa,
    write_mult,
    write_numpy_dir,
    write_sequence,
)
from tests.helpers.feature_folders import MER_EMOTIONS, write_feature_files, write_mertools
from tests.helpers.word_corpora import write_mag_bert, write_mfn


def run(*arguments):
    assert main([*map(str, arguments)]) == 0


def check(cache, written, counted=True):
    """The cache holds what was written, and its manifest counts what was replaced."""
    for split, samples in written.splits.items():
        cached = NumpyDir(cache, split)
        assert len(cached) == len(samples)
        place = {name: index for index, name in enumerate(cached.ids)}
        for sample in samples:
            for key, value in sample.items():
                if key != "id":
                    np.testing.assert_array_equal(cached[place[sample["id"]]][key], value)
        assert not counted or cached.manifest["splits"][split]["nonfinite"] == written.nonfinite[split]


def test_mult(tmp_path, capsys):
    written = write_mult(tmp_path, nonfinite=True)
    run("convert", "mult", written.path, tmp_path / "out", "--nonfinite", "zero")
    check(tmp_path / "out", written)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "train: 7 samples"
    assert f"train: {written.nonfinite['train']['audio']} values of audio that were NaN or inf are 0" in printed
    assert printed[-1] == f"Written: {tmp_path / 'out'} (look at it with: multimodal-pad inspect {tmp_path / 'out'})"


def test_mmsa(tmp_path):
    written = write_mmsa(tmp_path, "sims")
    run("convert", "mmsa", written.path, tmp_path / "out", "--nonfinite", "zero")
    check(tmp_path / "out", written)
    options = ["--lengths", "last_nonzero", "--labels", "regression_labels_T", "--modalities", "visual"]
    run("convert", "mmsa", written.path, tmp_path / "more", *options, "--dtype", "float16")
    more = NumpyDir(tmp_path / "more", "train")
    assert list(more[0]) == ["visual", "targets"]
    assert more[0]["visual"].dtype == np.float16
    assert more.rules["labels"] == "regression_labels_T"


def test_csd(tmp_path):
    pytest.importorskip("h5py")
    written = write_csd(tmp_path)
    sequences = [part for name, (file, *_) in CSD.items() for part in ("--sequence", f"{name}={file}")]
    options = ["--labels", LABELS, "--folds", tmp_path / "folds.json", "--nonfinite", "zero"]
    run("convert", "csd", tmp_path, tmp_path / "out", *sequences, *options)
    check(tmp_path / "out", written)


def test_mag_bert(tmp_path):
    written = write_mag_bert(tmp_path)
    run("convert", "mag_bert", written.path, tmp_path / "out", "--nonfinite", "zero")
    check(tmp_path / "out", written)
    run("convert", "mag_bert", written.path, tmp_path / "few", "--min-count", "99", "--modalities", "text")
    assert set(NumpyDir(tmp_path / "few", "dev")[0]["text"].tolist()) == {1}


def test_mfn(tmp_path):
    pytest.importorskip("h5py")
    for corpus, options in (
        ("pom", []),
        ("mosi", ["--width", "text=300", "--width", "audio=5", "--width", "visual=20"]),
    ):
        (tmp_path / corpus).mkdir()
        written = write_mfn(tmp_path / corpus, corpus)
        run("convert", "mfn", tmp_path / corpus, tmp_path / f"{corpus}-out", "--nonfinite", "zero", *options)
        check(tmp_path / f"{corpus}-out", written)
    run("convert", "mfn", tmp_path / "pom", tmp_path / "few", "--nonfinite", "zero", "--label-column", "2:5")
    assert NumpyDir(tmp_path / "few", "test").targets.shape == (4, 3)


def test_meld(tmp_path, capsys):
    written = write_meld(tmp_path)
    features = [
        part for name in ("audio", "visual") for part in ("--features", f"{name}={tmp_path / 'features' / name}")
    ]
    run("convert", "meld", tmp_path, tmp_path / "out", *features, "--nonfinite", "zero")
    check(tmp_path / "out", written)
    run("convert", "meld", tmp_path, tmp_path / "text", "--min-count", "2")
    assert list(NumpyDir(tmp_path / "text", "dev")[0]) == ["text", "targets"]
    run("convert", "meld", tmp_path, tmp_path / "noise", "--noise")
    assert list(NumpyDir(tmp_path / "noise", "dev")[0]) == ["text", "audio", "visual", "targets"]
    assert "left out" not in capsys.readouterr().out


def test_files(tmp_path, capsys):
    written = write_mertools(tmp_path)
    folders = {"audio": "hubert-FRA", "visual": "manet_FRA", "text": "tokens"}
    features = [part for name, folder in folders.items() for part in ("--features", f"{name}=features/{folder}")]
    options = ["--table", "label-6way.npz", *features, "--nonfinite", "zero"]
    run("convert", "files", tmp_path, tmp_path / "out", *options, "--targets", "emo", "--classes", *MER_EMOTIONS)
    check(tmp_path / "out", written)
    run("convert", "files", tmp_path, tmp_path / "v", *options, "--targets", "val", "--splits", "train", "val")
    assert list(NumpyDir(tmp_path / "v", "val").manifest["splits"]) == ["train", "val"]
    assert main(["convert", "files", str(tmp_path), str(tmp_path / "w"), *options, "--targets", "val"]) == 2
    assert "'test1_corpus', 'test1_sample" in capsys.readouterr().err


def test_files_of_a_table_of_text(tmp_path):
    written = write_feature_files(tmp_path, "labels.csv")
    where = ["--features", "audio=audio", "--features", "visual=visual", "--absent", "missing"]
    what = ["--ids", "{part}/dia{dialogue}", "--split-field", "part", "--targets", "valence", "arousal"]
    run("convert", "files", tmp_path, tmp_path / "out", "--table", "labels.csv", *where, *what)
    check(tmp_path / "out", written)


def test_what_is_left_out_is_said(tmp_path, capsys):
    write_meld(tmp_path, features=False)
    path = tmp_path / "test_sent_emo.csv"
    text = re.sub(r'"[\d:,]+"$', '"00:00:01,000"', path.read_text(), count=1, flags=re.MULTILINE)
    path.write_text(text)
    run("convert", "meld", tmp_path, tmp_path / "out")
    assert "test: left out dia0_utt0\n" in capsys.readouterr().out
    run("inspect", tmp_path / "out")
    assert "test: 3 samples, 1 left out, targets int32 (); lengths" in capsys.readouterr().out


def test_numpy_dir(tmp_path):
    (tmp_path / "plain").mkdir()
    written = write_numpy_dir(tmp_path / "plain")
    run("convert", "numpy_dir", tmp_path / "plain", tmp_path / "out", "--nonfinite", "zero")
    check(tmp_path / "out", written)
    run("convert", "numpy_dir", tmp_path / "out", tmp_path / "again", "--dtype", "float16")
    assert NumpyDir(tmp_path / "again", "plain")[0]["audio"].dtype == np.float16


def test_tfds(tmp_path):
    package = pytest.importorskip("tensorflow_datasets")
    from multimodal_pad.sources.unaligned_emotion import UnalignedEmotion

    written = write_mult(tmp_path)
    builder = UnalignedEmotion(config="mosi", data_dir=tmp_path / "tfds")
    builder.download_and_prepare(download_config=package.download.DownloadConfig(manual_dir=tmp_path))
    options = ["--targets", "targets", "--ids", "id", "--data-dir", tmp_path / "tfds"]
    run("convert", "tfds", "unaligned_emotion/mosi", tmp_path / "out", *options)
    check(tmp_path / "out", written)
    run("convert", "tfds", "unaligned_emotion/mosi", tmp_path / "one", "--feature", "speech=audio", *options)
    assert list(NumpyDir(tmp_path / "one", "train")[0]) == ["speech", "targets"]


def test_standardised(tmp_path, capsys):
    written = write_mult(tmp_path)
    run("convert", "mult", written.path, tmp_path / "out", "--standardize", "audio", "visual")
    train = NumpyDir(tmp_path / "out", "train")
    frames = np.concatenate([train[index]["audio"] for index in range(len(train))]).astype(float)
    np.testing.assert_allclose(frames.std(axis=0), 1, rtol=1e-5)
    run("inspect", tmp_path / "out")
    assert "audio: float32, 5 features, standardised by train\n" in capsys.readouterr().out


def test_inspect_prints_what_a_modality_without_features_is(tmp_path, capsys):
    convert({"train": [{"text": np.arange(3), "pitch": np.ones(5, np.float32)}]}, tmp_path / "out")
    run("inspect", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "pitch: float32, one number per position\n" in printed
    assert "text: int64, one number per position\n" in printed


def test_inspect_prints_counts_lengths_missing_and_padding(tmp_path, capsys):
    written = write_mult(tmp_path, nonfinite=True)
    run("convert", "mult", written.path, tmp_path / "out", "--nonfinite", "zero")
    capsys.readouterr()
    run("inspect", tmp_path / "out", "--batch-size", "2", "--max-shapes", "3")
    printed = capsys.readouterr().out
    assert printed.startswith("mult, ")
    assert f"from {written.path} (" in printed
    assert "text: float32, 300 features\n" in printed
    for split, samples in written.splits.items():
        assert f"{split}: {len(samples)} samples, targets float32 (); lengths" in printed
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in printed.splitlines()
        if "│" in line
    }
    lengths = [len(sample["visual"]) for sample in written.splits["test"]]
    assert rows["visual"][0] == f"{round(np.mean(lengths), 3):,g}"
    assert rows["visual"][-3:] == [str(max(lengths)), "1 (25.0 %)", "0"]
    assert rows["audio"][-1] == str(written.nonfinite["test"]["audio"])
    policies = ["fixed, as in the file", "fixed, longest", "exact, random", "planned 3, length"]
    assert [name for name in rows if "," in name] == policies
    train = Mult(written.path, "train").lengths.values
    share = train.sum(axis=0) / (len(train) * np.array([50, 375, 500]))
    assert rows["fixed, as in the file"][2:5] == [f"{value:.3f}" for value in share]
    assert rows["planned 3, length"][-1] == "1.00 x"


def test_columns_of_labels_and_a_blind_test_set(tmp_path):
    written = write_mult(tmp_path)
    data = pickle.loads(written.path.read_bytes())
    del data["test"]["labels"]
    for split in ("train", "valid"):
        data[split]["labels"] = np.arange(len(data[split]["id"]) * 5.0).reshape(-1, 1, 5)
    written.path.write_bytes(pickle.dumps(data))
    run("convert", "mult", written.path, tmp_path / "out", "--label-column", "0", "2:4", "--unlabeled", "test")
    np.testing.assert_array_equal(NumpyDir(tmp_path / "out", "train").targets, data["train"]["labels"][:, 0, [0, 2, 3]])
    assert NumpyDir(tmp_path / "out", "test").targets is None


def test_labels_of_several_keys_are_columns(tmp_path):
    written = write_mmsa(tmp_path, "sims")
    keys = ["regression_labels", "regression_labels_T", "regression_labels_V"]
    run("convert", "mmsa", written.path, tmp_path / "out", "--nonfinite", "zero", "--labels", *keys)
    data = pickle.loads(written.path.read_bytes())
    for split, arrays in data.items():
        wanted = np.stack([arrays[key] for key in keys], axis=1)
        np.testing.assert_array_equal(NumpyDir(tmp_path / "out", split).targets, wanted.astype(np.float32))


def test_columns_of_labels_of_csd(tmp_path):
    written = write_csd(tmp_path)
    rows = {"v0": (np.arange(6.0).reshape(2, 3), np.array([[0.5, 1.9], [2.5, 3.8]]))}
    write_sequence(tmp_path / "three.csd", "three", rows, dimensions=["sentiment", "happy", "sad"])
    options = ["--sequence", f"text={CSD['text'][0]}", "--labels", "three.csd", "--label-column", "sad", "0:2"]
    run("convert", "csd", written.path, tmp_path / "out", *options)
    assert NumpyDir(tmp_path / "out", "all").targets.tolist() == [[2, 0, 1], [5, 3, 4]]


def test_inspect_prints_a_file_of_lengths(tmp_path, capsys):
    lengths = Synthetic(50).lengths
    lines = [";".join(map(str, row)) for row in [lengths.modalities, *lengths.values.tolist()]]
    (tmp_path / "lengths.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    np.save(tmp_path / "lengths.npy", lengths.values)
    run("inspect", tmp_path / "lengths.csv", "--max-shapes", "2")
    printed = capsys.readouterr().out
    run("inspect", tmp_path / "lengths.npy", "--modalities", *lengths.modalities, "--max-shapes", "2")
    assert capsys.readouterr().out.replace(".npy", ".csv") == printed
    rows = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in printed.splitlines() if "│" in line}
    assert [int(rows[name][7].replace(",", "")) for name in lengths.modalities] == lengths.longest().tolist()
    assert [name for name in rows if "," in name] == ["fixed, longest", "exact, random", "planned 2, length"]
    assert "50 samples; lengths" in printed


def test_a_plan_is_made_for_a_cache(tmp_path, capsys):
    source = Synthetic(200)
    convert({"dev": Synthetic(20), "train": source}, tmp_path / "out")
    run("plan", tmp_path / "out", "--max-shapes", "3", "--out", tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text())["fingerprint"] == source.lengths.fingerprint
    run("plan", tmp_path / "out" / "dev", "--modalities", "text", "--max-shapes", "2")
    assert "2 batch shapes for 20 samples" in capsys.readouterr().out
    assert main(["plan", str(tmp_path)]) == 2
    assert "holds neither manifest.json nor a pair of files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "mult", "nothing.pkl", "out"], "nothing.pkl"),
        (["convert", "mfn", "meld", "out", "--width", "text=wide"], "got --width {'text': 'wide'}; widths are numbers"),
        (["convert", "mult", "evil.pkl", "out"], "the pickle asks for posix.system, at byte"),
        (["convert", "mult", "good.pkl", "exists"], "exists exists; name another folder"),
        (["convert", "mult", "good.pkl", "out", "--standardize", "smell"], "got standardize=['smell']"),
        (["convert", "mult", "good.pkl", "out", "--modalities", "smell"], "got the modalities ['smell']; choose from"),
        (["convert", "mmsa", "good.pkl", "out"], "has no key 'regression_labels'"),
        (["convert", "mult", "good.pkl", "out", "--unlabeled", "blind"], "got --unlabeled blind; the splits are ["),
        (["convert", "mult", "good.pkl", "out", "--label-column", "1.0"], "has no column of labels '1.0'"),
        (
            ["convert", "mult", "good.pkl", "out", "--label-column", "1"],
            "got label_column=1, and they are counted from 0",
        ),
        (["convert", "meld", ".", "out"], "train_sent_emo.csv: no such file"),
        (["convert", "meld", ".", "out", "--noise", "--features", "a=b"], "give --features or --noise, not both"),
        (["convert", "meld", "meld", "out", "--features", "a=b", "--features", "a=c"], "name each modality once"),
        (["convert", "numpy_dir", "nowhere", "out"], "nowhere: no such folder"),
        (["convert", "csd", ".", "out", "--sequence", "a=b.csd", "--labels", "c.csd"], "b.csd: no such file"),
        (["inspect", "nowhere"], "nowhere: no such folder"),
        (
            ["inspect", "good.pkl"],
            "good.pkl: got a file of kind '.pkl'; lengths are read from .csv, .tsv, .npy, .npz, .jsonl",
        ),
        (["inspect", "exists", "--modalities", "text"], "--modalities and --field are for a file of lengths"),
        (["inspect", "exists"], "exists: has no manifest.json; it is no flat cache"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_mult(tmp_path).path.rename("good.pkl")
    (tmp_path / "exists").mkdir()
    (tmp_path / "meld").mkdir()
    write_meld(tmp_path / "meld", features=False)
    (tmp_path / "evil.pkl").write_bytes(b"cposix\nsystem\n(Vtouch marker\ntR.")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "marker").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert"],
        ["convert", "zip", "a", "b"],
        ["convert", "mult", "a"],
        ["convert", "csd", "a", "b"],
        ["convert", "csd", "a", "b", "--labels", "c", "--sequence", "audio"],
        ["convert", "mult", "a", "b", "--dtype", "float64"],
        ["inspect"],
    ],
)
def test_what_cannot_be_read_is_shown_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert capsys.readouterr().err.startswith("usage: multimodal-pad")


@pytest.mark.parametrize(
    "command", [["convert"], ["inspect"], ["convert", "mult"], ["convert", "csd"], ["convert", "tfds"]]
)
def test_help(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert "usage: multimodal-pad" in capsys.readouterr().out


def test_ctrl_c(tmp_path, monkeypatch, capsys):
    written = write_mult(tmp_path)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Mult, "__getitem__", interrupted)
    assert main(["convert", "mult", str(written.path), str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert [path.name for path in tmp_path.iterdir()] == [written.path.name]


def test_the_commands_need_neither_jax_nor_tensorflow(tmp_path):
    written = write_mult(tmp_path)
    code = f"""
import sys
from multimodal_pad.cli import main
assert main(["convert", "mult", {str(written.path)!r}, {str(tmp_path / "out")!r}]) == 0
assert main(["inspect", {str(tmp_path / "out")!r}]) == 0
loaded = [name for name in ("jax", "h5py", "tensorflow_datasets", "matplotlib", "sklearn") if name in sys.modules]
sys.exit(f"loaded {{loaded}}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_verifying_a_cache(tmp_path, capsys):
    convert({"train": Synthetic(4)}, tmp_path / "out")
    run("inspect", tmp_path / "out", "--verify")
    assert "verified: 7 files are what was written" in capsys.readouterr().out.splitlines()
    path = tmp_path / "out" / "train" / "audio.npy"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    run("inspect", tmp_path / "out")
    assert "verified" not in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "out"), "--verify"]) == 2
    assert re.search(r"error: .*train/audio\.npy: is not what was written", capsys.readouterr().err)
