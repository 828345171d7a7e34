"""MELD's utterance tables: text as token ids, audio and visual lengths from the durations."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.lengths import TARGETS, LengthTable
from multimodal_pad.sources.synthetic import AUDIO_RATE, VISUAL_RATE, WIDTHS

Split = Literal["train", "dev", "test"]
Payload = Literal["synthetic", "none"]

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
UNKNOWN_ID = 1  # and 0 is what stands in the padding
MAX_SECONDS = 40.0
"""Longer than any scene's utterance: durations beyond it are faults of the time stamps."""

_COLUMNS = ("Utterance", "Emotion", "Dialogue_ID", "Utterance_ID", "StartTime", "EndTime")
_TOKEN = re.compile(r"\w+(?:['\u2019]\w+)?|[^\w\s]")
_TIME = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d)[,.](\d{1,3})")

logger = logging.getLogger(__name__)


class LeftOut(NamedTuple):
    """A row that was left out, and why."""

    file: str
    line: int
    utterance: str
    reason: str


class _Row(NamedTuple):
    line: int
    utterance: str
    tokens: list[str]
    emotion: int
    seconds: float


class Meld:
    """One split of MELD (Poria et al., ACL 2019) from ``{split}_sent_emo.csv``.

    - ``text``: token ids ``(length,)`` int32. Tokens are words and punctuation marks in lower case;
      the vocabulary is that of the train split, 0 is padding and 1 an unknown token.
    - ``audio`` and ``visual``: the tables hold no features, only times. Lengths are duration times
      20 Hz and 15 Hz, at least 1. With ``payload="synthetic"`` the features ``(length, 74)`` and
      ``(length, 35)`` are standard normal noise that carries no information; with ``"none"`` there is
      only text.
    - ``targets``: one of the seven :data:`EMOTIONS`, int32.

    Rows of no duration, or of more than 40 s, have faulty time stamps: they are left out, logged as
    a warning, and listed in :attr:`left_out`.

    Args:
        data_dir: the folder of the three tables.
        split: ``"train"``, ``"dev"`` or ``"test"``.
        payload: what stands for audio and visual.
        seed: of the payload.

    Attributes:
        lengths: the length table.
        targets: int32 ``(N,)``.
        vocabulary: token to id.
        left_out: the rows left out, by the rule above.

    Raises:
        PaddingError: an unknown split or payload.
        SourceError: a table is missing, is not UTF-8, lacks a column or rows, or has a broken row
            (named by file and line).
    """

    def __init__(
        self,
        data_dir: str | Path,
        split: Split = "train",
        *,
        payload: Payload = "synthetic",
        seed: int = 0,
    ) -> None:
        for name, value, allowed in (("split", split, Split), ("payload", payload, Payload)):
            if value not in get_args(allowed):
                raise PaddingError(f"got {name}={value!r}; choose one of {list(get_args(allowed))}")
        path, train = _table(data_dir, split), _table(data_dir, "train")
        rows, self.left_out = _split_off_faulty(path, list(_read(path)))
        train_rows = rows if split == "train" else _split_off_faulty(train, list(_read(train)))[0]
        for row in self.left_out:
            logger.warning("%s, line %d: left out %s: %s", row.file, row.line, row.utterance, row.reason)
        if not rows:
            raise SourceError(f"{path}: no usable row; it should hold the {split} utterances of MELD")
        self.vocabulary = _vocabulary(train_rows)
        self.targets = np.array([row.emotion for row in rows], np.int32)
        self._tokens = [
            np.array([self.vocabulary.get(token, UNKNOWN_ID) for token in row.tokens], np.int32) for row in rows
        ]
        self._seed = seed
        columns: dict[str, Any] = {"text": [len(tokens) for tokens in self._tokens]}
        if payload == "synthetic":
            seconds = np.array([row.seconds for row in rows])
            for name, rate in (("audio", AUDIO_RATE), ("visual", VISUAL_RATE)):
                columns[name] = np.maximum(1, np.rint(seconds * rate)).astype(np.int64)
        self.lengths = LengthTable.from_columns(columns)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        rng = np.random.default_rng([self._seed, index])
        sample: dict[str, Any] = {"text": self._tokens[index]}
        lengths = self.lengths.values[index].tolist()
        for name, length in zip(self.lengths.modalities[1:], lengths[1:], strict=True):
            sample[name] = rng.standard_normal((length, WIDTHS[name]), np.float32)
        return {**sample, TARGETS: self.targets[index]}


def _table(data_dir: str | Path, split: str) -> Path:
    path = Path(data_dir) / f"{split}_sent_emo.csv"
    if not path.is_file():
        raise SourceError(
            f"{path}: no such file; give the folder of MELD's train_sent_emo.csv, dev_sent_emo.csv and "
            "test_sent_emo.csv"
        )
    return path


def _read(path: Path) -> Iterator[_Row]:
    """The rows of a table, each checked; raises a SourceError that names file and line."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError(f"{path}, line {line}: not UTF-8; convert the file to UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        absent = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if absent:
            raise SourceError(f"{path}, line 1: no column {absent}; MELD's tables have {list(_COLUMNS)}")
        for record in reader:
            yield _parse(record, path, reader.line_num)
    except csv.Error as error:
        raise SourceError(
            f"{path}, line {reader.reader.line_num}: not a row of a CSV file: {error}; mend the row"
        ) from None


def _parse(record: dict[str, Any], path: Path, line: int) -> _Row:
    where = f"{path}, line {line}"
    if None in record or None in record.values():
        raise SourceError(f"{where}: more or fewer fields than the header has; mend or remove the row")
    emotion = record["Emotion"].strip().lower()
    if emotion not in EMOTIONS:
        raise SourceError(f"{where}: got the emotion {record['Emotion']!r}; known are {list(EMOTIONS)}")
    times = [_seconds(record[name], name, where) for name in ("StartTime", "EndTime")]
    utterance = f"dia{record['Dialogue_ID']}_utt{record['Utterance_ID']}"
    tokens = _TOKEN.findall(record["Utterance"].lower())
    return _Row(line, utterance, tokens, EMOTIONS.index(emotion), times[1] - times[0])


def _seconds(time: str, column: str, where: str) -> float:
    match = _TIME.fullmatch(time.strip())
    if match is None:
        raise SourceError(f"{where}: got {column} {time!r}; times are written h:mm:ss,ms")
    hours, minutes, seconds, fraction = match.groups()
    return 3600 * int(hours) + 60 * int(minutes) + int(seconds) + int(fraction.ljust(3, "0")) / 1000


def _split_off_faulty(path: Path, rows: list[_Row]) -> tuple[list[_Row], list[LeftOut]]:
    good, faulty = [], []
    for row in rows:
        if 0 < row.seconds <= MAX_SECONDS:
            good.append(row)
        else:
            reason = f"lasts {row.seconds:.1f} s, not more than 0 and at most {MAX_SECONDS:.0f} s"
            faulty.append(LeftOut(path.name, row.line, row.utterance, reason))
    return good, faulty


def _vocabulary(rows: list[_Row]) -> dict[str, int]:
    """Ids by falling frequency, ties in order of appearance; 0 and 1 are taken."""
    counts = Counter(token for row in rows for token in row.tokens)
    return {token: rank for rank, (token, _) in enumerate(counts.most_common(), start=UNKNOWN_ID + 1)}
