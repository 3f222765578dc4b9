"""What is not wanted is said in words that repeat nothing of it; what is missing is said before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from configs import ConfigError
from configs.screening import ContentConfig
from orchestration.inputs import unwanted
from orchestration.inputs.unwanted import Blocklist, Judges, OffensiveRate

PHRASES = "# what we sell ourselves\nnutmeg\n\nbath salts\nC++\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "blocked.txt").write_text(PHRASES)
    return tmp_path / "blocked.txt"


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("some NUTMEG, please", True),
        ("nutmegs", False),
        ("bath  \n salts", True),
        ("bath and salts", False),
        ("written in C++.", True),
        ("what we sell ourselves", False),
        ("", False),
    ],
)
def test_phrases_are_whole_words_in_any_case(text: str, held: bool, path: Path) -> None:
    reason = Blocklist.read(path, key="content.blocklist").reason(text)
    assert reason == ("it holds a phrase of the blocklist" if held else None)


def test_a_long_list_is_several_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwanted, "LINES_AT_ONCE", 2)
    held = Blocklist(["one", "two", "three", "four", "five"])
    assert [held.reason(word) is not None for word in ("five", "one", "six")] == [True, True, False]


@pytest.mark.parametrize("content", [b"", b"# nothing\n\n", b"\xff\xfe"])
def test_a_list_that_says_nothing_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"content\.blocklist=.*blocked\.txt"):
        Judges(ContentConfig(blocklist=path))
    path.unlink()
    with pytest.raises(ConfigError, match="name a UTF-8 file, a phrase a line"):
        Judges(ContentConfig(blocklist=path))


def test_words_are_rated_and_both_judges_are_asked(path: Path) -> None:
    pytest.importorskip("profanity_check")
    judges = Judges(ContentConfig(blocklist=path, offensive=0.9))
    assert judges.reason("You are a fucking idiot.") == "it is rated offensive (0.9 or more)"
    assert judges.reason("Nutmeg is lovely.") == "it holds a phrase of the blocklist"
    clean = ["What a lovely day, friend.", "How do I stop a process in Linux?", "Scunthorpe United lost.", " "]
    assert [judges.reason(text) for text in clean] == [None] * 4


def test_a_classifier_that_is_missing_is_one_line_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "profanity_check", None)
    with pytest.raises(ConfigError, match=r"install \"stillroom\[content\]\", or leave offensive out"):
        OffensiveRate(0.5)
