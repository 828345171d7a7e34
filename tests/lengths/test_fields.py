import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad.errors import LengthError, SourceError
from multimodal_pad.lengths.fields import LengthField, lengths_of
from multimodal_pad.lengths.files import read_lengths

NEMO = {"audio_filepath": "a.wav", "duration": 3.13, "text": "oh my god"}
LHOTSE = {
    "id": "cut-1",
    "start": 4.2,
    "duration": 3.13,
    "channel": 0,
    "supervisions": [{"text": "oh my", "duration": 1.0}, {"text": "god", "duration": 2.0}],
    "recording": {"num_samples": 50080, "sampling_rate": 16000},
    "type": "MonoCut",
}


@pytest.mark.parametrize(
    ("name", "record", "text"),
    [("train_manifest.json", NEMO, "text"), ("cuts.jsonl.gz", LHOTSE, "supervisions.text")],
)
def test_manifests_of_nemo_and_lhotse(tmp_path, name, record, text):
    line = (json.dumps(record) + "\n").encode() * 3
    (tmp_path / name).write_bytes(gzip.compress(line) if name.endswith(".gz") else line)
    fields = {"audio": "duration@50", "text": f"{text}:words", "letters": f"{text}:characters"}
    table = read_lengths(tmp_path / name, fields=fields)
    assert table.modalities == ("audio", "text", "letters")
    assert table.values.tolist() == [[156, 3, 8 if "." in text else 9]] * 3
    assert read_lengths(tmp_path / name, ["text"], fields=fields).values.tolist() == [[3]] * 3


def test_lengths_as_they_stand(tmp_path):
    path = tmp_path / "lengths.jsonl"
    path.write_text('{"text": 3, "audio": 40.0}\n{"audio": 0, "text": "5"}\n')
    assert read_lengths(path).values.tolist() == [[3, 40], [5, 0]]
    assert read_lengths(path, ["audio"]).values.tolist() == [[40], [0]]


def test_a_table_of_text_has_fields_too(tmp_path):
    path = tmp_path / "utterances.csv"
    path.write_text('name;words;seconds\na;"oh my; god";2.5\nb;;0\n')
    table = read_lengths(path, fields={"text": "words:words", "audio": "seconds@20"})
    assert table.values.tolist() == [[3, 50], [0, 0]]


@given(st.floats(0, 1e6), st.floats(1e-3, 1e3))
def test_what_lasts_has_a_position_at_least(seconds, rate):
    length = LengthField("duration", rate).length({"duration": seconds}, "")
    assert (length == 0) == (seconds == 0)
    assert abs(length - seconds * rate) <= 1


@pytest.mark.parametrize(
    ("record", "field", "message"),
    [
        ({"d": "three"}, "d@50", r"line 1, 'd': got 'three'; a duration is a number of seconds, 0 \(missing\) or more"),
        ({"d": -1.0}, "d@50", "got -1.0; a duration"),
        ({"d": float("nan")}, "d@50", "got nan; a duration"),
        ({"d": 1e300}, "d@50", r"got 1e\+300; a duration"),
        ({"d": 1e15}, "d@16000", r"got 10{15}\.0; at 16000\.0 positions per second, too many"),
        ({"d": 2}, "d@1e308", "got 2; .* too many"),
        ({"d": True}, "d", "got True; a length is a whole number"),
        ({"d": None}, "d", "got None; a length is a whole number"),
        ({"d": [1, 2]}, "d", r"got \[1, 2\]; a length is a whole number"),
        ({"d": "1_000"}, "d", "got '1_000'; a length is a whole number"),
        ({"d": 2.5}, "d", r"got 2\.5; .* seconds become one by a rate: d@50"),
        ({"d": 3}, "d:words", "got 3; words are those of text"),
        ({"d": ["a", 3]}, "d:characters", r"got \['a', 3\]; characters are those of text"),
        ({"e": 3}, "d", r"line 1: has no field 'd', only \['e'\]"),
    ],
)
def test_values_that_are_no_lengths(record, field, message):
    with pytest.raises(SourceError, match=message):
        lengths_of([("manifest.json, line 1", record)], {"audio": field})


@pytest.mark.parametrize("form", ["", "@50", "d@", "d@0", "d@-3", "d@x", "d@nan", "d:tokens", 3])
def test_forms_that_say_nothing(form):
    with pytest.raises(LengthError, match="give FIELD, FIELD@RATE"):
        LengthField.parse(form)


def test_fields_are_for_records(tmp_path):
    with pytest.raises(SourceError, match=r"a \.npz holds lengths as they are"):
        read_lengths(tmp_path / "l.npz", fields={"audio": "duration@50"})
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(SourceError, match=r"empty\.jsonl: .*no samples|empty\.jsonl: .*at least one"):
        read_lengths(tmp_path / "empty.jsonl", fields={"audio": "duration@50"})
