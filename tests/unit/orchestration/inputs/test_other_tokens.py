"""Students of another tokenizer: what they read, which stages they can have, how well both go together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from other_tokenizers import byte_level, other_model, word_piece
from pipeline_builders import FakeRun, fake_run

from configs import ConfigError, DataError, ModelError
from configs.stages import StageConfig
from orchestration.inputs.models import ModelFiles, open_model
from orchestration.inputs.other_tokens import (
    OtherTokens,
    coverage_in_words,
    covered,
    has_other_tokens,
    judge_coverage,
    require_across,
    tokens_in_words,
    tokens_of,
)
from orchestration.inputs.spelling import spelling_of
from student_train.losses.alignment import UNMAPPED, Coverage

SEQKD = {"objective": "seqkd", "steps": 1}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return open_model(other_model(tmp_path_factory.mktemp("other") / "model"), label="other")


def run_of(root: Path, *stages: dict[str, Any], **more: Any) -> FakeRun:
    """A student of a model that lies elsewhere: only the experiment's blocks matter here."""
    init = {"model": {"path": str(root / "model")}}
    return fake_run(root, students={"small": {"init": init, "stages": list(stages or (SEQKD,))}, **more})


def read(root: Path, other: ModelFiles, *stages: dict[str, Any], **more: Any) -> OtherTokens:
    run = run_of(root, *stages, **more)
    teacher = run.teacher()
    return tokens_of("small", other, config=run.config, teacher=teacher.files, prompts=run.prompts(teacher))


def test_prompts_are_rendered_by_the_students_own_template(other: ModelFiles, tmp_path: Path) -> None:
    tokens = read(tmp_path, other)
    run = run_of(tmp_path)
    teacher = run.teacher()
    prompts = run.prompts(teacher)
    assert has_other_tokens(other, teacher.files) and not has_other_tokens(other, other)
    for split in ("train", "dev", "test"):
        for prompt in prompts.splits[split]:
            own = tokens.prompts[prompt.prompt_ids]
            assert other.tokenizer.decode(own) == f"[user] {prompt.text}</s>[assistant] "
    assert tokens.left_out == {} and tokens.end == other.tokenizer.eos_token_id


def test_tokens_meet_by_their_bytes_and_ends_by_their_role(other: ModelFiles, tmp_path: Path) -> None:
    tokens, teacher = read(tmp_path, other), run_of(tmp_path).teacher().files
    for text in ("a", ",", " "):
        (theirs, *_), (ours, *_) = (each.tokenizer.encode(text) for each in (teacher, other))
        assert tokens.vocabulary[theirs] == ours
    assert [int(tokens.vocabulary[each]) for each in teacher.stop_ids] == [tokens.end] * len(teacher.stop_ids)
    marks = set(teacher.tokenizer.all_special_ids) - set(teacher.stop_ids)
    assert {int(tokens.vocabulary[each]) for each in marks} == {UNMAPPED}


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (
            {"objective": "kd"},
            r"stages.0.objective=kd compares token by token.*set objective: sft or seqkd or uld or span",
        ),
        ({"objective": "seqkd", "select": "dev_kl"}, "select=dev_kl needs the teacher's tokens"),
        ({"objective": "sft", "source": "plain"}, "source=plain needs the teacher's tokens"),
    ],
)
def test_stages_that_need_the_teachers_tokens_are_refused(
    stage: dict[str, Any], said: str, other: ModelFiles, tmp_path: Path
) -> None:
    teacher = run_of(tmp_path).teacher().files
    wanted = StageConfig.model_validate({"steps": 1} | stage)
    with pytest.raises(ConfigError, match=rf"students.small.*{said}") as refused:
        require_across("small", [wanted], student=other, teacher=teacher)
    assert f"student other has another vocabulary than teacher {teacher.label}" in str(refused.value)


def test_a_student_of_other_tokens_teaches_nobody(other: ModelFiles, tmp_path: Path) -> None:
    below = {"init": {"keep_layers": 1}, "teacher": "small", "stages": [SEQKD]}
    with pytest.raises(ConfigError, match=r"students.below.teacher=small: small has another vocabulary"):
        read(tmp_path, other, below=below)


def test_rows_that_it_cannot_be_given_are_left_out_and_test_rows_refused(tmp_path: Path) -> None:
    # Its template writes more tokens than a prompt may have, for one row of train and then for one of test.
    for split, wrong in (("train", "train 1"), ("test", "test 1")):
        tokenizer = byte_level(merges=0)
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m.content }}{% if m.content == '"
            + wrong
            + "' %}{{ 'x' * 99 }}{% endif %}{% endfor %}"
        )
        model = open_model(other_model(tmp_path / split / "model", tokenizer), label="other")
        if split == "test":
            with pytest.raises(
                DataError, match=r"students.small cannot be asked row 1 of data.test \(105 prompt tokens"
            ):
                read(tmp_path / split, model)
        else:
            tokens = read(tmp_path / split, model)
            assert tokens.left_out == {"106 prompt tokens, more than data.max_prompt_tokens=32": 1}
            said, warnings = tokens_in_words(
                "small",
                tokens,
                config=run_of(tmp_path / split).config,
                teacher=run_of(tmp_path / split).teacher().files,
            )
            assert len(said) == 1 and "1 rows of train and dev are left out" in warnings[-1]


def test_a_student_without_a_template_is_named(tmp_path: Path) -> None:
    model = open_model(other_model(tmp_path / "model", word_piece()), label="other")
    with pytest.raises(DataError, match=r"students.small's tokenizer has no chat template: use alpaca or raw"):
        read(tmp_path, model)


def test_a_student_with_too_few_rows_is_refused(other: ModelFiles, tmp_path: Path) -> None:
    short = replace(other, shape=other.shape.model_copy(update={"vocab": 9}))
    with pytest.raises(ModelError, match=r"9 embedding rows for its own 281 tokens"):
        read(tmp_path, short)


def test_coverage_is_what_single_tokens_of_both_hold(other: ModelFiles, tmp_path: Path) -> None:
    teacher = run_of(tmp_path).teacher().files
    text = "train, é"
    theirs, ours = (each.tokenizer.encode(text, add_special_tokens=False) for each in (teacher, other))
    found = covered(text, ours=ours, theirs=theirs, spellings=(spelling_of(other), spelling_of(teacher)))
    # The teacher has a token a byte, so a single token of both is a single byte of the student's.
    single = sum(len(token or b"") == 1 for token in (spelling_of(other).tokens[each] for each in ours))
    assert found == Coverage(total=9, chunked=9, single=single, texts=1) and 0 < single < 9
    lost = covered(
        text, ours=[other.tokenizer.eos_token_id], theirs=theirs, spellings=(spelling_of(other), spelling_of(teacher))
    )
    assert lost == Coverage(texts=1, lost=1)
    assert coverage_in_words(Coverage(10, 10, 4, texts=3, lost=1)) == (
        "40% of the text in tokens that both have, 100% between common boundaries; 1 of 3 texts do not come back from it"
    )


@pytest.mark.parametrize("objective", ["seqkd", "uld", "span_likelihood"])
def test_coverage_is_judged_where_it_matters(objective: str, other: ModelFiles) -> None:
    stages = [StageConfig.model_validate({"objective": objective, "steps": 1})]

    def judged(coverage: Coverage) -> list[str]:
        return judge_coverage("small", coverage, stages, student=other, teacher=replace(other, label="big"))

    assert judged(Coverage(100, 100, 80, texts=2)) == []
    assert judged(Coverage()) == []
    with pytest.raises(DataError, match=r"students.small: 2 of 3 texts do not come back.*other and of teacher big"):
        judged(Coverage(10, 10, 10, texts=3, lost=2))
    if objective == "seqkd":
        assert judged(Coverage(100, 100, 1, texts=2)) == []
        return
    (warning,) = judged(Coverage(100, 100, 79, texts=2))
    assert "tokenizers of other and of teacher big have only 79% of the text in single tokens" in warning
    with pytest.raises(DataError, match=rf"only 4%.*less than 5%: objective={objective} would compare next to nothing"):
        judged(Coverage(100, 100, 4, texts=2))
