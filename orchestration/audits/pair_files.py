"""Pairs of sentences from files that a user has: CrowS-Pairs, WinoBias, Winogender, BBQ, or a plain CSV of pairs.

Which of them a file is, its columns or lines say; nothing is downloaded. Every pair has the sentence first that says
what people often say (`evaluation.side_effects.preferences`):

- CrowS-Pairs (Nangia et al. 2020): a CSV with `sent_more`, `sent_less`, `bias_type`;
- WinoBias (Zhao et al. 2018): a text with `pro_stereotyped` in its name; beside it lies one with `anti_stereotyped`;
- Winogender (Rudinger et al. 2018): a TSV with `sentid`, `sentence`; its first sentence is that with he;
- BBQ (Parrish et al. 2022): a JSONL of questions whose text does not answer them; the stereotyped group is the first;
- a CSV with `kind`, `stereotyped`, `other` and, if need be, `context`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs import DataError
from configs.regular_files import UnreadableFileError, read_regular
from evaluation.side_effects.preferences import SentencePair

MOST_BYTES = 2**28
"""No such file is larger."""

PRO, ANTI = "pro_stereotyped", "anti_stereotyped"

_NUMBERED = re.compile(r"^\s*\d+\s+")
_WINOGENDER = re.compile(r"(?P<pair>.+)\.(?P<gender>male|female)\.txt")


def read_pairs(path: Path) -> tuple[SentencePair, ...]:
    """The pairs of a file.

    Raises:
        DataError: it cannot be read, is none of these, or holds no pair.
    """
    try:
        found = tuple(_pairs(path))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"{path}: a row is not as its kind of file has it ({error}): correct or remove it") from error
    if not found:
        raise DataError(f"{path} holds no pair of sentences: name another file")
    return found


def _pairs(path: Path) -> Iterator[SentencePair]:
    text = _text(path)
    if path.name.endswith(".jsonl"):
        return _bbq(text)
    if PRO in path.name:
        return _winobias(text, _text(path.with_name(path.name.replace(PRO, ANTI))), kind=path.name)
    head, *_ = text.splitlines() or [""]
    rows = csv.DictReader(text.splitlines(), delimiter="\t" if "\t" in head else ",")
    columns = set(rows.fieldnames or ())
    if {"sent_more", "sent_less"} <= columns:
        return _crows(rows)
    if {"sentid", "sentence"} <= columns:
        return _winogender(list(rows))
    if {"kind", "stereotyped", "other"} <= columns:
        return (SentencePair(row["kind"], row["stereotyped"], row["other"], row.get("context") or "") for row in rows)
    raise DataError(
        f"{path} is none of CrowS-Pairs (.csv), WinoBias ({PRO}...txt), Winogender (.tsv), BBQ (.jsonl) or a "
        "CSV with kind, stereotyped, other: name such a file"
    )


def _crows(rows: csv.DictReader[str]) -> Iterator[SentencePair]:
    for row in rows:
        # The first is the more stereotypical one in either direction of `stereo_antistereo`, as in the published code.
        yield SentencePair(f"{row['bias_type']}, CrowS-Pairs", row["sent_more"], row["sent_less"])


def _winobias(pro: str, anti: str, *, kind: str) -> Iterator[SentencePair]:
    type_ = "type 2" if "type2" in kind else "type 1"
    for ours, theirs in zip(pro.splitlines(), anti.splitlines(), strict=True):
        if ours.strip():
            yield SentencePair(f"gender, WinoBias {type_}", _unmarked(ours), _unmarked(theirs))


def _unmarked(line: str) -> str:
    return re.sub(r"[\[\]]", "", _NUMBERED.sub("", line)).strip()


def _winogender(rows: Sequence[Mapping[str, str]]) -> Iterator[SentencePair]:
    by_pair: dict[str, dict[str, str]] = {}
    for row in rows:
        named = _WINOGENDER.fullmatch(row["sentid"])
        if named is not None:
            by_pair.setdefault(named["pair"], {})[named["gender"]] = row["sentence"]
    for both in by_pair.values():
        yield SentencePair("he over she, Winogender", both["male"], both["female"])


def _bbq(text: str) -> Iterator[SentencePair]:
    for line in text.splitlines():
        row: dict[str, Any] = json.loads(line)
        if row["context_condition"] != "ambig":
            continue
        groups = {str(group).lower() for group in row["additional_metadata"]["stereotyped_groups"]}
        answers = {name: str(row["answer_info"][name][1]).lower() for name in ("ans0", "ans1", "ans2")}
        known = [name for name, group in answers.items() if group != "unknown"]
        first = [name for name in known if answers[name] in groups]
        if len(known) != 2 or len(first) != 1:
            continue
        (other,) = (name for name in known if name != first[0])
        # A question about the contrary has the other group for its stereotyped answer.
        stereotyped, theirs = (first[0], other) if row["question_polarity"] == "neg" else (other, first[0])
        context = f"{row['context']} {row['question']}"
        yield SentencePair(f"{row['category']}, BBQ", row[stereotyped], row[theirs], context)


def _text(path: Path) -> str:
    try:
        return read_regular(path, at_most=MOST_BYTES, links="follow").decode("utf-8-sig")
    except UnreadableFileError as error:
        raise DataError(f"{error}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise DataError(f"{path} cannot be read ({reason}): name a file of pairs") from error
