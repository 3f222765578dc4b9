"""Answers by their text in the tokens of another tokenizer, and a whole experiment with such a student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from other_tokenizers import other_model
from pipeline_builders import FakeRun, fake_run, go

from cache import CacheView, TeacherCache, TeacherRecord
from cache.keys import sequence_key
from configs import DataError
from orchestration.inputs.models import open_model
from orchestration.inputs.other_tokens import OtherTokens, tokens_of
from orchestration.inputs.teachers import Teacher, open_cache
from orchestration.pipeline.retokenising import retokenise
from student_train.feed.retokenised import Retokenised

EXPERIMENT = {
    "data": {"response_field": "response"},
    "generation": {"temperature": 0.0, "max_new_tokens": 20},
}


def run_of(root: Path, *stages: dict[str, Any]) -> FakeRun:
    """Gold answers, which a made-up teacher scores, for a student of another tokenizer."""
    root.mkdir(parents=True, exist_ok=True)
    for split, rows in {"train": 3, "dev": 2, "test": 2}.items():
        lines = (f'{{"prompt": "{split} {n}", "response": "the answer é is {n}"}}\n' for n in range(rows))
        (root / f"{split}.jsonl").write_text("".join(lines))
    path = root / "other"
    if not path.exists():
        other_model(path)
    data = {split: {"path": str(root / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    return fake_run(
        root,
        data={**data, **EXPERIMENT["data"], "max_prompt_tokens": 32},
        generation=EXPERIMENT["generation"],
        students={"small": {"init": {"model": {"path": str(path)}}, "stages": list(stages)}},
    )


def stage(objective: str, **more: Any) -> dict[str, Any]:
    source = {"sft": "gold", "seqkd": "teacher"}.get(objective, "gold")
    return {"objective": objective, "source": source, "steps": 2, "dtype": "float32"} | more


@pytest.fixture
def place(tmp_path: Path) -> tuple[Teacher, TeacherCache, OtherTokens]:
    run = run_of(tmp_path, stage("sft"))
    teacher = run.teacher()
    other = open_model(tmp_path / "other", label="other")
    tokens = tokens_of("small", other, config=run.config, teacher=teacher.files, prompts=run.prompts(teacher))
    return teacher, open_cache(run.config, teacher), tokens


def told(place: tuple[Teacher, TeacherCache, OtherTokens], answers: list[list[int]]) -> CacheView:
    """A view of answers of the teacher, in tokens, to the first prompt."""
    teacher, cache, tokens = place
    prompt = next(iter(tokens.prompts))
    records = []
    for answer in answers:
        ids = np.array([*prompt, *answer], np.int32)
        finish: Any = "stop" if answer and answer[-1] in teacher.files.stop_ids else "length"
        key = sequence_key(teacher.identity.digest(), ids, len(prompt))
        records.append(TeacherRecord(key, ids, len(prompt), finish, "decode"))
    cache.put(records, vocab=teacher.files.vocab)
    return cache.view([record.key for record in records], dataset="teacher-train", k=0)


def read(place: tuple[Teacher, TeacherCache, OtherTokens], view: CacheView, **settings: Any) -> Any:
    teacher, cache, tokens = place
    known: dict[str, Any] = {"stop_ids": teacher.files.stop_ids, "positions": 96} | settings
    return retokenise(view, cache=cache, tokens=tokens, **known)


def test_answers_go_by_their_text_and_end_as_the_students_do(place: tuple[Teacher, TeacherCache, OtherTokens]) -> None:
    teacher, _, tokens = place
    words = ["the answer is é 1", "a", ""]
    ids = [teacher.files.tokenizer.encode(text, add_special_tokens=False) for text in words]
    end = teacher.files.stop_ids[0]
    reading = read(place, told(place, [[*ids[0], end], ids[1], [end]]))
    texts: Retokenised = reading.texts
    assert len(texts) == 3 and reading.left_out == {}
    tokenizer = tokens.files.tokenizer
    for row, (text, ended) in enumerate(zip(words, (True, False, True), strict=True)):
        whole = texts.token_ids[texts.token_offsets[row] : texts.token_offsets[row + 1]]
        prompt, answer = np.split(whole, [texts.prompt_len[row]])
        assert tokenizer.decode(prompt) == "[user] train 0</s>[assistant] "
        assert tokenizer.decode(answer) == text + ("</s>" if ended else "")
        assert answer.tolist() == tokenizer.encode(text, add_special_tokens=False) + [tokens.end] * ended
    assert reading.coverage.texts == 3 and reading.coverage.total == len("".join(words).encode())


def test_answers_whose_text_does_not_survive_are_left_out_and_counted(
    place: tuple[Teacher, TeacherCache, OtherTokens],
) -> None:
    teacher = place[0]
    tokenizer, end = teacher.files.tokenizer, teacher.files.stop_ids[0]
    whole = tokenizer.encode("the answer", add_special_tokens=False)
    mark = tokenizer.convert_tokens_to_ids("<|user|>")
    cut = tokenizer.encode("é", add_special_tokens=False)[:1]
    view = told(place, [[*whole, end], [*whole, mark, end], [*whole, *cut], [*whole, *whole]])
    reading = read(place, view)
    assert reading.left_out == {"with a mark between turns, or broken off within a character": 2}
    assert len(reading.texts) == 2 and reading.coverage.lost == 2
    assert reading.texts.view.keys.tolist() == view.keys[[0, 3]].tolist()
    short = read(place, view, positions=int(reading.texts.sizes.lengths.min()))
    assert len(short.texts) == 1 and any("longer than the student's" in reason for reason in short.left_out)
    with pytest.raises(DataError, match="none of its 1 answers can be read by other"):
        read(place, told(place, [[mark]]))


def test_a_whole_experiment_with_another_tokenizer(tmp_path: Path) -> None:
    run = run_of(tmp_path, stage("sft"), stage("uld"), stage("span_likelihood"))
    report = go(run)
    assert report is not None and report.results.failures == ()
    assert run.compute.called.count("train sft") == run.compute.called.count("train uld") == 1
    for job in run.compute.jobs:
        assert job.retokenised and job.vocab == 281
        texts = Retokenised.load(job.train_view)
        assert len(texts) == 3 and Retokenised.load(job.dev_view or Path()).sizes.k == texts.view.k
    rows = {row.name: row for row in report.results.models}
    assert set(rows) == {"teacher", "untouched", "small"}
    # It answered in its own tokens and was compared by its text; nobody scored it at the teacher's.
    for name in ("untouched", "small"):
        assert len(rows[name].answers) == 2 and rows[name].failures == ()
        closeness = rows[name].closeness
        assert closeness is not None and "rouge_l" in closeness.columns and "forward_kl" not in closeness.columns
    assert not any(called.startswith("score") for called in run.compute.called)
    assert any("divergences, agreement and perplexity" in note for note in report.results.notes)
    assert "small has another tokenizer than the teacher and learns by text" in run.said
    assert "small reads 3 answers of gold-train in its own tokens" in run.said
    again = run_of(tmp_path, stage("sft"), stage("uld"), stage("span_likelihood"))
    assert go(again) is not None and not any(called.startswith("train") for called in again.compute.called)
