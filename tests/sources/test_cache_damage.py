"""A flat cache is held against its manifest, and whatever is damaged of it is an error that names the file."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from multimodal_pad.commands import inspect
from multimodal_pad.errors import SourceError
from multimodal_pad.sources import NumpyDir, convert
from multimodal_pad.sources.inspection import inspect_cache
from multimodal_pad.sources.verification import verify_cache
from tests.helpers.corpora import write_numpy_dir

OLD = Path(__file__).parent / "golden" / "flat_cache_1"
"""A cache as the first version of the format was written."""

quick = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Utterances(list):
    """Samples with all that a manifest may hold."""

    kind = "utterances"
    rules = {"min_count": 1}  # noqa: RUF012 - as sources have it
    padded_to = {"text": 5, "audio": 7}  # noqa: RUF012
    vocabularies = {"text": {"oh": 2, "god": 3}}  # noqa: RUF012
    ids = ("a", "ć", "cc")


def utterances(seed):
    rng = np.random.default_rng(seed)
    return Utterances(
        {
            "text": np.array([2, 3, 1][: n + 1], np.int32),
            "audio": rng.standard_normal((n, 2)).astype(np.float32),
            "targets": np.float32(n),
        }
        for n in (2, 0, 1)
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A cache of the present version."""
    folder = tmp_path_factory.mktemp("whole") / "cache"
    convert({"train": utterances(0), "test": utterances(1)}, folder, standardize=["audio"])
    return folder


@pytest.fixture
def cache(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "cache")


@pytest.fixture(params=["now", "before"])
def either(request, whole, tmp_path):
    """A cache of this version, or of the one before."""
    return shutil.copytree(whole if request.param == "now" else OLD, tmp_path / "cache")


def read_all(folder, splits=("train", "test")):
    """All samples and ids."""
    found = []
    for split in splits:
        source = NumpyDir(folder, split)
        samples = [{name: np.asarray(value).tolist() for name, value in source[i].items()} for i in range(len(source))]
        found.append((list(source.ids), samples))
    return found


def print_all(folder):
    """What ``inspect`` makes of it."""
    found = inspect_cache(folder, batch_size=2, max_shapes=2)
    text = io.StringIO()
    console = Console(file=text, width=160)
    for split in found.manifest["splits"]:
        inspect._print_lengths(console, found.manifest, split)
    return "\n".join(inspect._origin(found)).encode(), text.getvalue()


def places(value, at=()):
    """Where the values of a JSON file are."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*at, key))


def changed(value, at, new):
    """A JSON value with another one in one place, or without it where that is ``...``."""
    if not at:
        return None if new is ... else new
    value = json.loads(json.dumps(value))
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return value


odd = st.sampled_from(
    [..., True, -1, 0, 1, 2**31, 2**64, 10**400, float("nan"), float("inf"), "", "../x", "\ud800", "0" * 64]
)
values = odd | st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@quick
@given(data=st.data())
def test_whatever_a_manifest_says_is_right_or_an_error_that_names_it(either, data):
    path = either / "manifest.json"
    original = json.loads((OLD / "manifest.json" if "sha256" not in path.read_text() else path).read_text())
    kept = path.read_text()
    at = data.draw(st.sampled_from(sorted(places(original), key=str)))
    path.write_text(json.dumps(changed(original, at, data.draw(values))))
    try:
        read_all(either)
        print_all(either)
    except SourceError as error:
        assert str(either) in str(error)  # noqa: PT017 - it may be right, too
    finally:
        path.write_text(kept)


@quick
@given(data=st.data())
def test_whatever_is_changed_is_found_by_verifying(cache, data):
    path = data.draw(st.sampled_from(sorted(path for path in cache.rglob("*") if path.is_file())))
    original = path.read_bytes()
    damage = data.draw(st.sampled_from(["byte", "cut", "longer"]))
    place = data.draw(st.integers(0, len(original) - 1))
    byte = bytes([original[place] ^ data.draw(st.integers(1, 255))])
    damaged = {
        "byte": original[:place] + byte + original[place + 1 :],
        "cut": original[:place],
        "longer": original + byte,
    }
    path.write_bytes(damaged[damage])
    try:
        read_all(cache)  # works, or raises what is one of ours
        assert damage == "byte" or path.name == "manifest.json", "sizes are looked at whenever it is opened"
        assert not path.name.endswith(".offsets.npy"), "and so are offsets"
    except SourceError as error:
        assert path.name in str(error) or str(path.parent) in str(error)  # noqa: PT017
    if path.name != "manifest.json" or json.loads(original) != _json(path):  # spaces say nothing
        with pytest.raises(SourceError, match=re.escape(str(cache))):
            verify_cache(cache)
    path.write_bytes(original)
    assert verify_cache(cache) == 15


def _json(path):
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


@quick
@given(data=st.data())
def test_a_plain_folder_that_is_damaged(tmp_path, data):
    folder = tmp_path / "plain"
    if not folder.exists():
        folder.mkdir()
        write_numpy_dir(folder)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    original = path.read_bytes()
    place = data.draw(st.integers(0, min(len(original), 140) - 1))  # of the header, most of all
    byte = data.draw(st.sampled_from([b"", b"\0", b"\xff", b"9", b"-", b"'", b"1e9"]) | st.binary(max_size=2))
    path.write_bytes(original[:place] + byte + original[place + 1 :])
    try:
        source = NumpyDir(folder, nonfinite="zero")
        [source[index] for index in range(len(source))]
    except SourceError as error:
        assert path.name in str(error) or str(folder) in str(error)  # noqa: PT017
    path.write_bytes(original)


def edit(folder, *at, to):
    path = folder / "manifest.json"
    path.write_text(json.dumps(changed(json.loads(path.read_text()), at, to)))


def save(name, array):
    return lambda folder: np.save(folder / "train" / name, array)


def in_columns(folder):
    """The same bytes, read column by column."""
    path = folder / "train" / "audio.npy"
    path.write_bytes(path.read_bytes().replace(b"'fortran_order': False", b"'fortran_order': True "))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (save("audio.npy", np.zeros((3, 4), "f4")), r"audio\.npy: has \d+ bytes, and the manifest says \d+"),
        (save("audio.npy", np.zeros((3, 2), "f8")), r"audio\.npy: has \d+ bytes, and the manifest says \d+"),
        (save("audio.npy", np.zeros((3, 2), "i4")), r"audio\.npy: holds int32 of .*manifest says float32 of the shape"),
        (save("audio.npy", np.zeros((3, 2), ">f4")), r"audio\.npy: holds >f4 of .*manifest says float32 of the shape"),
        (in_columns, r"audio\.npy: holds float32"),
        (save("targets.npy", np.zeros(3, "i4")), r"targets\.npy: holds int32 of the shape \[\] per row, and"),
        (save("audio.offsets.npy", np.array([0, 1, 2, 3])), r"audio\.offsets\.npy: is not what was written"),
        (save("ids.npy", np.frombuffer(b"\xffbcde", "u1")), r"ids\.npy: holds ids that are no UTF-8"),
        (lambda folder: (folder / "train" / "ids.offsets.npy").unlink(), r"ids\.offsets\.npy: no such file, and the"),
        (
            lambda folder: (folder / "text.vocabulary.json").write_text('{\n "oh": 3,\n "god": 2\n}\n'),
            r"text\.vocabulary\.json: is not what was written",
        ),
        (lambda folder: edit(folder, "splits", "train", "samples", to=99), r"train: has 3 samples .*says 99"),
        (
            lambda folder: edit(folder, "splits", "train", "lengths", "audio", "max", to=1),
            r"up to \{'text': 3, 'audio': 1",
        ),
        (
            lambda folder: edit(folder, "splits", "train", "padded_to", to={"text": 2, "audio": 9}),
            r"manifest\.json: splits\.train\.padded_to\.text is 2, and a sample has 3 positions",
        ),
        (
            lambda folder: edit(folder, "modalities", to={"../../elsewhere/s": {"dtype": "f", "feature_shape": []}}),
            r"manifest\.json: modalities has the name '\.\./\.\./elsewhere/s'; it names a file",
        ),
        (
            lambda folder: edit(folder, "modalities", to={"/etc/x": {"dtype": "f", "feature_shape": []}}),
            r"modalities has the name '/etc/x'; it names a file",
        ),
        (
            lambda folder: edit(folder, "splits", to={"../elsewhere": {}}),
            r"splits has the name '\.\./elsewhere'; it names",
        ),
        (lambda folder: edit(folder, "standardized", "audio", "std", to=[1.0, 0.0]), r"audio\.std is not above 0"),
        (lambda folder: edit(folder, "sha256", to=...), r"manifest\.json: sha256 is None, not a SHA-256"),
        (
            lambda folder: edit(folder, "splits", "train", "rules", to=[[[]]]),
            r"splits\.train\.rules is \[\[\[\]\]\], not a dict",
        ),
    ],
)
def test_what_is_not_as_the_manifest_says(change, message, cache):
    change(cache)
    with pytest.raises(SourceError, match=message):
        NumpyDir(cache, "train")


def test_values_that_only_verifying_finds(cache):
    np.save(cache / "train" / "audio.npy", np.zeros((3, 2), np.float32))
    assert NumpyDir(cache, "train")[0]["audio"].tolist() == [[0, 0], [0, 0]]
    with pytest.raises(SourceError, match=r"train/audio\.npy: is not what was written .*; convert the corpus again"):
        verify_cache(cache)


def test_statistics_that_only_verifying_finds(cache):
    edit(cache, "standardized", "audio", "mean", to=[1.0, 2.0])
    NumpyDir(cache, "train")
    with pytest.raises(SourceError, match=r"manifest\.json: is not what was written"):
        verify_cache(cache)


@pytest.mark.parametrize("split", ["../elsewhere", "/tmp", "a/b", "", ".", 3])
def test_a_split_is_a_folder_of_the_cache(split, cache, tmp_path):
    write_numpy_dir(tmp_path)
    for folder in (cache, tmp_path):
        with pytest.raises(SourceError, match=f"got the split {split!r}; it names a file"):
            NumpyDir(folder, split)


def test_a_manifest_of_a_thousand_lists(cache):
    path = cache / "manifest.json"
    for depth in (500, 100_000):
        path.write_text(
            json.dumps({"format": "multimodal_pad flat cache", "version": 2, "source": 1})[:-2] + "[" * depth
        )
        with pytest.raises(SourceError, match=r"manifest\.json: damaged or cut short"):
            NumpyDir(cache, "train")


def test_a_cache_of_a_cache_of_a_cache(cache):
    deep = {}
    for _ in range(300):
        deep = {"kind": "x", "inputs": [], "converted_from": deep}
    edit(cache, "source", to=deep)
    with pytest.raises(SourceError, match=r"manifest\.json: "):
        NumpyDir(cache, "train")


def test_the_version_before_is_read_and_converted(tmp_path):
    names, samples = read_all(OLD)[0]
    assert names == ["train_a", "train_ć", "train_cc"]
    assert [sample["text"] for sample in samples] == [[2, 3, 1], [2], [2, 3]]
    assert [len(sample["audio"]) for sample in samples] == [2, 0, 1]
    assert [sample["targets"] for sample in samples] == [2, 0, 1]
    assert NumpyDir(OLD, "train").vocabularies == {"text": {"oh": 2, "god": 3}}
    with pytest.raises(
        SourceError, match=r"version 1, which has no SHA-256 .*: multimodal-pad convert numpy_dir .* OUT"
    ):
        verify_cache(OLD)
    convert({split: NumpyDir(OLD, split) for split in ("train", "test")}, tmp_path / "now")
    assert read_all(tmp_path / "now") == read_all(OLD)
    assert verify_cache(tmp_path / "now") == 15
    assert (
        NumpyDir(tmp_path / "now", "train").manifest["standardized"] == NumpyDir(OLD, "train").manifest["standardized"]
    )


def test_ids_that_the_manifest_says_nothing_of(tmp_path):
    convert({"train": [{"audio": np.ones((2, 1), np.float32)}]}, tmp_path / "out")
    np.save(tmp_path / "out" / "train" / "ids.npy", np.array(["a"]))
    with pytest.raises(SourceError, match=r"ids\.npy: is there, and the manifest says nothing of it"):
        NumpyDir(tmp_path / "out", "train")
