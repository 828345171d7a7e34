"""Words of a text: one spelling each, however apostrophes, accents and control codes are written."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad.sources.words import find_words, has_control_codes

CP1252 = [bytes([code]).decode("cp1252") for code in range(0x20, 0x100) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)]


@given(st.text(st.sampled_from(CP1252)))
def test_control_codes_are_the_characters_of_cp1252(text):
    older = text.encode("cp1252").decode("latin-1")
    assert find_words(older) == find_words(text)
    assert has_control_codes(older) == any(0x80 <= ord(c) <= 0x9F for c in older)


@given(st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20)))
def test_plain_text_is_split_as_it_stands(text):
    assert find_words(text) == re.findall(r"\w+(?:'\w+)?|[^\w\s]", text.lower())


@given(st.text(st.characters(categories=["L", "P", "Zs"], max_codepoint=0x24F)))
def test_accents_and_invisible_characters_split_no_word(text):
    assert find_words(unicodedata.normalize("NFD", text)) == find_words(unicodedata.normalize("NFC", text))
    assert find_words("\u00ad".join(text)) == find_words(text)


@pytest.mark.parametrize("apostrophe", "'\u2019\u2018\u02bc\u00b4\uff07\x92\x91")
def test_every_apostrophe_is_one(apostrophe):
    assert find_words(f"I{apostrophe}m dancin{apostrophe}") == ["i'm", "dancin", "'"]


def test_control_codes_that_cp1252_lacks_are_gone():
    assert find_words("a\x81b \x8d c") == ["ab", "c"]
