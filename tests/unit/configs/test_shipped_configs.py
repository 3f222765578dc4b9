"""Every shipped YAML file loads, resolves to its golden copy, and keeps the promises made about it.

The golden copies in `tests/unit/configs/golden/` hold every resolved value, so a changed default shows up in review. After a
change that is meant, write them anew and look at the difference:

    STILLROOM_WRITE_GOLDEN=1 python -m pytest tests/unit/configs/test_shipped_configs.py && git diff tests/unit/configs/golden
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from configs import DistillConfig, dump_config, load_config, load_experiment, load_task_file, resolve_data_path
from configs.licences import TABLE
from configs.models import ModelSource
from configs.task_experiment import TaskDistillConfig
from orchestration.inputs.shapes import shape_at_hand, student_shape
from orchestration.plan.hardware import Hardware
from orchestration.plan.placement import place_further_teacher, plan_placement

FOLDER = Path(__file__).resolve().parents[3] / "configs"
GOLDEN = Path(__file__).resolve().parent / "golden"
SHIPPED = [*sorted(set(FOLDER.glob("*.yaml")) - {TABLE}), *sorted(FOLDER.glob("recipes/*.yaml"))]

EXPERIMENTS = {path: load_experiment(path) for path in SHIPPED}
OF_TASKS = [path for path, config in EXPERIMENTS.items() if isinstance(config, TaskDistillConfig)]
OF_MODELS = [path for path in SHIPPED if path not in OF_TASKS]

everywhere = pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
of_models = pytest.mark.parametrize("path", OF_MODELS, ids=lambda path: path.stem)
of_tasks = pytest.mark.parametrize("path", OF_TASKS, ids=lambda path: path.stem)


def sources(config: DistillConfig) -> list[ModelSource]:
    inits = [student.init.model for student in config.students.values()]
    teachers = [each.model for each in config.every_teacher.values()]
    return [*teachers, *(model for model in inits if model is not None)]


def test_the_promised_files_are_shipped() -> None:
    promised = {"quickstart", "tiny", "intents", "reviews", "qwen2.5-7b-to-1.5b", "llama3.3-70b-to-8b"}
    assert {path.stem for path in SHIPPED} >= promised
    assert {path.stem for path in OF_TASKS} >= {"intents", "reviews"}


@everywhere
def test_it_resolves_to_its_golden_copy(path: Path) -> None:
    resolved = dump_config(load_experiment(path))
    golden = GOLDEN / path.relative_to(FOLDER)
    if os.environ.get("STILLROOM_WRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True, parents=True)
        golden.write_text(resolved, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == resolved


def test_no_golden_copy_is_left_over() -> None:
    kept = {path.relative_to(GOLDEN) for path in GOLDEN.rglob("*.yaml")}
    assert kept == {path.relative_to(FOLDER) for path in SHIPPED}


@everywhere
def test_its_golden_copy_is_the_same_experiment(path: Path) -> None:
    assert load_experiment(GOLDEN / path.relative_to(FOLDER)) == EXPERIMENTS[path]


@everywhere
def test_it_is_named_like_its_file(path: Path) -> None:
    assert EXPERIMENTS[path].name == path.stem


@everywhere
def test_a_comment_stands_before_every_block(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    blocks = [index for index, line in enumerate(lines) if line and line[0].isalpha() and not line.startswith("name:")]
    assert blocks
    assert [lines[index] for index in blocks if not lines[index - 1].startswith("#")] == []


@of_models
def test_the_data_files_it_names_exist(path: Path) -> None:
    data = load_config(path).data
    for split in data.splits.values():
        if split.path is not None:
            assert resolve_data_path(split.path, config_dir=path.parent).is_file()


@of_tasks
def test_the_task_and_the_texts_it_names_exist(path: Path) -> None:
    config = EXPERIMENTS[path]
    assert isinstance(config, TaskDistillConfig)
    task = load_task_file(resolve_data_path(config.task, config_dir=path.parent))
    assert task.data.train is not None and task.data.dev is not None
    for source in config.data.transfer:
        assert source.path is not None
        assert resolve_data_path(source.path, config_dir=path.parent).is_file()


@pytest.mark.real_data
def test_the_teacher_of_the_task_quickstart_lies_in_its_package() -> None:
    config = EXPERIMENTS[FOLDER / "intents.yaml"]
    source = config.teacher.model
    assert source.package is not None and source.file is not None
    package = find_spec(source.package)
    if package is None or package.origin is None:
        pytest.skip(f"{source.package} is not installed")
    assert (Path(package.origin).parent / source.file / "config.json").is_file()


@of_models
def test_its_splits_are_different_rows(path: Path) -> None:
    data = load_config(path).data
    rows = {(split.path, split.hub, split.subset, split.split) for split in data.splits.values()}
    assert len(rows) == len(data.splits)


@of_models
def test_it_can_be_planned_without_a_download_and_fits_the_machine_it_names(path: Path) -> None:
    config = load_config(path)
    teacher = shape_at_hand(config.teacher.model)
    assert teacher is not None
    runtime = config.runtime
    hardware = (
        Hardware("gpu", runtime.nodes, runtime.gpus_per_node, runtime.gpu_memory_gib)
        if runtime.accelerator == "gpu"
        else Hardware("cpu", cpus=2)
    )
    students = {name: student_shape(student.init, teacher) for name, student in config.students.items()}
    assert None not in students.values()
    notes = plan_placement(config, teacher=teacher, students=students, hardware=hardware).notes
    assert [note for note in notes if not note.endswith("it takes no GPU")] == []
    for name, further in config.teachers.items():
        shape = shape_at_hand(further.model)
        assert shape is not None
        assert place_further_teacher(config.of_teacher(name), teacher=shape, hardware=hardware).notes == ()


@pytest.mark.parametrize(
    ("name", "hub", "parameters"),
    [
        ("qwen2.5-7b-to-1.5b", "Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("qwen2.5-7b-to-1.5b", "Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304),
        ("llama3.3-70b-to-8b", "meta-llama/Llama-3.3-70B-Instruct", 70_553_706_496),
        ("llama3.3-70b-to-8b", "meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("recipes/several-text-teachers", "HuggingFaceTB/SmolLM2-360M-Instruct", 361_821_120),
    ],
)
def test_shapes_of_hub_models_are_the_published_ones(name: str, hub: str, parameters: int) -> None:
    shapes = {source.hub: source.shape for source in sources(load_config(FOLDER / f"{name}.yaml"))}
    shape = shapes[hub]
    assert shape is not None
    assert shape.parameters == pytest.approx(parameters, rel=2e-4)


@pytest.mark.real_data
def test_the_quickstart_teacher_has_the_shape_its_file_declares() -> None:
    gguf = pytest.importorskip("gguf")
    source = load_config(FOLDER / "quickstart.yaml").teacher.model
    assert source.package is not None and source.file is not None and source.shape is not None
    # Found without importing it: the package itself needs others that are not installed.
    package = find_spec(source.package)
    if package is None or package.origin is None:
        pytest.skip(f"{source.package} is not installed")
    fields = gguf.GGUFReader(Path(package.origin).parent / source.file).fields
    declared = {
        "layers": "block_count",
        "hidden": "embedding_length",
        "heads": "attention.head_count",
        "kv_heads": "attention.head_count_kv",
        "mlp": "feed_forward_length",
        "vocab": "vocab_size",
        "max_positions": "context_length",
    }
    for ours, theirs in declared.items():
        assert getattr(source.shape, ours) == fields[f"llama.{theirs}"].contents()
