"""Task experiments in their order, with engines and worker groups that are fakes: what is asked, trained and kept."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from task_heads import save_tagger
from task_pipeline_builders import STAGE, TaskPlace, spoken_place, task_place

from cache import CacheView
from configs import ConfigError, ModelError
from orchestration.comparison.text_speed import Timed
from orchestration.pipeline.tasks import comparing
from orchestration.pipeline.tasks.comparison import compare_task_models
from orchestration.plan.hardware import HostMemory
from student_train.feed.examples import ExampleSet
from student_train.papers import Papers, TaughtUnder

PREPARE = {"objective": "hard_labels", "epochs": 1.0, "batch_size": 4}


def test_a_run_asks_the_teacher_once_and_trains_every_student_and_its_twin(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    ended = place.go("train")
    assert ended.students is not None and ended.teacher_tokens > 0
    # Six train texts, three to transfer on, two of dev; test is never asked about.
    assert place.called == ["check 2", "fill 11", "release"]
    assert [(job.stage.objective, job.stage.data) for job in place.workers.jobs] == [
        ("logit_mse", ("train", "transfer")),
        ("hard_labels", ("train",)),
    ]
    learned, gold = (ExampleSet.load(job.train_examples) for job in place.workers.jobs)
    assert learned.teacher is not None and gold.teacher is None
    assert (len(learned), len(gold)) == (9, 6)
    assert learned.gold.tolist() == [0, 1, 0, 1, 0, 1, -1, -1, -1]
    assert learned.teacher[:6].argmax(axis=1).tolist() == learned.gold[:6].tolist()
    assert list(ended.students.chains) == ["bag", "bag-gold"] and ended.students.twins == {"bag-gold": "bag"}
    twin = place.workers.jobs[1].stage
    assert twin.steps == 3 and twin.epochs is None
    assert sorted(path.stem for path in (place.run.directory / "views").glob("*.npz")) == ["dev", "train", "transfer"]


def test_a_second_run_asks_nobody_and_trains_nothing(tmp_path: Path) -> None:
    task_place(tmp_path).go("train")
    again = task_place(tmp_path)
    again.go("train")
    assert again.called == ["release"] and again.workers.jobs == []
    assert "nothing to ask: every signal is in the cache" in again.said
    assert again.said.count("reused: nothing that it depends on has changed") == 2


def test_another_student_pays_no_teacher_tokens(tmp_path: Path) -> None:
    task_place(tmp_path).go("train")
    place = task_place(tmp_path)
    place.values["students"]["lstm"] = {
        "start": {"kind": "recurrent", "hidden": 4, "embedding_size": 4},
        "stages": [STAGE],
    }
    place.go("train")
    assert place.called == ["release"]
    assert [job.stage.objective for job in place.workers.jobs] == ["logit_mse", "hard_labels"]


def test_a_prepared_teacher_is_trained_once_and_has_an_identity_of_its_own(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.values["teacher"] |= {"prepare": [PREPARE]}
    place.go("fill")
    assert [job.stage.objective for job in place.workers.jobs] == ["hard_labels"]
    assert place.workers.jobs[0].labels == ("good", "bad")
    assert len(place.tracker.of("child", "teacher prepared")) == 1
    again = task_place(tmp_path)
    again.values["teacher"] |= {"prepare": [PREPARE]}
    again.go("fill")
    assert again.workers.jobs == [] and again.called == ["release"]


def test_every_seed_is_a_training_of_its_own(tmp_path: Path) -> None:
    place = task_place(tmp_path, evaluation={"gold_baseline": False})
    place.values["students"]["bag"] |= {"seeds": 2}
    ended = place.go("train")
    assert ended.students is not None
    (chains,) = ended.students.chains.values()
    assert len({chain.digest for chain in chains}) == 2 and ended.students.twins == {}
    assert [job.stage.seed for job in place.workers.jobs] == [0, 1]
    assert place.workers.jobs[0].model_dir != place.workers.jobs[1].model_dir


def test_a_fill_alone_trains_nobody(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    ended = place.go("fill")
    assert ended.students is None and place.workers.jobs == []
    assert place.tracker.of("finish all") == [("FINISHED",)]


def test_augmented_texts_are_asked_about_too(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.values["data"] |= {
        "augment": {"more": {"kind": "rules", "same_part": 0.0, "mask": 0.0, "ngram": 1.0, "copies": 3}}
    }
    place.values["students"]["bag"]["stages"] = [STAGE | {"data": ["train", "more"]}]
    place.go("train")
    (checked, filled, _) = place.called
    assert checked == "check 2" and int(filled.split()[1]) > 8, "train, dev and more; nobody learns transfer"
    assert "more:" in place.said


def test_a_teacher_with_other_labels_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    (tmp_path / "moods.yaml").write_text((tmp_path / "moods.yaml").read_text().replace('"bad"', '"poor"'))
    for split in ("train", "dev", "test"):
        rows = (tmp_path / f"{split}.jsonl").read_text().replace('"bad"', '"poor"')
        (tmp_path / f"{split}.jsonl").write_text(rows)
    with pytest.raises(ModelError, match="has the labels good, bad, and task moods has good, poor"):
        place.go("fill")
    assert place.called == []


def test_what_does_not_fit_the_machine_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.values["runtime"] |= {"training": {"workers": 64}}
    with pytest.raises(
        ConfigError, match=r"runtime.training.workers=64 x cpus_per_worker=\S+ needs \d+ CPUs but there"
    ):
        place.go("fill")
    assert place.called == [] and place.workers.jobs == []


def test_memory_that_no_machine_has_is_refused_where_the_teacher_is_asked(tmp_path: Path) -> None:
    place = task_place(tmp_path)
    place.values["runtime"] |= {"training": {"workers": 1}}
    small = HostMemory(total_gib=3.4, free_gib=3.4)
    place.memory = small
    with pytest.raises(ConfigError, match="fill needs"):
        place.go("fill")
    assert place.called == []
    place.memory = None
    place.go("fill")
    again = task_place(tmp_path)
    again.memory = small
    again.values["runtime"] |= {"training": {"workers": 1}}
    again.go("train")
    assert again.called == ["release"]


def test_a_failure_closes_the_run_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = task_place(tmp_path)

    def break_down(*_: object, **__: object) -> None:
        raise ModelError("broken")

    monkeypatch.setattr(place.workers, "train", break_down)
    with pytest.raises(ModelError, match="broken"):
        place.go("train")
    assert place.tracker.of("finish all") == [("FAILED",)]


def test_a_language_model_is_asked_once_and_answers_dev_and_test_too(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="labels", stage={"objective": "logit_mse"})
    ended = place.go("train")
    # Six train texts, three to transfer on, two of dev and two of test, each with two labels.
    assert place.called == ["check 2", "fill 26", "release"]
    learned, gold = (ExampleSet.load(job.train_examples) for job in place.workers.jobs)
    assert learned.teacher is not None and gold.teacher is None
    assert learned.teacher.argmax(axis=1).tolist() == [0, 1, 0, 1, 0, 1, 1, 1, 1]
    assert ended.teacher_tokens > 0 and ended.students is not None
    assert "identity" in place.said and "26 new rows" in place.said


def test_a_second_experiment_over_the_same_texts_costs_no_teacher_token(tmp_path: Path) -> None:
    spoken_place(tmp_path, answers="labels", stage={"objective": "logit_mse"}).go("train")
    again = spoken_place(tmp_path, answers="labels", stage={"objective": "soft_labels"})
    again.go("train")
    assert again.called == ["release"] and "nothing to ask: every row is in the cache" in again.said
    assert [job.stage.objective for job in again.workers.jobs] == ["soft_labels"]


def test_students_of_a_written_answer_learn_its_label(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="text", stage={"objective": "hard_labels", "labels": "teacher"})
    place.speaks["says"] = lambda prompt: "who knows" if prompt.startswith("rome") else "bad"
    place.go("train")
    learned = ExampleSet.load(place.workers.jobs[0].train_examples)
    # Nothing could be read of what was said of two texts to transfer on.
    assert len(learned) == 8 - 1 and learned.teacher is not None and set(learned.teacher.argmax(axis=1)) == {1}
    assert "transfer: 2 of 3 answers of the teacher could not be read" in place.said


def test_a_language_model_stands_in_the_table_and_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untimed = partial(compare_task_models, timed=lambda models, texts, log: Timed({}, dict.fromkeys(models, "no time")))
    monkeypatch.setattr(comparing, "compare_task_models", untimed)
    place = spoken_place(tmp_path, answers="labels", stage={"objective": "logit_mse"})
    ended = place.go("eval")
    assert ended.report is not None
    teacher, *students = ended.report.results.models
    assert (teacher.name, teacher.serving, teacher.failures) == ("teacher", None, ())
    assert [example.predicted for example in teacher.tasks[0].examples] == [("good",), ("bad",)]
    assert "how fast it is at one text is not measured" in str(ended.report.results.notes)
    assert teacher.tasks[0].answered_by == "label likelihood per token" and teacher.dev[0].examples
    assert all(student.failures == ("speed: no time",) for student in students)


TAGGED = {
    "train": ["sun oslo", "rain", "rome sun", "oslo"],
    "dev": ["sun", "rome"],
    "test": ["rain oslo", "sun", "rain"],
}
WIDER = {"neighbours": {"before": 1, "after": 1}}


def tagged_place(root: Path, *, context: dict[str, Any] | None = WIDER, **values: Any) -> TaskPlace:
    """Sentences in order, whose teacher tags `oslo` and `rome`; nothing to transfer on."""
    place = task_place(root, data={}, **{"teacher_context": context} | values)
    for split, texts in TAGGED.items():
        rows = [{"tokens": text.split(), "tags": ["O"] * len(text.split())} for text in texts]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"tokens": "tokens", "tags": "tags"}
    place.change_task(kind="tagging", fields=fields, labels=["LOC"], template="{{ tokens }}")
    save_tagger(root / "teacher", labels=("O", "B-LOC", "I-LOC"))
    start = {"kind": "recurrent", "hidden": 4, "embedding_size": 4}
    stage = STAGE | {"objective": "soft_labels", "data": ["train"]}
    place.values["students"] = {"lstm": {"start": start, "stages": [stage]}}
    return place


def test_students_learn_of_their_own_words_what_a_teacher_says_that_sees_more(tmp_path: Path) -> None:
    place = tagged_place(tmp_path)
    ended = place.go("train")
    # Four train texts, the two of dev, which are one text with what stands around them, and three of test, which the
    # teacher answers with its context.
    assert place.called == ["check 2", "fill 8", "release"]
    learned, gold = (ExampleSet.load(job.train_examples) for job in place.workers.jobs)
    assert gold.teacher is None and learned.teacher is not None
    assert learned.token_ids.tolist() == gold.token_ids.tolist(), "the student reads its rows alone"
    words = [word for text in TAGGED["train"] for word in text.split()]
    said = ["LOC" if row.argmax() == 1 else "O" for row in learned.teacher]
    assert said == ["LOC" if word in ("oslo", "rome") else "O" for word in words]
    # What was asked is keyed by all that the teacher saw: the words between those of the neighbours.
    (view,) = (CacheView.load(path) for path in (place.run.directory / "views").glob("train.npz"))
    assert sorted(view.lengths.tolist()) == sorted(2 + count for count in (3, 5, 4, 3))
    assert (
        "beside each row the teacher sees the rows around it (1 before and 1 after)" in place.workers.jobs[0].combined
    )
    assert ended.students is not None


def test_a_second_run_asks_nothing_and_another_context_asks_anew(tmp_path: Path) -> None:
    first = tagged_place(tmp_path)
    first.go("train")
    again = tagged_place(tmp_path)
    again.go("train")
    assert again.called == ["release"] and again.workers.jobs == []
    other = tagged_place(tmp_path, context={"neighbours": {"before": 1}})
    other.go("train")
    # Of its nine texts five are among those that were asked about, whichever of their words were the row's own.
    assert other.called == ["check 2", "fill 4", "release"]
    # What its words were said to be is the same, as this teacher looks at a word alone: so is the student.
    assert other.workers.jobs == []


def test_without_a_context_test_is_not_asked_about(tmp_path: Path) -> None:
    place = tagged_place(tmp_path, context=None)
    place.go("fill")
    assert place.called == ["check 2", "fill 6", "release"]


def test_the_teacher_of_the_table_is_the_one_that_sees_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tagged_place(tmp_path)
    timed: list[str] = []

    def none(models: dict[str, Path], *_: object) -> Timed:
        timed.extend(models)
        return Timed({}, {})

    monkeypatch.setattr(comparing, "compare_task_models", partial(compare_task_models, timed=none))
    ended = place.go("eval")
    assert ended.report is not None
    results = ended.report.results
    (teacher,) = (row for row in results.models if row.role == "teacher")
    assert [one.predicted for one in teacher.tasks[0].examples] == [("1 2 LOC",), (), ()]
    assert timed == ["teacher", "lstm", "lstm-gold"]
    assert any(
        "answered with teacher_context; how fast it is was measured on the rows alone" in n for n in results.notes
    )
    assert any(note.startswith("beside each row the teacher sees the rows around it") for note in results.notes)


def test_a_prepared_teacher_is_tuned_with_the_context_that_it_has_later(tmp_path: Path) -> None:
    tuned = {}
    for name, context in (("wide", WIDER), ("alone", None)):
        place = tagged_place(tmp_path, context=context)
        place.values["teacher"] |= {"prepare": [PREPARE]}
        place.go("fill")
        (job,) = place.workers.jobs
        tuned[name] = job
    wide, alone = (ExampleSet.load(tuned[name].train_examples) for name in ("wide", "alone"))
    assert len(wide.token_ids) > len(alone.token_ids) and wide.gold.tolist() == alone.gold.tolist()
    assert tuned["wide"].output_dir != tuned["alone"].output_dir
    held = [ExampleSet.load(tuned[name].dev_examples) for name in ("wide", "alone")]
    assert len(held[0].token_ids) > len(held[1].token_ids), "it is chosen as it is asked"


def test_a_context_without_room_is_refused_before_a_teacher_is_tuned(tmp_path: Path) -> None:
    place = tagged_place(tmp_path)
    place.values["teacher"] |= {"prepare": [PREPARE], "max_tokens": 3}
    with pytest.raises(ConfigError, match=r"teacher.max_tokens=3 leaves no room for teacher_context"):
        place.go("fill")
    assert place.workers.jobs == [] and place.called == []


def test_several_teachers_see_the_same_context(tmp_path: Path) -> None:
    save_tagger(tmp_path / "other", labels=("O", "B-LOC", "I-LOC"))
    other = {"model": {"path": str(tmp_path / "other")}, "max_tokens": 16}
    place = tagged_place(tmp_path, teachers={"other": other}, combine={"kind": "mixture"})
    place.go("fill")
    assert place.called.count("fill 8") == 1, "two equal models are one teacher in the cache"
    assert place.called.count("release") == 2


def test_a_language_model_reads_what_stands_around_a_row_in_its_question(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="labels", stage={"objective": "soft_labels"})
    place.values["teacher_context"] = {"system_prompt": "Judge.", "neighbours": {"before": 1}}
    asked: list[str] = []
    place.speaks = {"likes": lambda prompt, more: asked.append(prompt) or -1.0}
    place.go("fill")
    assert "Judge.\n\nBefore:\nsun\n\nrain is" in asked and "Judge.\n\nsun is" in asked


def test_questions_that_are_too_long_with_their_context_are_named(tmp_path: Path) -> None:
    place = spoken_place(tmp_path, answers="labels", stage={"objective": "soft_labels"})
    place.values["teacher_context"] = {"system_prompt": "x" * 113}
    place.go("fill")
    assert "questions with teacher_context have up to" in place.said and "they are not asked" in place.said
    place = spoken_place(tmp_path, answers="labels", stage={"objective": "soft_labels"})
    place.values["teacher_context"] = {"system_prompt": "x" * 200}
    with pytest.raises(ConfigError, match=r"all questions with teacher_context have up to .*max_model_len=128"):
        place.go("fill")


def test_what_imported_rows_ask_is_said_and_goes_along_with_students(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owed = Papers(TaughtUnder(name="_imported1", label="big (imported rows)", licence="llama3.3"))
    monkeypatch.setattr("orchestration.inputs.imported_licences.papers_of_imported", lambda *_, **__: (owed,))
    place = task_place(tmp_path)
    report = place.go("eval").report
    assert place.workers.jobs and all(owed in job.papers for job in place.workers.jobs)
    terms = "big (imported rows) were bought under llama3.3, and so of every student"
    assert terms in " ".join(place.said.split())
    assert report is not None and terms in " ".join(report.results.provenance.licence_terms)


def test_texts_about_somebody_else_are_asked_about_and_learned(tmp_path: Path) -> None:
    place = task_place(tmp_path, data={"augment": {"swap": {"kind": "swap"}}})
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps({"text": "sun he", "label": "good"}) + "\n")
    place.values["students"]["bag"]["stages"] = [STAGE | {"data": ["train", "swap"]}]
    place.go("train")
    learned = ExampleSet.load(place.workers.jobs[0].train_examples)
    # Seven train texts, one of which is about somebody; that one once more.
    assert len(learned) == 8 and learned.gold.tolist()[-2:] == [0, 0]
    assert "swap: 1 texts made of 7, 6 dropped as copies or as empty" in place.said
