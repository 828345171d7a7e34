import gzip
import json

import pytest

from multimodal_pad.errors import SourceError
from multimodal_pad.json_lines import is_json_lines, read_json_lines, value_at

LINES = [{"id": "a", "duration": 1.5}, {"id": "ö", "supervisions": [{"text": "oh"}, {"text": "my"}]}]


def written(path, lines=LINES):
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["manifest.jsonl", "manifest.json", "cuts.jsonl.gz", "CUTS.JSONL.GZ"])
def test_lines_are_numbered_and_read(tmp_path, name):
    path = written(tmp_path / name) if name.islower() else written(tmp_path / "x.gz").rename(tmp_path / name)
    assert is_json_lines(path)
    assert list(read_json_lines(path)) == list(enumerate(LINES, start=1))


def test_empty_lines_and_a_byte_order_mark_are_passed_over(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": 1}\n\n  \r\n{"id": 2}')
    assert list(read_json_lines(path)) == [(1, {"id": 1}), (4, {"id": 2})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": 1}\n{"id": \n', r"m\.jsonl, line 2: not JSON"),
        (b'{"id": 1}\n[1]\n', r"m\.jsonl, line 2: holds a list; each line must be an object"),
        (b'{"id": "\xff"}\n', r"m\.jsonl, line 1: not UTF-8"),
        (b"[" * 200_000, r"m\.jsonl, line 1: not JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", r"m\.jsonl, line 1: not JSON"),
        (b" " * (2**24 + 1), r"m\.jsonl, line 1: has more than 16 MiB"),
    ],
)
def test_lines_that_are_no_objects(tmp_path, content, message):
    path = tmp_path / "m.jsonl"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        list(read_json_lines(path))


def test_a_packed_file_that_is_damaged_or_a_bomb(tmp_path):
    path = written(tmp_path / "cuts.jsonl.gz", LINES * 50)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"cuts\.jsonl\.gz: damaged or cut short"):
        list(read_json_lines(path))
    path.write_bytes(b"no archive")
    with pytest.raises(SourceError, match=r"cuts\.jsonl\.gz: damaged or cut short"):
        list(read_json_lines(path))
    path.write_bytes(gzip.compress((b'{"text": "' + bytes([65]) * 2**20 + b'"}\n') * 48, 1))
    with pytest.raises(SourceError, match=r"cuts\.jsonl\.gz, line \d+: would take .* bytes"):
        for _ in read_json_lines(path):
            pass


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="is a folder"):
        list(read_json_lines(tmp_path))


def test_fields_inside_of_fields():
    record = {"recording": {"duration": 2.0, "sources": [{"a": 1}, {"a": 2}]}, "a.b": 3, "list": [1]}
    assert value_at(record, "recording.duration", "x") == 2.0
    assert value_at(record, "recording.sources.a", "x") == [1, 2]
    assert value_at(record, "a.b", "x") == 3
    with pytest.raises(SourceError, match=r"x: has no field 'a', only \['recording', 'a\.b', 'list'\]"):
        value_at(record, "a", "x")
    with pytest.raises(SourceError, match=r"x: has no field 'rate' in 'recording', only \['duration', 'sources'\]"):
        value_at(record, "recording.rate", "x")
    with pytest.raises(SourceError, match=r"x: has no field 'c' in 'recording\.duration', only a float"):
        value_at(record, "recording.duration.c", "x")
    with pytest.raises(SourceError, match="x: has no field 'b'"):
        value_at(record, "list.b", "x")
