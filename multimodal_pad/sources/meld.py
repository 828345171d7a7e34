"""MELD's utterance tables: text as token ids; audio and visual from feature files, or lengths from the durations."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from multimodal_pad.delimited import DelimitedFile, Row
from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.samples import check_choice
from multimodal_pad.lengths.table import LengthTable
from multimodal_pad.sources.corpus import Corpus, LeftOut, NonFinite, Progress, check_distinct
from multimodal_pad.sources.feature_files import FeatureFiles, told_with
from multimodal_pad.sources.synthetic import AUDIO_RATE, VISUAL_RATE, WIDTHS
from multimodal_pad.sources.words import find_words, has_control_codes, number_words, word_ids

Split = Literal["train", "dev", "test"]
Payload = Literal["synthetic", "none"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
MAX_SECONDS = 40.0
"""Longest duration: no scene has a longer utterance, so longer ones have faulty time stamps."""

_COLUMNS = ("Utterance", "Emotion", "Dialogue_ID", "Utterance_ID", "StartTime", "EndTime")
_TIME = re.compile(r"(\d{1,6}):([0-5]?\d):([0-5]?\d)[,.](\d{1,3})")

logger = logging.getLogger(__name__)


class _Row(NamedTuple):
    line: int
    utterance: str
    text: str
    emotion: int
    seconds: float


class Meld(Corpus):
    """One split of MELD (Poria et al., ACL 2019) from ``{split}_sent_emo.csv``.

    - ``text``: token ids ``(length,)`` int32. Tokens are words and punctuation marks in lower case, with straight
      apostrophes and quotes, as :func:`~multimodal_pad.sources.words.find_words` finds them; the vocabulary is that of
      the train split, 0 is padding and 1 an unknown token.
    - ``audio`` and ``visual``: the tables hold no features, only times. With ``features``, they are what is in your
      files, and any other modalities too, text among them (in place of the token ids). Otherwise lengths are duration
      times 20 Hz and 15 Hz, at least 1; with ``payload="synthetic"`` the features ``(length, 74)`` and ``(length, 35)``
      are standard normal noise that carries no information; with ``"none"`` there is only text.
    - ``targets``: one of the seven :data:`EMOTIONS`, int32.
    - ``ids``: ``dia0_utt3`` and so on, of dialogue and utterance.

    Rows of no duration, or of more than 40 s, have faulty time stamps: they are left out, logged as
    a warning, and listed in :attr:`left_out`.

    Args:
        data_dir: the folder of the three tables, as :class:`~multimodal_pad.delimited.DelimitedFile` reads them.
        split: ``"train"``, ``"dev"`` or ``"test"``.
        payload: the stand-in for audio and visual; ignored where there are ``features``.
        features: a folder of feature files per modality, as
            :class:`~multimodal_pad.sources.feature_files.FeatureFiles` reads them. An utterance without a file
            lacks the modality (length 0), which is logged as a warning and counted.
        min_count: tokens that are rarer in the train split are unknown tokens.
        seed: of the payload.
        nonfinite: what to do with NaN and inf in feature files: ``"error"``, or ``"zero"`` puts 0 there and counts
            them.
        progress: progress callback while the corpus is opened.

    Attributes:
        vocabulary: token to id.

    Raises:
        PaddingError: an unknown split or payload.
        SourceError: a table is missing, is not UTF-8, lacks a column or rows, has a broken row or one utterance twice
            (named by file and line); or a feature file that is none.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with open(folder + "/train_sent_emo.csv", "w") as file:
    ...         print("Utterance,Emotion,Dialogue_ID,Utterance_ID,StartTime,EndTime", file=file)
    ...         print("Oh my god!,surprise,0,3,0:00:01.0,0:00:03.0", file=file)
    ...     corpus = Meld(folder, "train")
    >>> corpus.ids, corpus.lengths.maxima, EMOTIONS[corpus.targets[0]]
    (['dia0_utt3'], {'text': 4, 'audio': 40, 'visual': 30}, 'surprise')
    """

    kind = "meld"
    _path_options = (*Corpus._path_options, "features")

    def __init__(
        self,
        data_dir: str | Path,
        split: Split = "train",
        *,
        payload: Payload = "synthetic",
        features: Mapping[str, str | Path] | None = None,
        min_count: int = 1,
        seed: int = 0,
        nonfinite: NonFinite = "error",
        progress: Progress | None = None,
    ) -> None:
        check_choice("split", split, Split)
        check_choice("payload", payload, Payload)
        check_choice("nonfinite", nonfinite, NonFinite)
        path, train = _table(data_dir, split), _table(data_dir, "train")
        rows, left_out = _split_off_faulty(path, list(_read(path)))
        train_rows = rows if split == "train" else _split_off_faulty(train, list(_read(train)))[0]
        for row in left_out:
            logger.warning("%s, line %d: left out %s: %s", row.file, row.line, row.utterance, row.reason)
        if not rows:
            raise SourceError(f"{path}: no usable row; it should hold the {split} utterances of MELD")
        ids = [row.utterance for row in rows]
        check_distinct(ids, str(path), [row.line for row in rows])
        words = [find_words(row.text) for row in rows]
        train_words = words if split == "train" else [find_words(row.text) for row in train_rows]
        self.vocabulary = number_words(train_words, min_count)
        self._tokens = [word_ids(utterance, self.vocabulary) for utterance in words]
        self._seed, self._path = seed, path
        columns: dict[str, Any] = {"text": [len(tokens) for tokens in self._tokens]}
        rules: dict[str, Any] = {"min_count": min_count}
        if any(mapped := [has_control_codes(row.text) for row in rows]):
            rules["utterances with control codes, read as cp1252"] = sum(mapped)
        self._files: dict[str, FeatureFiles] = {}
        for name, folder in (features or {}).items():
            place = Path(folder, split)
            files = FeatureFiles.in_folder(place, name, ids, absent="missing", progress=told_with(progress, split))
            self._files[name] = files
            columns[name] = files.lengths
            rules[f"{name} of"] = {"folder": str(folder), "utterances without a file": files.absent}
        if features is None and payload == "synthetic":
            seconds = np.array([row.seconds for row in rows])
            for name, rate in (("audio", AUDIO_RATE), ("visual", VISUAL_RATE)):
                columns[name] = np.maximum(1, np.rint(seconds * rate)).astype(np.int64)
            rules["payload"] = "synthetic: standard normal noise, as long as the utterance lasts"
        super().__init__(
            split,
            lengths=LengthTable.from_columns(columns),
            targets=np.array([row.emotion for row in rows], np.int32),
            ids=ids,
            inputs=[path, *([] if split == "train" else [train]), *[p for f in self._files.values() for p in f.paths]],
            rules={**rules, "nonfinite": nonfinite},
            nonfinite=nonfinite,
            left_out=left_out,
            vocabularies={} if "text" in self._files else {"text": self.vocabulary},
        )

    @staticmethod
    def split_names(data_dir: str | Path) -> list[Split]:
        """Return the three splits, whose tables must be there."""
        return [split for split in SPLITS if _table(data_dir, split)]

    def _read(self, index: int) -> dict[str, np.ndarray]:
        sample: dict[str, np.ndarray] = {"text": self._tokens[index]}
        if self._files:
            return {**sample, **{name: files.read(index) for name, files in self._files.items()}}
        rng = np.random.default_rng([self._seed, index])
        lengths = self.lengths.values[index].tolist()
        for name, length in zip(self.lengths.modalities[1:], lengths[1:], strict=True):
            sample[name] = rng.standard_normal((length, WIDTHS[name]), np.float32)
        return sample

    def _place(self, index: int, modality: str) -> str:
        return str(self._files[modality].path(index))


def _table(data_dir: str | Path, split: str) -> Path:
    path = Path(data_dir) / f"{split}_sent_emo.csv"
    if not path.is_file():
        raise SourceError(
            f"{path}: no such file; give the folder of MELD's train_sent_emo.csv, dev_sent_emo.csv and "
            "test_sent_emo.csv"
        )
    return path


def _read(path: Path) -> Iterator[_Row]:
    """Yield the rows of a table, each checked; raises a SourceError that names file and line."""
    for row in DelimitedFile(path, _COLUMNS).rows():
        yield _parse(row, f"{path}, line {row.line}")


def _parse(row: Row, where: str) -> _Row:
    values = row.values
    emotion = values["Emotion"].strip().lower()
    if emotion not in EMOTIONS:
        raise SourceError(f"{where}: got the emotion {values['Emotion']!r}; known are {list(EMOTIONS)}")
    times = [_seconds(values[name], name, where) for name in ("StartTime", "EndTime")]
    numbers = [values[name].strip() for name in ("Dialogue_ID", "Utterance_ID")]
    if not all(number.isdecimal() for number in numbers):
        raise SourceError(
            f"{where}: got the dialogue {numbers[0]!r} and the utterance {numbers[1]!r}; both are numbers"
        )
    utterance = f"dia{numbers[0]}_utt{numbers[1]}"
    return _Row(row.line, utterance, values["Utterance"], EMOTIONS.index(emotion), times[1] - times[0])


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
