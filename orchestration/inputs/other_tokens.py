"""A student whose tokenizer is not its teacher's: what it reads of the same rows, and how well the two go together.

Its prompts are rendered from the rows again, by its own chat template, and answers go by their text. What the teacher
believed can be compared wherever both tokenizers end a token; how much of the text that is is measured here, on what is
known before anything is asked.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Int32

from configs import ConfigError, DataError, ModelError
from configs.objectives import names_where
from configs.schema import DataConfig, DistillConfig
from configs.stages import StageConfig
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.own_prompts import OwnPrompts
from orchestration.inputs.prompt_splits import rendering
from orchestration.inputs.prompts import Prompt, PromptSet
from orchestration.inputs.spelling import Spelling, spelling_of
from orchestration.inputs.tokenizing import Ids
from student_train.losses.alignment import Coverage, common_chunks, coverage_of, vocabulary_map

MEASURED_TEXTS = 512
"""Texts of the train split on which two tokenizers are compared before anything is asked."""

GONE = "the row is not there any more"

LITTLE = 0.8
"""Of the text in chunks of one token on each side: below it what is learned token by token is worth a warning."""

TOO_LITTLE = 0.05
"""Below this next to nothing is compared token by token, and `seqkd` teaches the same for less."""

MOST_LOST = 0.5
"""More texts than this that do not come back from the student's tokenizer leave too little to learn."""


@dataclass(frozen=True, slots=True, eq=False)
class OtherTokens:
    """What is known of a student with a tokenizer of its own.

    `prompts` are its prompts by those of the teacher; `left_out` counts the rows that it has none for, by reason.
    `vocabulary` maps the teacher's ids to its own, `end` is the id that ends its answers. `coverage` is over texts of
    the train split: its gold answers, or its prompts where there are none.
    """

    files: ModelFiles
    teacher: Spelling
    student: Spelling
    vocabulary: Int32[np.ndarray, " V"]
    end: int
    prompts: Mapping[Ids, Ids]
    left_out: Mapping[str, int]
    coverage: Coverage

    def encode(self, text: str) -> list[int]:
        """A text in the student's tokens."""
        ids: list[int] = self.files.tokenizer.encode(text, add_special_tokens=False)
        return ids


def has_other_tokens(student: ModelFiles, teacher: ModelFiles) -> bool:
    """Whether the two mean something else by some id, or by how many there are."""
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    return bool(ours != theirs)


def require_across(name: str, stages: Sequence[StageConfig], *, student: ModelFiles, teacher: ModelFiles) -> None:
    """Refuse stages that need the teacher's tokens of a student that has others.

    Raises:
        ConfigError: naming the stage, both models and the cure.
    """
    ours, theirs = len(student.tokenizer), len(teacher.tokenizer)
    other = (
        f"student {student.label} has another vocabulary than teacher {teacher.label} ({ours:,} and {theirs:,} tokens)"
    )
    for number, stage in enumerate(stages):
        key = f"students.{name}.stages.{number}"
        if not stage.method.across:
            able = names_where(lambda each: each.across)
            raise ConfigError(
                f"{key}.objective={stage.objective} compares token by token, but {other}: set objective: {able}, "
                "choose a student of the teacher's family, or derive one with keep_layers"
            )
        for setting, given in (
            ("select=dev_kl", stage.select == "dev_kl"),
            ("source=plain", stage.source == "plain"),
            ("teacher=live", stage.teacher == "live"),
            ("views", stage.views is not None),
            ("features", bool(stage.features)),
        ):
            if given:
                raise ConfigError(
                    f"{key}.{setting} needs the teacher's tokens, but {other}: remove it, or choose a student of the "
                    "teacher's family"
                )


def tokens_of(
    name: str, student: ModelFiles, *, config: DistillConfig, teacher: ModelFiles, prompts: PromptSet
) -> OtherTokens:
    """What a student of an experiment reads that has another tokenizer than its teacher.

    Raises:
        ConfigError: one of its stages, or a student that it teaches, needs the teacher's tokens.
        DataError: its prompts cannot be rendered.
        ModelError: its tokenizer, or the teacher's, cannot be used for it.
    """
    require_across(name, config.students[name].stages, student=student, teacher=teacher)
    if config.teacher_context is not None:
        raise ConfigError(
            f"students.{name} has another tokenizer than teacher {teacher.label}, and teacher_context keeps response "
            "tokens as they are: remove teacher_context, or choose a student of the teacher's family"
        )
    taught = next((each for each, other in config.students.items() if other.teacher == name), None)
    if taught is not None:
        raise ConfigError(
            f"students.{taught}.teacher={name}: {name} has another vocabulary than teacher {teacher.label}, and only "
            "one with the teacher's can teach in its place: choose another teacher for it"
        )
    return read_other_tokens(name, student, teacher=teacher, prompts=prompts, data=config.data)


def tokens_in_words(
    name: str, tokens: OtherTokens, *, config: DistillConfig, teacher: ModelFiles
) -> tuple[list[str], list[str]]:
    """What a plan says of such a student, and what it warns of.

    Raises:
        DataError: too little of the text would be compared.
    """
    stages = config.students[name].stages
    warnings = judge_coverage(name, tokens.coverage, stages, student=tokens.files, teacher=teacher)
    if tokens.left_out:
        reason, count = next(iter(tokens.left_out.items()))
        warnings.append(
            f"students.{name}: {sum(tokens.left_out.values()):,} rows of train and dev are left out for it, {count:,} "
            f"of them because: {reason}"
        )
    said = (
        f"{name} has another tokenizer than the teacher and learns by text: {coverage_in_words(tokens.coverage)} "
        f"({min(MEASURED_TEXTS, tokens.coverage.texts):,} texts of train)"
    )
    return [said], warnings


def read_other_tokens(
    name: str, files: ModelFiles, *, teacher: ModelFiles, prompts: PromptSet, data: DataConfig
) -> OtherTokens:
    """Render a student's prompts, and hold its tokenizer against the teacher's.

    Raises:
        DataError: its chat template cannot be used, or a row of the test split cannot be put to it.
        ModelError: one of the tokenizers spells in a way that is not known, or has no token that ends an answer.
    """
    end = files.tokenizer.eos_token_id
    if end is None:
        raise ModelError(f"students.{name}: the tokenizer of {files.label} has no end-of-sequence token: add one")
    if files.shape.vocab < files.vocab:
        raise ModelError(
            f"students.{name}: {files.label} has {files.shape.vocab:,} embedding rows for its own {files.vocab:,} "
            "tokens: resize its embedding first"
        )
    theirs, ours = spelling_of(teacher), spelling_of(files)
    rendered, left_out = _prompts(name, files, prompts=prompts, data=data)
    return OtherTokens(
        files=files,
        teacher=theirs,
        student=ours,
        vocabulary=vocabulary_map(theirs.tokens, ours.tokens, ends=teacher.stop_ids, end=end),
        end=end,
        prompts=rendered,
        left_out=left_out,
        coverage=_coverage(files, teacher, ours, theirs, prompts=prompts),
    )


def coverage_in_words(coverage: Coverage) -> str:
    """What two tokenizers have in common of a text."""
    lost = f"; {coverage.lost:,} of {coverage.texts:,} texts do not come back from it" if coverage.lost else ""
    return (
        f"{coverage.single_share:.0%} of the text in tokens that both have, {coverage.chunked_share:.0%} between "
        f"common boundaries{lost}"
    )


def judge_coverage(
    name: str, coverage: Coverage, stages: Sequence[StageConfig], *, student: ModelFiles, teacher: ModelFiles
) -> list[str]:
    """What has to be said of how well two tokenizers go together, for these stages.

    Raises:
        DataError: too little would be compared, or be left to learn.
    """
    both = f"the tokenizers of {student.label} and of teacher {teacher.label}"
    if coverage.texts and coverage.lost > MOST_LOST * coverage.texts:
        raise DataError(
            f"students.{name}: {coverage.lost:,} of {coverage.texts:,} texts do not come back byte for byte from "
            f"{both}: choose a student whose tokenizer knows the characters of the data"
        )
    by_token = [stage.objective for stage in stages if stage.method.across and stage.method.needs_logprobs]
    share = coverage.single_share
    if not by_token or not coverage.total or share >= LITTLE:
        return []
    said = f"students.{name}: {both} have only {share:.0%} of the text in single tokens of both"
    if share < TOO_LITTLE:
        raise DataError(
            f"{said}, less than {TOO_LITTLE:.0%}: objective={by_token[0]} would compare next to nothing token by "
            "token; set objective: seqkd, or choose a student whose tokens are more like the teacher's"
        )
    return [
        f"{said}, less than {LITTLE:.0%}: {by_token[0]} learns the rest from whole stretches of text or not at all; "
        "seqkd, or a student whose tokens are more like the teacher's, may do better"
    ]


def covered(text: str, *, ours: Sequence[int], theirs: Sequence[int], spellings: tuple[Spelling, Spelling]) -> Coverage:
    """What two tokenisations of one text have in common; `spellings` are those of student and teacher."""
    ends = [spelling.ends(ids, text=text) for spelling, ids in zip(spellings, (ours, theirs), strict=True)]
    if ends[0] is None or ends[1] is None:
        return Coverage(texts=1, lost=1)
    size = len(text.encode("utf-8", "surrogatepass"))
    return coverage_of(common_chunks(ends[1], ends[0]), teacher_ends=ends[1], text_bytes=size)


def _coverage(
    student: ModelFiles, teacher: ModelFiles, ours: Spelling, theirs: Spelling, *, prompts: PromptSet
) -> Coverage:
    total = Coverage()
    for prompt in islice(prompts.splits["train"], MEASURED_TEXTS):
        text = prompt.text
        if prompt.gold_ids is not None:
            text = theirs.text([each for each in prompt.gold_ids if each not in teacher.stop_ids]) or text
        first, second = (each.tokenizer.encode(text, add_special_tokens=False) for each in (student, teacher))
        total += covered(text, ours=first, theirs=second, spellings=(ours, theirs))
    return total


def _prompts(
    name: str, files: ModelFiles, *, prompts: PromptSet, data: DataConfig
) -> tuple[OwnPrompts, dict[str, int]]:
    """The student's prompts by the teacher's, and why rows have none, counted."""
    left_out: Counter[str] = Counter()

    def pairs(rows_of: Callable[[str], Iterator[tuple[int, Ids | str]]]) -> Iterator[tuple[Ids, Ids]]:
        for split, rows in prompts.splits.items():
            for prompt, outcome in _side_by_side(rows, rows_of(split)):
                if not isinstance(outcome, str):
                    yield prompt.prompt_ids, outcome
                elif split == "test":
                    raise DataError(
                        f"students.{name} cannot be asked row {prompt.row} of data.test ({outcome}), and all models "
                        "are compared on the same rows: remove the row, raise data.max_prompt_tokens, or choose "
                        "another student"
                    )
                else:
                    left_out[outcome] += 1

    with rendering(data, tokenizer=files.tokenizer, whose=f"students.{name}") as rows_of:
        return OwnPrompts(pairs(rows_of)), dict(left_out)


def _side_by_side(
    prompts: Sequence[Prompt], rendered: Iterator[tuple[int, Ids | str]]
) -> Iterator[tuple[Prompt, Ids | str]]:
    """Each prompt with what became of its row; both are in the order of the file."""
    row, outcome = next(rendered, (sys.maxsize, GONE))
    for prompt in prompts:
        while row < prompt.row:
            row, outcome = next(rendered, (sys.maxsize, GONE))
        yield prompt, outcome if row == prompt.row else GONE
