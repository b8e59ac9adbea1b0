"""Text that came from elsewhere, in a log."""

from __future__ import annotations

import unicodedata

import pytest

from procrastinate.model.text import printable

UNSAFE = ("Cc", "Zl", "Zp", "Cs")  # controls, separators of lines, surrogates
BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def unsafe_characters() -> list[str]:
    return [
        character
        for character in map(chr, range(0x110000))
        if unicodedata.category(character) in UNSAFE or unicodedata.bidirectional(character) in BIDI
    ]


def test_no_control_character_is_left_in_a_line() -> None:
    for character in unsafe_characters():
        shown = printable.line(f"a{character}b")
        assert shown.isprintable()
        assert shown.startswith("a\\")


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs"), (2_500, "2,500 jobs")]
)
def test_a_number_and_its_noun_agree(count: int, shown: str) -> None:
    assert printable.counted(count, "job") == shown


def test_a_block_keeps_its_lines_and_no_other_control_character() -> None:
    text = printable.block("one\n" + "".join(unsafe_characters()) + "two\n")

    assert text.startswith("  one\n  \\x00")
    assert [each for each in text if not each.isprintable()] == ["\n", "\t", "\n"]


def test_no_line_of_a_block_can_pass_for_a_line_of_the_log() -> None:
    forged = "2026-01-01 00:00:00 ERROR forged"

    assert printable.block(f"told\n{forged}\r{forged}\u2028{forged}").splitlines() == [
        "  told",
        f"  {forged}\\r{forged}\\u2028{forged}",
    ]


@pytest.mark.parametrize("text", ["plain", "Grüße, 東京\u3000タワー", "👩\u200d🔬", "", " a  b "])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable.line(text) == text
    assert printable.block(text, indent="") == text.rstrip()


def test_a_long_line_loses_its_middle() -> None:
    assert printable.line("a" * 100 + "b" * 100, limit=8) == "aa … … 192 characters cut … … bbbbbb"
