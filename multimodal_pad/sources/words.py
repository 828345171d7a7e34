"""Words and punctuation marks of a text, each in one spelling only."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_APOSTROPHES = "\u2018\u2019\u201b\u2032\u00b4\u02bc\uff07"
_QUOTES = "\u201c\u201d\u201e\u201f\u2033\uff02"
_INVISIBLE = [*range(0x09), *range(0x0E, 0x20), *range(0x7F, 0xA0), 0xAD, *range(0x200C, 0x2010), 0x2060, 0xFEFF]

_ASCII = {**dict.fromkeys(map(ord, _APOSTROPHES), "'"), **dict.fromkeys(map(ord, _QUOTES), '"')}


def _of_windows(code: int) -> str:
    """Return the character of a byte in cp1252, which some files hold as a control character."""
    found = bytes([code]).decode("cp1252", "ignore")
    return _ASCII.get(ord(found), found) if found else ""


_PLAIN = {**dict.fromkeys(_INVISIBLE, ""), **_ASCII, **{code: _of_windows(code) for code in range(0x80, 0xA0)}}
_CONTROL_CODES = re.compile("[\x80-\x9f]")
_WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")


def find_words(text: str) -> list[str]:
    r"""Return the words, one apostrophe within them included, and the punctuation marks of a text, in lower case.

    Words that read the same are spelt the same: curly apostrophes and quotes become straight, letters with accents
    single characters, and invisible characters, such as soft hyphens, are dropped. The control characters
    U+0080 to U+009F become the characters of these bytes in cp1252, the code page that they come from.

    >>> find_words("I\u2019m fine\u2026 I'm \u201cfine\u201d"), find_words("I\x92m fine\x85")
    (["i'm", 'fine', '…', "i'm", '"', 'fine', '"'], ["i'm", 'fine', '…'])
    """
    return _WORD.findall(unicodedata.normalize("NFC", text.translate(_PLAIN)).lower())


def has_control_codes(text: str) -> bool:
    r"""Return whether there are control characters that are bytes of cp1252.

    >>> has_control_codes("I\x92m"), has_control_codes("I\u2019m")
    (True, False)
    """
    return _CONTROL_CODES.search(text) is not None


UNKNOWN_ID = 1
"""The number of a word that is not in the vocabulary; 0 is padding."""


def number_words(utterances: Iterable[Sequence[str]], min_count: int = 1) -> dict[str, int]:
    """Make a vocabulary: words by falling frequency, ties in order of appearance, from 2 on.

    Args:
        utterances: the words of each.
        min_count: words that are rarer are left out.

    >>> number_words([["so", "very", "very", "good"], ["so"]], min_count=2)
    {'so': 2, 'very': 3}
    """
    counts = Counter(word for words in utterances for word in words)
    common = (word for word, count in counts.most_common() if count >= min_count)
    return {word: rank for rank, word in enumerate(common, start=UNKNOWN_ID + 1)}


def word_ids(words: Sequence[str], vocabulary: Mapping[str, int]) -> np.ndarray:
    """Return the numbers of words in a vocabulary, int32 ``(words,)``; those that are not in it are unknown.

    >>> word_ids(["very", "new"], {"so": 2, "very": 3}).tolist()
    [3, 1]
    """
    return np.array([vocabulary.get(word, UNKNOWN_ID) for word in words], np.int32)
