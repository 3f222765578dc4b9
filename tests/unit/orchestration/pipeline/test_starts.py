"""Untouched students know all that they were made of, and every model is measured and served in its own dtype."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs import DistillConfig
from configs.models import ModelSource
from configs.schema import ModelShape
from configs.starts import InitConfig
from orchestration.inputs.models import ModelFiles, materialise, open_model
from orchestration.inputs.other_tokens import OtherTokens
from orchestration.inputs.teachers import Teacher, identity_of
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.run import RunSettings
from orchestration.pipeline.starts import Start, calibrated_start, prepare_start
from orchestration.plan.hardware import Hardware

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

    def reads(model: ModelFiles) -> OtherTokens:
        raise AssertionError(f"{model.label} has the teacher's tokens")

    return prepare_start(
        init, teacher=teacher, artifacts=Artifacts(root / "runs"), models_root=root / "models", reads=reads
    )


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
            settings=RunSettings(experiment(tmp_path), tmp_path, Hardware("cpu"), Artifacts(tmp_path / "runs")),
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
