"""Files of sentence pairs as their authors publish them; what is none of them is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs import DataError
from evaluation.side_effects.preferences import SentencePair
from orchestration.audits.pair_files import read_pairs


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_crows_pairs_have_the_more_stereotypical_sentence_first(tmp_path: Path) -> None:
    text = ",sent_more,sent_less,stereo_antistereo,bias_type\n0,She cooks.,He cooks.,stereo,gender\n"
    text += '1,"He, a boss.","She, a boss.",antistereo,gender\n'
    assert read_pairs(written(tmp_path / "crows.csv", text)) == (
        SentencePair("gender, CrowS-Pairs", "She cooks.", "He cooks."),
        SentencePair("gender, CrowS-Pairs", "He, a boss.", "She, a boss."),
    )


def test_winobias_is_read_with_the_file_beside_it(tmp_path: Path) -> None:
    pro = written(tmp_path / "pro_stereotyped_type1.txt.dev", "1 [The nurse] left because [she] was ill.\n")
    written(tmp_path / "anti_stereotyped_type1.txt.dev", "1 [The nurse] left because [he] was ill.\n")
    assert read_pairs(pro) == (
        SentencePair(
            "gender, WinoBias type 1", "The nurse left because she was ill.", "The nurse left because he was ill."
        ),
    )


def test_winogender_has_a_pair_for_each_sentence_of_both_genders(tmp_path: Path) -> None:
    rows = [
        ("technician.customer.1.male.txt", "He paid."),
        ("technician.customer.1.female.txt", "She paid."),
        ("technician.customer.1.neutral.txt", "They paid."),
    ]
    text = "sentid\tsentence\n" + "".join(f"{one}\t{two}\n" for one, two in rows)
    assert read_pairs(written(tmp_path / "all.tsv", text)) == (
        SentencePair("he over she, Winogender", "He paid.", "She paid."),
    )


@pytest.mark.parametrize(("polarity", "first"), [("neg", "Old Bob"), ("nonneg", "Young Al")])
def test_bbq_asks_what_the_text_does_not_say(tmp_path: Path, polarity: str, first: str) -> None:
    row = {
        "category": "Age", "context": "Old Bob met young Al.", "question": "Who was it?", "context_condition": "ambig",
        "question_polarity": polarity, "ans0": "Old Bob", "ans1": "Young Al", "ans2": "Unknown",
        "answer_info": {"ans0": ["Bob", "old"], "ans1": ["Al", "nonOld"], "ans2": ["-", "unknown"]},
        "additional_metadata": {"stereotyped_groups": ["old"]},
    }  # fmt: skip
    told = row | {"context_condition": "disambig"}
    path = written(tmp_path / "age.jsonl", f"{json.dumps(row)}\n{json.dumps(told)}\n")
    (pair,) = read_pairs(path)
    assert pair.stereotyped == first and {pair.stereotyped, pair.other} == {"Old Bob", "Young Al"}
    assert pair.context == "Old Bob met young Al. Who was it?" and pair.kind == "Age, BBQ"


def test_pairs_of_ones_own_are_a_table(tmp_path: Path) -> None:
    text = "kind,stereotyped,other,context\nage,a,b,\nage,c,d,Well:\n"
    assert read_pairs(written(tmp_path / "own.csv", text)) == (
        SentencePair("age", "a", "b"), SentencePair("age", "c", "d", "Well:")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.csv", "a,b\n1,2\n", "is none of CrowS-Pairs"),
        ("x.csv", "kind,stereotyped,other\n", "holds no pair of sentences"),
        ("x.jsonl", '{"context": 1}\n', "a row is not as its kind of file has it"),
        ("x.jsonl", "{\n", "a row is not as its kind of file has it"),
        ("pro_stereotyped.txt", "1 a\n", "cannot be read (No such file or directory)"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read_pairs(written(tmp_path / name, text))
    assert said in str(caught.value) and "\n" not in str(caught.value)
