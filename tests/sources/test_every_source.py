"""What every source on disk promises, of small files in the real layouts."""

import json
import pickle
import random
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from multimodal_pad import BucketBatcher, LengthTable, Planned, plan_shapes, unpad
from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.sources import (
    Corpus,
    Csd,
    Files,
    MagBert,
    Meld,
    Mfn,
    Mmsa,
    Mult,
    NumpyDir,
    Synthetic,
    convert,
    tfds,
)
from tests.helpers.corpora import (
    CSD,
    LABELS,
    Written,
    dump_python2,
    write_csd,
    write_meld,
    write_mmsa,
    write_mult,
    write_numpy_dir,
)
from tests.helpers.damage import damaged, no_file
from tests.helpers.feature_folders import MER_EMOTIONS, write_feature_files, write_mertools
from tests.helpers.word_corpora import write_mag_bert, write_mfn


@dataclass
class Case:
    """How the files of a source are written, and opened."""

    write: Callable[[Path], Written]
    open: Callable[..., Corpus]
    raises: str = "error"  # what nonfinite="error" says of the first split, where it has such values


def open_mult(written, split, **options):
    return Mult(written.path, split, **options)


def open_mmsa(written, split, **options):
    return Mmsa(written.path, split, **options)


def open_mag_bert(written, split, **options):
    return MagBert(written.path, split, **options)


def open_mfn(written, split, **options):
    pytest.importorskip("h5py")
    return Mfn(written.path, split, **options)


def open_csd(written, split, **options):
    pytest.importorskip("h5py")
    files = {name: file for name, (file, *_) in CSD.items()}
    return Csd(written.path, split, sequences=files, labels=LABELS, folds=written.path / "folds.json", **options)


def open_meld(written, split, **options):
    features = {name: written.path / "features" / name for name in ("audio", "visual")}
    return Meld(written.path, split, features=features, **options)


def open_mertools(written, split, **options):
    folders = {"audio": "hubert-FRA", "visual": "manet_FRA", "text": "tokens"}
    features = {name: f"features/{folder}" for name, folder in folders.items()}
    return Files(
        written.path,
        split,
        table="label-6way.npz",
        features=features,
        targets="emo",
        classes=MER_EMOTIONS,
        **options,
    )


def open_files(written, split, table, **options):
    visual = {"paths": {"visual": "faces.path"}} if "json" in table else {"features": {"visual": "visual"}}
    visual["features"] = {"audio": "audio", **visual.get("features", {})}
    chosen = {"ids": "{part}/dia{dialogue}", "split_field": "part", "targets": ["valence", "arousal"]}
    return Files(written.path, split, table=table, **visual, **chosen, absent="missing", **options)


def open_numpy_dir(written, split, **options):
    assert split == written.path.name
    return NumpyDir(written.path, **options)


def write_cache(folder):
    """A flat cache of a MulT pickle."""
    written = write_mult(folder, nonfinite=True)
    convert({split: Mult(written.path, split, nonfinite="zero") for split in written.splits}, folder / "cache")
    return Written(folder / "cache", written.splits, written.nonfinite)


def open_cache(written, split, **options):
    return NumpyDir(written.path, split, **options)


def write_tfds(folder):
    """A TFDS dataset that was built from a MulT pickle, whose order TFDS shuffles."""
    pytest.importorskip("tensorflow_datasets")
    from multimodal_pad.sources.unaligned_emotion import UnalignedEmotion
    from multimodal_pad.sources.unaligned_emotion import tfds as package

    written = write_mult(folder)
    builder = UnalignedEmotion(config="mosi", data_dir=folder / "tfds")
    builder.download_and_prepare(download_config=package.download.DownloadConfig(manual_dir=folder))
    order = {split: [e["id"].decode() for e in builder.as_data_source(split)] for split in written.splits}
    for split, samples in written.splits.items():
        samples.sort(key=lambda sample: order[split].index(sample["id"]))
    return Written(folder / "tfds", written.splits, written.nonfinite)


def open_tfds(written, split, **options):
    name = "unaligned_emotion/mosi"
    return tfds(name, split, targets="targets", ids="id", data_dir=written.path, **options)


CASES = {
    "mosi": Case(partial(write_mult, nonfinite=True), open_mult, r"mosi_data_noalign\.pkl, split 'train', key 'audio'"),
    "mosi, Python 2": Case(partial(write_mult, writer=dump_python2), open_mult),
    "mosei": Case(partial(write_mult, corpus="mosei_senti"), open_mult),
    "iemocap": Case(partial(write_mult, corpus="iemocap"), open_mult),
    "iemocap, aligned": Case(partial(write_mult, corpus="iemocap_aligned"), open_mult),
    "mmsa mosi": Case(write_mmsa, open_mmsa, r"unaligned_50\.pkl, split 'train', key 'audio'"),
    "mmsa mosei": Case(partial(write_mmsa, corpus="mosei"), open_mmsa, "key 'audio'"),
    "mmsa sims": Case(partial(write_mmsa, corpus="sims"), open_mmsa, "key 'audio'"),
    "mag_bert": Case(write_mag_bert, open_mag_bert, r"mosi\.pkl, split 'train', example 0, audio"),
    "mfn mosi": Case(partial(write_mfn, corpus="mosi"), open_mfn, r"X_train\.h5"),
    "mfn pom": Case(write_mfn, open_mfn, r"audio_train\.h5"),
    "mfn youtube": Case(partial(write_mfn, corpus="youtube"), open_mfn, r"audio_train\.h5"),
    "csd": Case(write_csd, open_csd, r"CMU_MOSI_COVAREP\.csd, 'v0'"),
    "meld": Case(write_meld, open_meld, r"train/dia0_utt0\.npy"),
    "mertools": Case(write_mertools, open_mertools, r"hubert-FRA/train_sample_\d+\.npy"),
    "files, csv": Case(partial(write_feature_files, table="labels.csv"), partial(open_files, table="labels.csv")),
    "files, json": Case(partial(write_feature_files, table="all.jsonl.gz"), partial(open_files, table="all.jsonl.gz")),
    "numpy_dir": Case(write_numpy_dir, open_numpy_dir, r"audio\.npy"),
    "cache": Case(write_cache, open_cache),
    "tfds": Case(write_tfds, open_tfds),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def written(case, tmp_path_factory):
    return case.write(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def opened(case, written):
    """Every split, and the samples that it should have."""
    return {split: (case.open(written, split, nonfinite="zero"), samples) for split, samples in written.splits.items()}


def same(found, wanted):
    """Whether a sample is the one that was written, ids aside."""
    wanted = {key: value for key, value in wanted.items() if key != "id"}
    assert list(found) == [*[key for key in found if key != "targets"], "targets"]
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
        assert found[key].dtype == value.dtype, key


def test_the_round_trip_gives_true_lengths_values_targets_and_ids(opened):
    for source, samples in opened.values():
        assert len(source) == len(samples)
        assert list(source.ids) == [sample["id"] for sample in samples]
        table = LengthTable.from_columns({m: [len(s[m]) for s in samples] for m in source.lengths.modalities})
        assert source.lengths.fingerprint == table.fingerprint
        for index, sample in enumerate(samples):
            same(source[index], sample)
            assert source.targets[index].tolist() == sample["targets"].tolist()


def test_values_that_are_not_finite_are_counted_once(opened, written):
    for split, (source, samples) in opened.items():
        for _ in range(2):
            for index in range(len(samples)):
                assert all(np.isfinite(array).all() for array in source[index].values())
        assert source.nonfinite == written.nonfinite[split]


def test_values_that_are_not_finite_are_an_error_that_says_where(case, written):
    split = next(iter(written.splits))
    source = case.open(written, split)
    wrong = sum(written.nonfinite[split].values())
    if not wrong or case.open is open_cache:  # where they are zeros already
        [source[index] for index in range(len(source))]
        return
    with pytest.raises(SourceError, match=rf"{case.raises}.*sample \d+ \(.+\) holds (nan|-?inf) at position \d+.*zero"):
        [source[index] for index in range(len(source))]


def test_nothing_is_beyond_the_ends(opened):
    for source, samples in opened.values():
        for index in (-1, len(samples)):
            with pytest.raises(IndexError, match=f"sample {index} of {len(samples)}"):
                source[index]


def test_batches_give_the_samples_back(opened):
    for source, samples in opened.values():
        plan = plan_shapes(source.lengths, max_shapes=2, batch_size=2)
        batcher = BucketBatcher(source, Planned(plan))
        found = {}
        for (_, ids), batch in zip(batcher.schedule(0), batcher.epoch(0), strict=True):
            found |= dict(zip([i for i in ids.tolist() if i >= 0], unpad(batch), strict=True))
        assert sorted(found) == list(range(len(samples)))
        for index, sample in found.items():
            same(sample, samples[index])


def test_another_process_opens_it_again(opened):
    for source, samples in opened.values():
        again = pickle.loads(pickle.dumps(source))
        assert again.lengths.fingerprint == source.lengths.fingerprint
        same(again[len(samples) - 1], samples[-1])
        assert len(pickle.dumps(source)) < 2000


def test_another_process_opens_it_from_another_folder(tmp_path, monkeypatch):
    write_meld(tmp_path / "meld")
    (tmp_path / "meld" / "ids.csv").write_text("id\ndia0_utt0\ndia0_utt1\n")
    (tmp_path / "folds.json").write_text('{"train": ["dia0*"]}')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    features = {"audio": "features/audio/train"}
    sources = [
        Meld(data_dir="meld", features={"audio": "meld/features/audio"}),
        Files(root="meld", table="ids.csv", features=features, folds="folds.json"),
    ]
    pickled = pickle.dumps(sources)
    monkeypatch.chdir("elsewhere")
    for source, again in zip(sources, pickle.loads(pickled), strict=True):
        assert again.ids == source.ids
        audio = np.load(tmp_path / "meld" / features["audio"] / "dia0_utt1.npy")
        np.testing.assert_array_equal(again[1]["audio"], audio.astype(np.float32))


def test_whoever_is_told_of_the_progress_is_not_pickled(tmp_path):
    source = Mult(write_mult(tmp_path).path, "train", progress=lambda *_: None)
    assert len(pickle.loads(pickle.dumps(source))) == len(source)


def test_threads_read_the_same(opened):
    source, samples = next(iter(opened.values()))
    wrong = []

    def read():
        for index in [*range(len(samples)), *reversed(range(len(samples)))]:
            try:
                same(source[index], samples[index])
            except AssertionError as error:
                wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_converting_keeps_everything(opened, tmp_path, dtype):
    manifest = convert({split: source for split, (source, _) in opened.items()}, tmp_path / "out", dtype=dtype)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8")) == manifest
    for split, (source, samples) in opened.items():
        cached = NumpyDir(tmp_path / "out", split)
        assert list(cached.ids) == [sample["id"] for sample in samples]
        assert cached.lengths.fingerprint == source.lengths.fingerprint
        assert cached.padded_to == source.padded_to
        assert cached.vocabularies == source.vocabularies
        assert manifest["splits"][split]["nonfinite"] == source.nonfinite
        for index, sample in enumerate(samples):
            halved = {
                m: a.astype(dtype) if m != "targets" and a.dtype == np.float32 else a
                for m, a in sample.items()
                if m != "id"
            }
            same(cached[index], halved)


def test_it_says_what_it_is_of(opened):
    for source, _ in opened.values():
        assert source.inputs
        assert all(path.is_file() for path in source.inputs)
        assert json.loads(json.dumps(source.rules)) == source.rules
        assert isinstance(source.kind, str)


def test_a_rule_that_there_is_not(case, written):
    with pytest.raises(PaddingError, match="got nonfinite='nought'; choose one of"):
        case.open(written, next(iter(written.splits)), nonfinite="nought")


def test_a_split_that_there_is_not(case, written):
    if case.open is open_numpy_dir:
        pytest.skip("a plain folder has no splits")
    with pytest.raises(PaddingError, match="'nowhere'"):
        case.open(written, "nowhere")


def test_synthetic_and_lists_are_converted_too(tmp_path):
    source = Synthetic(20, missing=0.5)
    convert({"train": source, "dev": [source[i] for i in range(3)]}, tmp_path / "out")
    for split, count in (("train", 20), ("dev", 3)):
        cached = NumpyDir(tmp_path / "out", split)
        assert len(cached) == count
        assert cached.ids[0] == f"{split}[0]"
        for index in range(count):
            for name, array in source[index].items():
                np.testing.assert_array_equal(cached[index][name], array)


def read_all(case, written):
    """Open a split, and read all of it."""
    source = case.open(written, next(iter(written.splits)), nonfinite="zero")
    for index in range(len(source)):
        source[index]
    return source


@pytest.fixture
def files(case, written):
    """The files that the source reads, which the test may damage: they are put back."""
    paths = sorted({path for path in read_all(case, written).inputs if path.is_relative_to(written.path.parent)})
    whole = {path: path.read_bytes() for path in paths}
    yield paths
    for path, data in whole.items():
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(data)


@pytest.mark.parametrize("seed", range(3))
def test_no_damage_gets_further_than_an_error_that_names_the_file(case, written, files, seed):
    """Whatever a byte of a file is, there are samples, or an error that says which file is damaged."""
    rng = random.Random(seed)
    for _ in range(12):
        path = rng.choice(files)
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, rng))
        said = str(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_all(case, written)
            except SourceError as error:
                said = str(error)
        assert str(path.parent) in said
        assert len(said) < 3000
        path.write_bytes(whole)


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
def test_what_is_no_file_is_not_waited_for(case, written, files, kind):
    for path in files[:3]:
        whole = path.read_bytes()
        no_file(path, kind)
        with pytest.raises((SourceError, OSError), match=path.name) as raised:
            read_all(case, written)
        assert isinstance(raised.value, SourceError)
        (path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)()
        path.write_bytes(whole)
