import numpy as np
import pytest

from multimodal_pad import LengthTable
from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.files import read_lengths
from multimodal_pad.sources import Synthetic

TABLE = Synthetic(300).lengths


@pytest.fixture
def lengths_csv(tmp_path):
    path = tmp_path / "lengths.csv"
    np.savetxt(path, TABLE.values, fmt="%d", delimiter=",", header=",".join(TABLE.modalities), comments="")
    return path


def test_every_kind_of_file_gives_the_same_lengths(lengths_csv, tmp_path):
    columns = dict(zip(TABLE.modalities, TABLE.values.T, strict=True))
    np.save(tmp_path / "plain.npy", TABLE.values)
    fields = np.rec.fromarrays(list(columns.values()), names=list(columns))
    np.save(tmp_path / "fields.npy", fields)
    np.savez(tmp_path / "columns.npz", **columns)
    read = [
        read_lengths(lengths_csv),
        read_lengths(tmp_path / "plain.npy", TABLE.modalities),
        read_lengths(tmp_path / "fields.npy"),
        read_lengths(tmp_path / "columns.npz"),
    ]
    assert {table.fingerprint for table in read} == {TABLE.fingerprint}
    chosen = ["visual", "text"]
    for path in (lengths_csv, tmp_path / "fields.npy", tmp_path / "columns.npz"):
        assert read_lengths(path, chosen).fingerprint == TABLE.select(chosen).fingerprint


def test_columns_that_are_not_asked_for_may_hold_anything(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text('id,text,audio\n"a, b",3,\n"c",5,x\n')
    assert read_lengths(path, ["text"]).values.tolist() == [[3], [5]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", "text,audio\n3,4\n\n5,x\n", r"l\.csv, line 4, 'audio': got 'x'; a length is a whole number"),
        ("l.csv", "text,audio\n3,4\n5,-1\n", r"line 3, 'audio': got '-1'"),
        ("l.csv", "text,audio\n3,4.5\n", r"line 2, 'audio': got '4\.5'"),
        ("l.csv", "text,audio\nnan,4\n", r"line 2, 'text': got 'nan'"),
        ("l.csv", "text,audio\n3,\n", r"line 2, 'audio': got ''"),
        ("l.csv", "text,audio\n3,4\n5\n", r"line 3: got 1 values for the 2 columns"),
        ("l.csv", "text,audio,visual\n3,4\n5,6,7\n", r"line 2: got 2 values for the 3 columns"),
        ("l.csv", "text,audio\n3,1,200\n", r"line 2: got 3 values for the 2 columns"),
        ("l.csv", "text;audio\n3;x\n", r"line 2, 'audio': got 'x'"),
        ("l.csv", "text,text\n3,4\n", "the first line must name the columns, each once"),
        ("l.csv", "", "the first line must name the columns"),
        ("l.csv", "text\n", "no samples"),
        ("l.csv", "3,4\n5,6\n", r"the first line must name the columns, each once; got \['3', '4'\]"),
        ("l.csv", "text\n1e300\n", "sample 0, 'text': got the length 1e[+]300"),
        ("l.csv", 'text\n"' + "1" * 200_000 + '"\n', "l.csv: "),
        ("l.txt", "3 4", r"kind '\.txt'; lengths are read from \.csv, \.tsv, \.npy, \.npz, \.jsonl"),
        ("l.npy", "no array", "l.npy: "),
        ("l.npz", "no archive", "l.npz: "),
    ],
)
def test_files_that_hold_no_lengths(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SourceError, match=message):
        read_lengths(path)


def test_arrays_that_hold_no_lengths(tmp_path):
    np.save(tmp_path / "a.npy", TABLE.values)
    with pytest.raises(SourceError, match=r"got the modalities \[\]; it must be .*--modalities"):
        read_lengths(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(SourceError, match=r"b\.npy: "):
        read_lengths(tmp_path / "b.npy", ["text"])
    np.savez_compressed(tmp_path / "damaged.npz", text=np.random.default_rng(0).integers(0, 99, 9999))
    whole = (tmp_path / "damaged.npz").read_bytes()
    for damaged in (whole[:2000] + b"XXXX" * 200 + whole[2800:],):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with pytest.raises(SourceError, match=r"damaged\.npz[:,] "):
            read_lengths(tmp_path / "damaged.npz")
    np.savez(tmp_path / "damaged.npz", text=np.arange(999))
    whole = (tmp_path / "damaged.npz").read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:500] + b"XXXX" + whole[504:]):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with pytest.raises(SourceError, match=r"damaged\.npz[:,] "):
            read_lengths(tmp_path / "damaged.npz")
    np.savez(tmp_path / "c.npz", text=np.ones((2, 2)))
    with pytest.raises(SourceError, match="one length per sample"):
        read_lengths(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", text=np.array([1.5]))
    with pytest.raises(SourceError, match=r"d\.npz: sample 0, 'text': got the length 1\.5"):
        read_lengths(tmp_path / "d.npz")


def test_a_single_column_is_enough(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text("text\n3\n5\n9\n")
    assert read_lengths(path).fingerprint == LengthTable(("text",), np.array([[3], [5], [9]])).fingerprint


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_text_as_spreadsheets_save_it(tmp_path, suffix, separator, encoding):
    lines = [separator.join(map(str, row)) for row in [TABLE.modalities, *TABLE.values.tolist()]]
    path = tmp_path / f"l{suffix}"
    path.write_bytes("\r\n".join(lines).encode(encoding))
    assert read_lengths(path).fingerprint == TABLE.fingerprint
    assert read_lengths(path, ["visual"]).fingerprint == TABLE.select(["visual"]).fingerprint


def test_arrays_under_the_name_of_the_other_kind(tmp_path):
    np.save(tmp_path / "a.npy", TABLE.values)
    np.savez(tmp_path / "b.npz", **dict(zip(TABLE.modalities, TABLE.values.T, strict=True)))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    (tmp_path / "b.npz").rename(tmp_path / "b.npy")
    assert read_lengths(tmp_path / "a.npz", TABLE.modalities).fingerprint == TABLE.fingerprint
    assert read_lengths(tmp_path / "b.npy").fingerprint == TABLE.fingerprint


def test_one_axis_is_one_modality(tmp_path):
    np.save(tmp_path / "a.npy", [3, 0, 5])
    assert read_lengths(tmp_path / "a.npy", ["text"]).values.tolist() == [[3], [0], [5]]
    with pytest.raises(
        SourceError, match=r"a\.npy: holds an array of shape \(3,\), and got the modalities \['a', 'b'\]"
    ):
        read_lengths(tmp_path / "a.npy", ["a", "b"])


@pytest.mark.parametrize("kind", [".npy", ".npz"])
@pytest.mark.parametrize("damage", [b"", b"text", b"\x80\x04N.", b"\x93NUMPY\x01\x00", b"PK\x03\x04"])
def test_damaged_arrays_are_named_and_never_advised_to_be_loaded_unsafely(tmp_path, kind, damage):
    path = tmp_path / f"l{kind}"
    path.write_bytes(damage)
    with pytest.raises(
        SourceError, match=r"l\.np[yz]: damaged or cut short .*; write it again with np\.savez?"
    ) as error:
        read_lengths(path, ["text"])
    assert "unsafe" not in str(error.value)
    assert "pickle" not in str(error.value)
