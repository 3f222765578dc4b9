"""Untouched students know all that they were made of, and every model is measured and served in its own dtype."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs import DistillConfig, DistillError
from configs.models import ModelSource
from configs.schema import ModelShape
from configs.stages import InitConfig, StageConfig
from orchestration.cache_tools.teacher_check import hash_teacher
from orchestration.cluster.planned_engine import engine_spec
from orchestration.inputs.models import materialise, open_model
from orchestration.inputs.preflight import require_servable
from orchestration.inputs.teachers import Teacher, identity_of
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline import assistants as stage_assistants
from orchestration.pipeline import rollout_maker as rollouts
from orchestration.pipeline.chain import Link, Student, chain
from orchestration.pipeline.compare import _scoring_job, student_candidates
from orchestration.pipeline.starts import Start, calibrated_start, prepare_start

SHAPE = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, mlp=48, vocab=300, tied_embeddings=True, max_positions=128)
KEEP = InitConfig(keep_layers=1)


def experiment(root: Path, **blocks: Any) -> DistillConfig:
    wanted = {
        "name": "test",
        "teacher": {"model": {"path": "teacher"}, "dtype": "bfloat16"},
        "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
        "students": {"kd": {"init": {"keep_layers": 1}, "stages": [{"objective": "kd", "steps": 10}]}},
        "runtime": {"models_root": str(root / "models")},
    }
    return DistillConfig.model_validate(wanted | blocks)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(ModelSource(random=SHAPE), models_root=tmp_path_factory.mktemp("models")).directory


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "teacher"))


def start_of(model: Path, root: Path, init: InitConfig = KEEP) -> Start:
    files = open_model(model, label="teacher")
    teacher = Teacher(files, identity_of(files, config=experiment(root), dtype="bfloat16"))
    return prepare_start(init, teacher=teacher, artifacts=Artifacts(root / "runs"), models_root=root / "models")


def mend(name: str, **changes: object) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        path = model / name
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(content | changes))

    return change


MENDS = [
    mend("config.json", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}),
    mend("generation_config.json", eos_token_id=[257, 258]),
    mend("tokenizer_config.json", model_max_length=99),
    lambda model: (model / "chat_template.jinja").write_text("{{ messages[0].content }}"),
]


@pytest.mark.parametrize("change", MENDS, ids=["rope", "stops", "tokenizer", "template"])
@pytest.mark.parametrize("kind", ["derived", "own model"])
def test_what_is_mended_in_a_model_makes_another_start(
    change: Callable[[Path], None], kind: str, model: Path, tmp_path: Path
) -> None:
    init = KEEP if kind == "derived" else InitConfig(model=ModelSource(path=model))
    before = start_of(model, tmp_path, init)
    assert start_of(model, tmp_path, init).digest == before.digest
    change(model)
    after = start_of(model, tmp_path, init)
    assert after.digest != before.digest
    written = json.loads((after.directory / "config.json").read_text())
    assert written["rope_parameters"] == json.loads((model / "config.json").read_text())["rope_parameters"]


def test_a_calibrated_start_knows_its_teachers_config_too(model: Path, tmp_path: Path) -> None:
    digests = []

    def start() -> str:
        files = open_model(model, label="teacher")
        teacher = Teacher(files, identity_of(files, config=experiment(tmp_path), dtype="bfloat16"))
        lesson: Any = SimpleNamespace(
            teacher=teacher, views={"teacher-train": SimpleNamespace(digest="v")}, paths={"teacher-train": tmp_path}
        )
        return calibrated_start(
            InitConfig(mlp_channels=16),
            lesson=lesson,
            cache_root=tmp_path / "cache",
            artifacts=Artifacts(tmp_path / "runs"),
            accelerator="cpu",
            log_dir=tmp_path,
            derive=lambda job: digests.append(shutil.copytree(model, job.out_dir)),
        ).digest

    first = start()
    assert start() == first and len(digests) == 1
    MENDS[0](model)
    assert start() != first and len(digests) == 2


def test_a_licence_that_is_put_right_trains_nothing_anew(model: Path, tmp_path: Path) -> None:
    before = start_of(model, tmp_path).digest
    (model / "LICENSE").write_text("Apache-2.0")
    (model / "config.json").write_text(json.dumps(json.loads((model / "config.json").read_text()), indent=8))
    assert start_of(model, tmp_path).digest == before


def trained(name: str, model: Path, *dtypes: str) -> Student:
    links = [
        Link(StageConfig.model_validate({"objective": "kd", "steps": 1, "dtype": dtype}), f"{name}{n}", model, model, model, "")
        for n, dtype in enumerate(dtypes)
    ]  # fmt: skip
    return Student(name, Start("start", model, SHAPE, "start"), tuple(links))


def test_a_student_is_measured_and_served_in_the_dtype_of_its_stage(made: Path, tmp_path: Path) -> None:
    config = experiment(tmp_path)
    run: Any = SimpleNamespace(config=config, device="cpu", logs=tmp_path)
    files = open_model(made, label="x")
    lesson: Any = SimpleNamespace(
        teacher=Teacher(files, identity_of(files, config=config, dtype="bfloat16")), paths={"teacher-test": tmp_path}
    )
    students = [
        trained("a", made, "bfloat16", "float32"),
        trained("b", made, "float32"),
        trained("c", made, "float32", "bfloat16"),
    ]
    wanted = student_candidates(run, students)
    dtypes = {each.name: each.identity.dtype for each in wanted}
    # The start is the same for all three; it is what is loaded for the first stage that counts.
    assert dtypes == {
        "untouched (a)": "bfloat16", "untouched (c)": "float32", "a": "float32", "b": "float32", "c": "bfloat16",
    }  # fmt: skip
    for each in wanted:
        assert _scoring_job(run, each, lesson=lesson).dtype == each.identity.dtype
        spec = engine_spec(
            config,
            files,
            each.identity,
            settings=config.runtime.student_engine,
            k=0,
            accelerator="cpu",
            log_dir=tmp_path,
        )
        assert (spec.dtype, spec.identity.dtype) == (each.identity.dtype, each.identity.dtype)


def test_an_assistant_teaches_in_the_dtype_that_it_was_trained_in(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def stop(config: object, teacher: Teacher) -> None:
        seen.append(teacher.identity.dtype)
        raise KeyboardInterrupt

    monkeypatch.setattr(stage_assistants, "open_cache", stop)
    run: Any = SimpleNamespace(config=experiment(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        stage_assistants.assistant_lesson(run, trained("a", made, "bfloat16", "float32"), prompts=Any)
    assert seen == ["float32"]


def test_the_memo_of_digests_holds_no_weights_of_a_rollout(made: Path, tmp_path: Path) -> None:
    config = experiment(tmp_path)
    stage = StageConfig.model_validate({"objective": "minillm", "rollout": {"count": 3}, "dtype": "float32"})
    loaded: list[Any] = []
    engine = SimpleNamespace(start=lambda: None, load=lambda directory, identity: loaded.append(identity))
    run: Any = SimpleNamespace(config=config, rollout_pools=lambda **_: (engine, engine))
    link: Any = SimpleNamespace(stage=stage, work_dir=tmp_path / "work", start_dir=made, origin="start")
    lesson: Any = SimpleNamespace(teacher=SimpleNamespace(files=open_model(made, label="t"), identity=None))
    prompts: Any = SimpleNamespace(splits={"train": [], "dev": []})
    maker = rollouts.RolloutMaker(run, link, lesson=lesson, prompts=prompts)
    for version in (1, 2):
        maker._exchange.publish(version, write=lambda folder: shutil.copytree(made, folder, dirs_exist_ok=True))
    for version in (0, 1, 2):
        maker._bring(version)
    assert [identity.dtype for identity in loaded] == ["float32"] * 3
    remembered = json.loads((tmp_path / "models" / "fingerprints.json").read_text())["files"]
    assert [Path(path).parent for path in remembered] == [made]


@pytest.mark.parametrize(
    ("change", "dtype", "said"),
    [
        (mend("config.json", vocab_size=200), "bfloat16", "its tokenizer has 261 tokens, its config.json 200"),
        (mend("config.json", architectures=None), "bfloat16", "names no architectures"),
        (mend("config.json", model_type="gemma2"), "float16", "teacher.dtype=float16 overflows in a gemma2 model"),
    ],
)
def test_a_teacher_that_its_engine_would_refuse_is_refused_before(
    change: Callable[[Path], None], dtype: str, said: str, model: Path, tmp_path: Path
) -> None:
    change(model)
    config = experiment(tmp_path, teacher={"model": {"path": "teacher"}, "dtype": dtype, "top_k": 8})
    with pytest.raises(DistillError, match=said):
        require_servable(config, teacher=open_model(model, label="m"))


def test_rows_of_the_matrix_that_are_no_tokens_are_part_of_a_student(made: Path, tmp_path: Path) -> None:
    def digest(rows: int) -> str:
        start = Start("start", made, SHAPE.model_copy(update={"vocab": rows}), "a start")
        view: Any = SimpleNamespace(digest="v")
        stage = StageConfig.model_validate({"objective": "kd", "steps": 1})
        views = {"teacher-train": view, "teacher-dev": view}
        return chain(
            "s", stages=[stage], plain=[None], start=start, views=views, vocab=261, artifacts=Artifacts(tmp_path)
        ).digest

    assert len({digest(261), digest(300)}) == 2


def test_hashing_a_teacher_anew_believes_nothing_that_is_remembered(model: Path, tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text('{"prompt": "x"}\n')
    runtime = {
        "models_root": str(tmp_path / "models"),
        "teacher_engine": {"max_model_len": 128},
        "student_engine": {"max_model_len": 128},
    }
    data = {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")} | {"max_prompt_tokens": 32}
    config = experiment(
        tmp_path, teacher={"model": {"path": "teacher"}}, data=data, generation={"max_new_tokens": 32}, runtime=runtime
    )
    before = hash_teacher(config, config_dir=tmp_path, progress=lambda *_: None)
    assert not before.differs
    memo = tmp_path / "models" / "fingerprints.json"
    stored = json.loads(memo.read_text())
    next(iter(stored["files"].values()))["tensors"]["model.norm.weight"] = "0" * 64
    memo.write_text(json.dumps(stored))
    after = hash_teacher(config, config_dir=tmp_path, progress=lambda *_: None)
    assert after.differs and after.read == before.read
    assert not hash_teacher(config, config_dir=tmp_path, progress=lambda *_: None).differs
