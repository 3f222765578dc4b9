"""A whole experiment in its order, with engines and worker groups that are fakes: what is asked, kept and tracked."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from openai_server import KEY, Habits
from pipeline_builders import CLOSENESS, SHAPE, FakePool, FakeRun, experiment, fake_run, go
from remote_runs import KEY_ENV, remote, remote_experiment
from served_teachers import TOKEN_ENV, ServedTeacher, serving
from task_files import write_task

from cache import CacheView, TeacherCache, TeacherRecord
from configs import BudgetReached, ConfigError, DataError, DoorError, EngineError
from evaluation.closeness import measured
from orchestration.commands.plan import print_plan
from orchestration.comparison.numbers import closeness_numbers
from orchestration.comparison.report import read_results
from orchestration.inputs import asked_prompts
from orchestration.inputs.asked_prompts import read_prompts
from orchestration.inputs.teachers import open_teacher
from orchestration.pipeline.experiment import Until
from orchestration.tracking.store import sqlite_uri
from orchestration.tracking.tracker import Tracker
from student_train.papers import Papers, TaughtUnder


def test_a_run_asks_trains_and_compares(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    report = go(run)
    assert report is not None
    (teacher_pool, *others) = run.compute.pools
    # Seven prompts are asked once; the teacher's row takes the scores, a warm-up, and the answers.
    # Its speed follows: one prompt to warm up, then each batch for a token and for several, three times.
    answers = ["answer 2 score", "answer 2 write", "answer 2 write"]
    speed = ["answer 1 write", *(f"answer {batch} write" for batch in (1, 8, 32) for _ in range(6))]
    # Once before students learn, and once more with whatever is left before audits read models.
    assert teacher_pool.called == ["begin", "check 2", "fill 7", *answers, *speed, "release", "release"]
    assert run.compute.called == [
        "cluster", "cluster", "cluster", "train kd", "cluster", "score 2", "cluster", "student pool untouched", "student pool kd",
    ]  # fmt: skip
    # A student is as fast as it was before it learned.
    write = ["answer 2 write", "answer 2 write"]
    assert [pool.called[1:] for pool in others] == [[*write, *speed], write]
    assert {row.serving is not None for row in report.results.models} == {True}
    results = report.results
    assert [(row.name, row.role) for row in results.models] == [
        ("teacher", "teacher"), ("untouched", "untouched"), ("kd", "student"),
    ]  # fmt: skip
    # The live teacher is what the cache keeps of it.
    assert closeness_numbers(results.models[0])["forward_kl"] < 0.01
    assert closeness_numbers(results.models[2])["forward_kl"] == measured(CLOSENESS)["forward_kl"].value
    assert results.prompts == ("test 0", "test 1") and len(results.references) == 2
    assert all(0 < tokens <= 6 for tokens in results.reference_tokens)
    assert [stage.name for stage in results.cost.stages] == [
        "teacher", "prompts", "students", "teacher engine", "fill", "teacher answers", "train kd",
        "held-out scoring", "student answers", "between the stages",
    ]  # fmt: skip
    ran = {span.title: span.place for span in results.timeline}
    assert (ran["prompts"], ran["fill"], ran["train kd"], ran["student answers"]) == (
        "driver", "teacher", "workers", "student",
    )  # fmt: skip
    assert repr(read_results(run.settings.directory)) == repr(results)
    assert len(report.evidence) == 6 and report.missing == ()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How often engines had been told to begin when the prompts were read, run by run."""
    begun: list[int] = []
    found: list[int] = []

    def begin(pool: FakePool) -> None:
        pool.called.append("begin")
        begun.append(1)

    def reading(*args: Any, **kwargs: Any) -> Any:
        found.append(len(begun))
        return read_prompts(*args, **kwargs)

    monkeypatch.setattr(FakePool, "begin", begin)
    monkeypatch.setattr("orchestration.pipeline.reading.read_prompts", reading)
    yield found


def test_engines_begin_before_many_prompts_are_read_where_nothing_is_kept(
    tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_prompts, "LONG_BYTES", 20)
    run = fake_run(tmp_path)
    go(run, until="fill")
    assert seen == [1] and run.compute.pools[0].called[0] == "begin"
    # Everything is kept by now, and nothing begins.
    again = fake_run(tmp_path, name="again")
    go(again, until="fill")
    assert seen == [1, 2] and again.compute.pools[0].called == [] and again.compute.called == []
    # A row is missing, which is known when the rows are read.
    (tmp_path / "train.jsonl").write_text((tmp_path / "train.jsonl").read_text() + '{"prompt": "one more"}\n')
    more = fake_run(tmp_path, name="more")
    go(more, until="fill")
    assert seen == [1, 2, 2] and more.compute.pools[0].called == ["begin", "check 2", "fill 1"]


def test_few_prompts_are_read_before_anything_begins(tmp_path: Path, seen: list[int]) -> None:
    run = fake_run(tmp_path)
    (tmp_path / "dev.jsonl").write_text('{"prompt": "test 0"}\n')
    with pytest.raises(DataError, match="the same prompt"):
        go(run)
    assert seen == [0] and run.compute.called == []


def test_prompts_that_cannot_be_used_end_engines_that_began(
    tmp_path: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_prompts, "LONG_BYTES", 20)
    run = fake_run(tmp_path)
    (tmp_path / "dev.jsonl").write_text('{"prompt": "test 0"}\n')
    with pytest.raises(DataError, match="the same prompt"), closing(run.compute):
        go(run)
    assert seen == [1] and run.compute.pools[0].called == ["begin", "release"] and run.tracker.told == []


def test_engines_wait_for_their_stage_where_energy_is_limited(tmp_path: Path) -> None:
    run = fake_run(tmp_path, budgets={"max_kwh": 1.0})
    with pytest.raises(ConfigError, match="nothing here measures energy"):
        go(run, until="fill")
    assert "begin" not in run.compute.pools[0].called


@contextmanager
def served_run(root: Path, monkeypatch: pytest.MonkeyPatch, **blocks: Any) -> Iterator[tuple[FakeRun, ServedTeacher]]:
    """A run whose teacher is the same random one, behind a door."""
    root.mkdir(exist_ok=True)
    own = open_teacher(experiment(root))
    files, believes = own.files, {"vocab": own.files.vocab, "stop_ids": own.files.stop_ids, "max_model_len": 64}
    place = root / "door"
    place.mkdir(exist_ok=True)
    with serving(place, own.identity, vocab_sha256=files.vocab_sha256, **believes) as served:
        monkeypatch.setenv(TOKEN_ENV, served.token)
        serve = {"url": served.url, "token_env": TOKEN_ENV, "patience_s": 5.0}
        teacher = experiment(root).teacher.model_dump(mode="json") | {"serve": serve}
        yield fake_run(root, teacher=teacher, **blocks), served


def all_rows(run: FakeRun) -> dict[bytes, TeacherRecord]:
    """Everything that the cache of the run's teacher has, by its key."""
    cache = TeacherCache.open(run.config.runtime.cache_root, open_teacher(experiment(run.root)).identity, create=False)
    return {record.key: record for record in cache.get_many(cache.sample(1000, k=0, seed=0)) if record is not None}


def test_a_teacher_behind_a_door_ends_in_the_same_rows_students_and_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    own = fake_run(tmp_path / "own")
    wanted = go(own)
    with served_run(tmp_path / "far", monkeypatch) as (run, served):
        report = go(run)
        token = served.token
        # The comparison asks for what the door has by then.
        assert (served.desk.counts.asked, served.moods.questions) == (7, 4)
    assert report is not None and wanted is not None
    ours, theirs = all_rows(run), all_rows(own)
    assert ours.keys() == theirs.keys() and len(ours) == 7
    for key, record in ours.items():
        for name in TeacherRecord.__slots__:
            assert np.array_equal(getattr(record, name), getattr(theirs[key], name)), name
    (far_job,), (near_job,) = run.compute.jobs, own.compute.jobs
    # What rows are called in a cache is drawn by chance; everything else of what is learned is the same.
    learned, others = (CacheView.load(job.train_view) for job in (far_job, near_job))
    assert learned.keys.tobytes() == others.keys.tobytes() and learned.lengths.tolist() == others.lengths.tolist()
    # No engine of the teacher, and no cluster for it: the first need of one is the training's.
    assert run.compute.called[:2] == ["train kd", "cluster"]
    assert not any(call.startswith("check") for pool in run.compute.pools for call in pool.called)
    assert [row.name for row in report.results.models] == [row.name for row in wanted.results.models]
    (far, *_), (near, *_) = report.results.models, wanted.results.models
    # It answers from what it has kept by then, which is rounded as the cache here is.
    assert closeness_numbers(far) == pytest.approx(closeness_numbers(near), abs=0.01)
    assert far.serving is None and near.serving is not None and report.missing == ()
    assert "identity" in run.said and f"noise behind {served.url.removeprefix('http://')}" in run.said
    assert "about" not in run.said.split("teacher tokens")[1].splitlines()[0]
    # The token stands nowhere in what was written.
    written = b"".join(path.read_bytes() for path in run.root.rglob("*") if path.is_file())
    assert token.encode() not in written and b"served_by" in written


def test_rows_of_own_engines_and_of_a_door_are_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(fake_run(tmp_path), until="fill")
    with served_run(tmp_path, monkeypatch) as (run, served):
        go(run, until="fill")
        assert served.moods.questions == 0 and "Nothing to ask" in run.said
    other = tmp_path / "other"
    with served_run(other, monkeypatch) as (run, served):
        go(run, until="fill")
        assert served.moods.questions > 0
    own = fake_run(other)
    go(own, until="fill")
    assert own.compute.pools[0].called == []


def test_another_teacher_behind_the_door_ends_a_resumed_run_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served_run(tmp_path, monkeypatch) as (run, served):
        go(run, until="fill")
        note = run.settings.directory / "teachers.json"
        note.write_text(json.dumps({"teacher": "f" * 64}))
        before = served.moods.questions
        with pytest.raises(ConfigError, match="was begun with ffffffffffff"):
            go(run)
        assert served.moods.questions == before


def test_a_door_that_goes_away_ends_a_run_once_and_the_next_start_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served_run(tmp_path, monkeypatch) as (run, served):
        served.moods.spoil = lambda _: None
        config = run.config.teacher.model_dump(mode="json")
        config["serve"]["patience_s"] = 0.3
        hasty = fake_run(tmp_path, teacher=config)
        with pytest.raises(DoorError, match=r"^noise behind .* status 503$"):
            go(hasty)
        assert ("finish all", "FAILED") in hasty.tracker.told
        served.moods.spoil = None
        assert go(run) is not None


def plain_text(root: Path) -> dict[str, Any]:
    """Two texts to learn from and one that is held out, beside the prompts."""
    for name, said in (("text", ["a stillroom keeps what it distils", "two"]), ("held-out", ["not learned"])):
        (root / f"{name}.jsonl").write_text("".join(json.dumps({"text": each}) + "\n" for each in said))
    splits = {split: {"path": str(root / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    plain = {"train": {"path": str(root / "text.jsonl")}, "dev": {"path": str(root / "held-out.jsonl")}}
    return {**splits, "max_prompt_tokens": 32, "plain": plain | {"max_tokens": 16}}


def plain_students(*stages: dict[str, Any]) -> dict[str, Any]:
    course = {"source": "plain", "steps": 4, "dtype": "float32"}
    return {"s": {"init": {"keep_layers": 1}, "stages": [course | stage for stage in stages]}}


def test_plain_text_is_scored_once_or_its_teacher_reads_beside_the_student(tmp_path: Path) -> None:
    live = {"objective": "kd", "teacher": "live", "features": [{"kind": "cosine"}]}
    run = fake_run(tmp_path, data=plain_text(tmp_path), students=plain_students({"objective": "sft"}, live))
    assert go(run) is not None
    assert "windows of plain text: 1 dev, 4 train" in run.said
    # Windows are kept as text, and the two test prompts are answered: nobody is asked to score a window.
    assert run.compute.pools[0].called[:3] == ["begin", "check 2", "fill 2"]
    views = {path.stem for path in (run.settings.directory / "views").iterdir()}
    assert views == {"plain-train", "plain-dev", "teacher-test"}
    text, asked = run.compute.jobs
    assert text.taught is None and asked.taught is not None
    assert asked.taught.identity == asked.identity.digest() and asked.taught.dtype == "float32"
    assert asked.taught.sizes.widths == (16, 16, 16)
    cached = fake_run(tmp_path, data=plain_text(tmp_path), students=plain_students({"objective": "kd"}))
    assert go(cached) is not None
    # The test prompts are in the cache by now.
    assert cached.compute.pools[0].called[:3] == ["begin", "check 2", "fill 5"]
    (job,) = cached.compute.jobs
    assert job.taught is None and CacheView.load(job.train_view).k == 4


def test_plain_text_alone_needs_no_prompts_but_those_that_models_are_compared_on(tmp_path: Path) -> None:
    data = {key: value for key, value in plain_text(tmp_path).items() if key not in ("train", "dev")}
    run = fake_run(tmp_path, data=data, students=plain_students({"objective": "kd"}))
    report = go(run)
    assert report is not None and {model.name for model in report.results.models} >= {"s", "teacher"}
    assert "✓ prompts" in run.said and "2 test; windows of plain text: 1 dev, 4 train" in run.said
    views = {path.stem for path in (run.settings.directory / "views").iterdir()}
    assert views == {"plain-train", "plain-dev", "teacher-test"}


@pytest.mark.parametrize(
    ("stage", "model", "words"),
    [
        ({"objective": "kd", "teacher": "live"}, {"quantization": "awq"}, "teacher.quantization is awq"),
        ({"objective": "sft", "features": [{"kind": "hidden_mse", "layers": [[1, 9]]}]}, {}, "with layer 9 of the"),
    ],
)
def test_a_teacher_that_cannot_read_beside_a_student_ends_a_run_before_anything_is_asked(
    tmp_path: Path, stage: dict[str, Any], model: dict[str, Any], words: str
) -> None:
    base = experiment(tmp_path).teacher.model_dump()
    run = fake_run(tmp_path, data=plain_text(tmp_path), students=plain_students(stage), teacher=base | model)
    with pytest.raises(ConfigError, match=words):
        go(run)
    assert run.compute.called == [] and all(pool.called == [] for pool in run.compute.pools)


def test_every_model_answers_the_tasks_once(tmp_path: Path) -> None:
    write_task(tmp_path / "tasks", label_scoring={})
    tasks = {"tasks": ["tasks/task.yaml"]}
    run = fake_run(tmp_path, evaluation=tasks)
    report = go(run)
    assert report is not None
    assert [facts.name for facts in report.results.tasks] == ["moods"]
    for row in report.results.models:
        (scores,) = row.tasks
        assert (scores.task, scores.answered_by) == ("moods", "label likelihood per token")
        assert [each.gold for each in scores.examples] == [("good",), ("bad",), ("good",)]
    # Three rows with two labels each.
    assert all("answer 6 score" in pool.called for pool in run.compute.pools)
    again = fake_run(tmp_path, evaluation=tasks)
    second = go(again)
    assert second is not None and second.results.models[2].tasks == report.results.models[2].tasks
    assert again.compute.called == []


def test_the_tracker_hears_of_parent_children_and_ends(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    go(run)
    tracker = run.tracker
    assert [name for name, *_ in tracker.of("child")] == ["fill", "teacher", "kd", "untouched"]
    assert [name for name, *_ in tracker.of("finish")] == ["fill", "teacher", "untouched", "kd"]
    ((_, fill),) = tracker.of("final", "fill")
    assert fill["cache/hit_rate"] == 0.0 and fill["fill/teacher_tokens"] > 0 and fill["cache/bytes_per_token"] > 0
    assert tracker.of("artifact") == [("pipeline", name) for name in ("report.html", "report.md", "config.yaml")]
    ((_, note),) = tracker.of("note", "pipeline")
    assert note.startswith("**Ship ")
    assert {name for name, _ in tracker.of("model")} == {"teacher", "untouched", "kd"}
    assert tracker.told[-1] == ("finish all", "FINISHED")
    # The default store is made only when the run can begin.
    assert tracker.told[:2] == [("usable",), ("start", "fake-run", tracker.of("start")[0][1])]


def test_a_second_run_asks_and_trains_nothing(tmp_path: Path) -> None:
    go(fake_run(tmp_path))
    run = fake_run(tmp_path)
    report = go(run)
    assert report is not None and len(report.results.models) == 3
    assert run.compute.called == []
    assert [pool.called for pool in run.compute.pools] == [["release", "release"]]
    ((_, fill),) = run.tracker.of("final", "fill")
    assert fill["cache/hit_rate"] == 1.0
    assert [stage.name for stage in report.results.cost.stages] == [
        "teacher",
        "prompts",
        "students",
        "fill",
        "train kd",
        "between the stages",
    ]
    assert "nothing to ask: every row is in the cache" in run.said
    assert "reused: nothing that it depends on has changed" in run.said
    # Its curve can be compared in the new run as well.
    assert [(name, step) for _, name, _, step in run.tracker.of("point", "kd") if name == "dev/loss"] == [
        ("dev/loss", 0), ("dev/loss", 1), ("dev/loss", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("until", "called"), [("fill", ["cluster", "cluster"]), ("train", ["cluster", "cluster", "train kd"])]
)
def test_a_run_stops_where_it_is_told_to(until: Until, called: list[str], tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    assert go(run, until=until) is None
    assert run.compute.called == called
    assert "fill 7" in run.compute.pools[0].called and "answer 2 write" not in run.compute.pools[0].called
    assert run.tracker.told[-1] == ("finish all", "FINISHED")
    assert not (run.settings.directory / "report.json").exists()


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), "KILLED"), (BudgetReached("spent"), "KILLED"), (EngineError("died"), "FAILED")],
)
def test_how_a_run_ends_is_tracked(error: BaseException, status: str, tmp_path: Path) -> None:
    run = fake_run(tmp_path)

    def end(job: Any) -> None:
        raise error

    run.compute.on_train = end
    with pytest.raises(type(error)):
        go(run)
    assert run.tracker.told[-1] == ("finish all", status)


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "KILLED"), (EngineError("died"), "FAILED")])
def test_mlflow_tells_a_run_that_was_stopped_from_one_that_failed(
    error: BaseException, status: str, tmp_path: Path
) -> None:
    run, uri = fake_run(tmp_path), sqlite_uri(tmp_path / "mlflow.db")

    def end(job: Any) -> None:
        raise error

    run.compute.on_train = end
    with closing(Tracker(run.settings.directory, uri=uri)) as tracker:
        run.journal = replace(run.journal, tracker=tracker)
        with pytest.raises(type(error)):
            go(run)
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    ended = {run.info.run_name: run.info.status for run in runs}
    assert (ended.pop(run.settings.directory.name), ended.pop("kd")) == (status, status)
    assert set(ended.values()) == {"FINISHED"}  # the fill and the teacher's row were done


def test_what_was_bought_before_a_stop_is_not_bought_again(tmp_path: Path) -> None:
    run = fake_run(tmp_path)

    def stop(job: Any) -> None:
        raise KeyboardInterrupt

    run.compute.on_train = stop
    with pytest.raises(KeyboardInterrupt):
        go(run)
    again = fake_run(tmp_path)
    assert go(again) is not None
    assert set(again.compute.pools[0].called) == {"release"}
    assert "train kd" in again.compute.called


def test_a_budget_refuses_the_teachers_row(tmp_path: Path) -> None:
    go(fake_run(tmp_path), until="fill")
    run = fake_run(tmp_path, budgets={"max_teacher_tokens": 1})
    with pytest.raises(BudgetReached, match="the row teacher of the comparison"):
        go(run)
    assert run.tracker.told[-1] == ("finish all", "KILLED")


def test_data_that_change_on_the_way_stop_the_run_before_it_publishes(tmp_path: Path) -> None:
    run = fake_run(tmp_path)

    def change(job: Any) -> None:
        with (tmp_path / "test.jsonl").open("a") as rows:
            rows.write('{"prompt": "one more"}\n')

    run.compute.on_train = change
    with pytest.raises(
        ConfigError, match=r"^data\.test\.path: changed while the experiment was running: run it again$"
    ):
        go(run)
    assert not (run.settings.directory / "report.json").exists()
    assert run.tracker.told[-1] == ("finish all", "FAILED")


def test_what_does_not_fit_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    config = experiment(tmp_path)
    engine = config.runtime.teacher_engine.model_copy(update={"tensor_parallel": 4})
    run = FakeRun(
        tmp_path, config.model_copy(update={"runtime": config.runtime.model_copy(update={"teacher_engine": engine})})
    )
    with pytest.raises(ConfigError, match="tensor_parallel"):
        go(run)
    assert run.tracker.told == [] and not (tmp_path / "run_root" / "inits").exists()


@contextmanager
def remote_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, habits: dict[str, Any] | None = None, **changes: Any
) -> Iterator[tuple[FakeRun, Habits]]:
    """A run whose teacher answers behind a server of OpenAI's protocol; `changes` are of its block."""
    root.mkdir(exist_ok=True)
    blocks = {name: changes.pop(name) for name in ("students", "budgets", "data") if name in changes}
    with remote(root, monkeypatch, **habits or {}) as (server, block):
        block["openai"] |= changes.pop("openai", {})
        yield FakeRun(root, remote_experiment(root, block | changes, **blocks)), server


def test_a_server_of_somebody_elses_teaches_and_is_marked_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    price = {"openai": {"price": {"read": 100.0, "written": 1000.0}}}
    with remote_run(tmp_path, monkeypatch, **price) as (run, server):
        report = go(run)
        asked = len(server.asked)
    assert report is not None and asked > 7
    said = " ".join(run.said.split())
    # Who it is, what it gives and what it may cost is said before it is asked.
    assert "unverifiable) (noise behind 127.0.0.1" in said and "takes token ids, gives up to 20" in said
    assert "at 100 a million tokens read and 1000 written" in said
    results = report.results
    assert [row.name for row in results.models] == ["teacher", "untouched", "kd"] and not results.models[0].failures
    assert closeness_numbers(results.models[0])["forward_kl"] < 0.01
    assert "unverifiable" in results.provenance.teacher and "Nobody can hash its weights" in results.notes[0]
    # Seven prompts, the scores and answers of the comparison: at least what they read and wrote was paid.
    paid = run.journal.ledger.counts().paid
    assert results.cost.currency == "USD" and results.cost.paid == pytest.approx(paid) and paid > 0.01
    cache = Path(run.config.runtime.cache_root)
    manifests = [path.read_text() for path in cache.rglob("manifests/*.json")]
    assert manifests and all('"unverifiable"' in each for each in manifests)
    # The key stands nowhere in what was written or said.
    written = b"".join(path.read_bytes() for path in run.root.rglob("*") if path.is_file())
    assert KEY.encode() not in written and KEY not in run.said


def test_who_has_all_rows_needs_no_server_and_no_key_and_is_told_what_that_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    price = {"openai": {"price": {"read": 100.0, "written": 1000.0}}}
    with remote_run(tmp_path, monkeypatch, **price) as (run, _):
        assert go(run) is not None
    monkeypatch.delenv(KEY_ENV)
    # Another experiment, which bought none of the rows itself.
    again = FakeRun(tmp_path / "again", run.config)
    report = go(again)
    assert report is not None
    assert "is not asked" not in again.said and "gives up to" not in again.said
    print_plan(run.config, config_dir=tmp_path, assume_gpus=None, stream=(planned := io.StringIO()))
    cost = report.results.cost
    worth = f"What is cached would cost about {cost.saved:,.2f} USD to ask for again: {cost.saved_tokens:,} tokens."
    assert cost.currency == "USD" and cost.saved > 0.01
    assert worth in " ".join(again.said.split()) and worth in " ".join(planned.getvalue().split())


def test_texts_alone_teach_seqkd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of conversations that says nothing of what it believes."""
    students = {
        "seqkd": {
            "init": {"model": {"random": SHAPE.model_dump(), "seed": 1}},
            "stages": [{"objective": "seqkd", "steps": 4, "dtype": "float32"}],
        }
    }
    habits = {"chat_only": True, "most_logprobs": 0, "ascii": True}
    chat = {"habits": habits, "top_k": 0, "students": students}
    said = r"data\.template=chat renders conversations here, and noise behind .* set data\.template to raw"
    with remote_run(tmp_path, monkeypatch, **chat) as (run, server), pytest.raises(ConfigError, match=said):
        go(run)
    raw = {**run.config.data.model_dump(mode="json"), "template": "raw"}
    with remote_run(tmp_path, monkeypatch, **chat, data=raw) as (run, server):
        report = go(run)
        assert all("logprobs" not in each for each in server.asked[-5:])
    assert report is not None
    teacher, *others = report.results.models
    assert not teacher.failures and set(closeness_numbers(teacher)) == set(closeness_numbers(others[0]))
    assert "forward_kl" not in closeness_numbers(teacher) and "score" not in "".join(run.compute.called)
    (job,) = run.compute.jobs
    assert CacheView.load(job.train_view).k == 0


def test_a_budget_in_money_ends_a_fill_over_all_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    price = {"price": {"read": 0.0, "written": 1000.0}, "concurrency": 1}
    limited = {"openai": price, "budgets": {"max_teacher_money": 0.03}}
    with remote_run(tmp_path, monkeypatch, **limited) as (run, server):
        with pytest.raises(BudgetReached, match=r"of the budget of 0\.03 are spent"):
            go(run, until="fill")
        paid = run.journal.ledger.counts().paid
        assert 0.02 < paid <= 0.03
        bought = len(server.asked)
        with pytest.raises(BudgetReached, match=r"of the budget of 0\.03 are spent"):
            go(FakeRun(tmp_path, run.config), until="fill")
        # The short questions are asked again, and nothing that costs more than is left.
        assert run.journal.ledger.counts().paid == pytest.approx(paid) and len(server.asked) > bought


def test_what_imported_rows_ask_is_said_and_goes_along_with_students(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owed = Papers(TaughtUnder(name="_imported1", label="big (imported rows)", licence="llama3.3"))
    monkeypatch.setattr("orchestration.inputs.imported_licences.papers_of_imported", lambda *_, **__: (owed,))
    run = fake_run(tmp_path)
    report = go(run)
    assert run.compute.jobs and all(owed in job.papers for job in run.compute.jobs)
    terms = "big (imported rows) were bought under llama3.3, and so of every student"
    assert terms in " ".join(run.said.split())
    assert report is not None and terms in " ".join(report.results.provenance.licence_terms)
    assert terms in (run.settings.directory / "report.html").read_text()
