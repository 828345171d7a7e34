import csv
import io
import logging

import numpy as np
import pytest

from multimodal_pad import PaddingError
from multimodal_pad.errors import SourceError
from multimodal_pad.sources import Meld, convert
from multimodal_pad.sources.meld import EMOTIONS
from multimodal_pad.sources.words import UNKNOWN_ID

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"


def row(text="Hello there", emotion="joy", start="00:00:01,000", end="00:00:03,500", dialogue=0, utterance=0):
    return f'1,"{text}",Ross,{emotion},positive,{dialogue},{utterance},1,1,"{start}","{end}"'


@pytest.fixture
def folder(tmp_path):
    def write(header=HEADER, **splits):
        for name in ("train", "dev", "test"):
            path = tmp_path / f"{name}_sent_emo.csv"
            path.write_text("\n".join([header, *splits.get(name, [row()])]) + "\n", encoding="utf-8")
        return tmp_path

    return write


def test_tokens_lengths_and_labels(folder):
    data = folder(
        train=[
            row("It's. It\u2019s! It\x92s", "anger"),
            row("Hello, hello", end="1:00:01.25", start="01:00:00,000", utterance=1),
        ]
    )
    source = Meld(data)
    assert set(source.vocabulary) == {"it's", ".", "!", "hello", ","}
    assert min(source.vocabulary.values()) == 2
    assert source.lengths.modalities == ("text", "audio", "visual")
    assert source.lengths.values.tolist() == [[5, 50, 38], [3, 25, 19]]
    assert [EMOTIONS[t] for t in source.targets] == ["anger", "joy"]
    sample = source[1]
    assert sample["text"].dtype == np.int32
    assert sample["text"][0] == sample["text"][2]
    assert sample["audio"].shape == (25, 74)
    assert sample["visual"].shape == (19, 35)


def test_words_that_train_lacks_are_unknown(folder):
    source = Meld(folder(train=[row("known")], test=[row("known new")]), "test")
    assert source[0]["text"].tolist() == [2, UNKNOWN_ID]


def test_text_alone(folder):
    source = Meld(folder(), payload="none")
    assert source.lengths.modalities == ("text",)
    assert set(source[0]) == {"text", "targets"}


def test_faulty_times_are_left_out_and_reported(folder, caplog):
    rows = [row(), row(end="00:00:01,000", dialogue=7, utterance=3), row(end="00:05:00,000", dialogue=8)]
    with caplog.at_level(logging.WARNING):
        source = Meld(folder(train=rows))
    assert len(source) == 1
    assert [(r.line, r.utterance) for r in source.left_out] == [(3, "dia7_utt3"), (4, "dia8_utt0")]
    assert "dia8_utt0: lasts 299.0 s" in caplog.text


def test_the_payload_follows_from_the_seed(folder):
    data = folder()
    np.testing.assert_array_equal(Meld(data, seed=3)[0]["audio"], Meld(data, seed=3)[0]["audio"])
    assert (Meld(data, seed=3)[0]["audio"] != Meld(data, seed=4)[0]["audio"]).any()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), '2,"cut off",Ross'], "train_sent_emo.csv, line 3: got 3 values for the 11 columns"),
        ([row() + ",extra"], "line 2: got 12 values for the 11 columns"),
        ([row(end="9" * 400 + ":00:03,500")], "line 2: got EndTime '9999"),
        ([row(emotion="bored")], "line 2: got the emotion 'bored'; known are"),
        ([row(start="soon")], "line 2: got StartTime 'soon'; times are written h:mm:ss,ms"),
        ([row(end="00:99:00,000")], "line 2: got EndTime"),
        ([row(end="00:00:01,000")], "no usable row"),
        ([], "no usable row"),
        ([row(), '1,"open quote'], "line 3: not a row of a CSV file"),
        ([row(), row('a "quote" inside')], "line 3: not a row of a CSV file"),
    ],
)
def test_broken_tables_are_named_by_file_and_line(folder, rows, message):
    with pytest.raises(SourceError, match=message):
        Meld(folder(train=rows))


def test_a_broken_row_after_a_quoted_line_break_is_named_by_its_own_line(folder):
    with pytest.raises(SourceError, match="line 4: got the emotion"):
        Meld(folder(train=[row("two\nlines"), row(emotion="bored")]))


def test_an_utterance_twice(folder):
    with pytest.raises(SourceError, match=r"train_sent_emo\.csv: lines 2 and 4 are both called 'dia0_utt0'; give each"):
        Meld(folder(train=[row(), row(utterance=1), row()]))


def test_numbers_that_are_none(folder):
    with pytest.raises(SourceError, match=r"line 2: got the dialogue '\.\./x' and the utterance '0'; both are numbers"):
        Meld(folder(train=[row(dialogue="../x")]))


def test_rare_tokens_are_unknown(folder):
    data = folder(train=[row("often often rare")])
    assert Meld(data, min_count=2)[0]["text"].tolist() == [2, 2, UNKNOWN_ID]
    assert len(Meld(data, min_count=2).vocabulary) == 1


def features(data, name="audio", split="train", **arrays):
    place = data / name / split
    place.mkdir(parents=True, exist_ok=True)
    for utterance, array in arrays.items():
        np.save(place / f"{utterance}.npy", array)
    return {name: data / name}


def test_text_may_be_features_too(folder, tmp_path):
    data = folder()
    source = Meld(data, features=features(data, "text", dia0_utt0=np.ones((3, 8), np.float16)))
    assert source[0]["text"].shape == (3, 8)
    assert source[0]["text"].dtype == np.float32
    assert source.vocabularies == {}
    manifest = convert({"train": source}, tmp_path / "out")
    assert "vocabulary_size" not in manifest["modalities"]["text"]


def test_a_compressed_archive_that_is_damaged(folder):
    data = folder()
    given = features(data, dia0_utt0=np.ones((1, 2)))
    path = given["audio"] / "train" / "dia0_utt0.npy"
    path.unlink()
    np.savez_compressed(path.with_suffix(".npz"), audio=np.random.default_rng(0).random((300, 2)))
    archive = bytearray(path.with_suffix(".npz").read_bytes())
    archive[200:300] = bytes(100)
    path.with_suffix(".npz").write_bytes(archive)
    with pytest.raises(SourceError, match=r"dia0_utt0\.npz: damaged or cut short"):
        Meld(data, features=given)


def test_utterances_without_features_are_reported(folder, caplog):
    data = folder(train=[row(utterance=0), row(utterance=1)])
    with caplog.at_level(logging.WARNING):
        source = Meld(data, features=features(data, dia0_utt1=np.ones((3, 2))))
    assert source.lengths.modalities == ("text", "audio")
    assert source.lengths.values[:, 1].tolist() == [0, 3]
    assert source[0]["audio"].shape == (0, 2)
    assert "1 of 2 samples have no audio: dia0_utt0" in caplog.text
    assert source.rules["audio of"]["utterances without a file"] == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"train: holds none of dia0_utt0\.npy, dia0_utt0\.npz, dia0_utt0/ and so on"),
        (
            {"dia0_utt0": np.ones((3, 2)), "dia0_utt1": np.ones((3, 5))},
            r"dia0_utt1\.npy: holds \(3, 5\) of float64, and dia0_utt0\.npy \(3, 2\) of float64; give all",
        ),
        ({"dia0_utt0": np.array("text")}, r"dia0_utt0\.npy: holds shape \(\) of <U4; features are numbers"),
        ({"dia0_utt0": np.array([None])}, r"dia0_utt0\.npy: holds Python objects; features are numbers"),
    ],
)
def test_features_that_are_none(folder, arrays, message):
    data = folder(train=[row(utterance=0), row(utterance=1)])
    with pytest.raises(SourceError, match=message):
        Meld(data, features=features(data, **arrays))


def test_damaged_feature_files(folder, tmp_path):
    data = folder()
    given = features(data, dia0_utt0=np.ones((300, 2)))
    path = given["audio"] / "train" / "dia0_utt0.npy"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(SourceError, match=r"dia0_utt0\.npy: damaged or cut short .*of 772 bytes"):
        Meld(data, features=given)
    path.unlink()
    np.savez(path.with_suffix(".npz"), video=np.ones((3, 2)))
    with pytest.raises(SourceError, match=r"dia0_utt0\.npz: has no array 'audio', only \['video'\]"):
        Meld(data, features=given)
    path.with_suffix(".npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(SourceError, match=r"dia0_utt0\.npz: damaged or cut short"):
        Meld(data, features=given)
    with pytest.raises(
        SourceError, match=r"elsewhere/train: no such folder; features of 'audio' lie there, as dia0_utt0"
    ):
        Meld(data, features={"audio": tmp_path / "elsewhere"})


def test_a_missing_column(folder):
    with pytest.raises(SourceError, match=r"line 1: has no column \['Emotion'\], only"):
        Meld(folder(header=HEADER.replace("Emotion", "Mood")))


def test_missing_files(tmp_path):
    with pytest.raises(SourceError, match=r"train_sent_emo\.csv: no such file; give the folder"):
        Meld(tmp_path)


def test_not_utf8(folder):
    data = folder()
    (data / "dev_sent_emo.csv").write_bytes(HEADER.encode() + b"\n" + row().encode() + b"\n\xff\xfe\n")
    with pytest.raises(SourceError, match=r"dev_sent_emo\.csv, line 3: not UTF-8"):
        Meld(data, "dev")


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_as_spreadsheets_save_them(folder, separator, encoding):
    data = folder(train=[row("\u2018Hello, you\u2019", "anger"), row(utterance=1)])
    plain = Meld(data)
    path = data / "train_sent_emo.csv"
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator).writerows(line[1:] for line in rows)  # as MELD Dyadic, without numbers
    again = Meld(data)
    assert again.vocabulary == plain.vocabulary
    assert (again.ids, again.targets.tolist()) == (plain.ids, plain.targets.tolist())
    assert again.lengths.fingerprint == plain.lengths.fingerprint


def test_control_codes_of_an_older_table_change_nothing_but_the_record(folder):
    texts = ["It\u2019s \u201cfine\u201d\u2026", "no \u2014 caf\u00e9", "oh"]
    source = Meld(folder(train=[row(text, utterance=number) for number, text in enumerate(texts)]))
    older = [text.encode("cp1252").decode("latin-1") for text in texts]
    again = Meld(folder(train=[row(text, utterance=number) for number, text in enumerate(older)]))
    assert again.vocabulary == source.vocabulary
    assert again.lengths.fingerprint == source.lengths.fingerprint
    assert again.rules == {**source.rules, "utterances with control codes, read as cp1252": 2}


@pytest.mark.parametrize("options", [{"split": "valid"}, {"payload": "real"}])
def test_bad_options(folder, options):
    with pytest.raises(PaddingError, match=f"got {next(iter(options))}="):
        Meld(folder(), **options)


@pytest.mark.parametrize(
    ("split", "count", "left_out"),
    [
        ("train", 9988, ["dia309_utt0"]),
        ("dev", 1109, []),
        ("test", 2607, ["dia38_utt4", "dia155_utt3", "dia220_utt0"]),
    ],
)
def test_the_real_tables(meld_dir, split, count, left_out, tmp_path):
    source = Meld(meld_dir, split)
    assert sum("\u2019" in word for word in source.vocabulary) == 0
    assert len(source.vocabulary) == 5564
    for path in meld_dir.glob("*.csv"):  # as older versions of the tables are
        text = path.read_text(encoding="utf-8").translate(
            {ord(bytes([c]).decode("cp1252", "replace")): c for c in range(0x80, 0xA0)}
        )
        (tmp_path / path.name).write_text(text, encoding="utf-8", newline="")
    older = Meld(tmp_path, split)
    assert older.vocabulary == source.vocabulary
    assert older.lengths.fingerprint == source.lengths.fingerprint
    assert len(source) == count
    assert [row.utterance for row in source.left_out] == left_out
    assert len(source[0]["text"]) == source.lengths.values[0, 0]
