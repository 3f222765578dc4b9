"""Heavy libraries are imported by the modules named for them, and the light packages stay light.

import-linter checks the layers; what it cannot say (modules called `ray_*.py`, imports inside functions of scripts that
nobody imports) is read from the source here.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
from finished_experiment import Experiment as Finished

from configs import dump_config, load_config
from orchestration.inputs.real_paths import resolve_paths
from orchestration.inputs.teachers import open_teacher

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("configs", "cache", "teacher_server", "student_train", "evaluation", "orchestration")
HOMES = {
    "vllm": "teacher_server/vllm_engine.py",
    "deepspeed": "student_train/training/deepspeed_engine.py",
    "ray": "orchestration/cluster/*.py",
    "mlflow": "orchestration/tracking/*.py",
}


def imported(path: Path) -> set[str]:
    """First parts of every name that the module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("library", HOMES)
def test_a_heavy_library_is_imported_only_at_home(library: str) -> None:
    strangers = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if library in imported(path) and not fnmatch(str(path.relative_to(ROOT)), HOMES[library])
    ]
    assert strangers == []


@pytest.mark.parametrize(
    "module",
    [
        "configs, cache",
        "configs.architecture",
        "orchestration.plan.placement",
        "student_train, student_train.handoff.rollouts",
        "orchestration.commands.plan_task",
    ],
)
def test_it_loads_nothing_heavy(module: str) -> None:
    heavy = (*HOMES, "torch", "transformers", "datasets")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


HEAVY = (*HOMES, "torch", "transformers", "datasets", "pandas", "scipy", "sklearn", "nltk", "sympy", "accelerate")


def loaded_by(arguments: list[str], among: tuple[str, ...]) -> list[str]:
    """Which of these modules are there after a command of a process of its own."""
    code = (
        "import sys\nfrom orchestration.commands.main import main\n"
        f"try:\n    code = main({arguments!r})\nexcept SystemExit as ended:\n    code = ended.code\n"
        f"print('exit', code)\nprint([name for name in {among!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    *_, ended, found = done.stdout.strip().splitlines()
    assert ended in ("exit 0", "exit None"), done.stderr
    return list(ast.literal_eval(found))


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["predict", "--help"]])
def test_help_needs_no_library_at_all(arguments: list[str]) -> None:
    assert loaded_by(arguments, (*HEAVY, "numpy", "zarr", "pydantic", "yaml", "rich")) == []


def test_a_plan_of_a_model_that_is_known_loads_no_library_that_computes(tmp_path: Path) -> None:
    roots = [f"runtime.{root}={tmp_path / root}" for root in ("cache_root", "models_root", "run_root")]
    config = load_config(ROOT / "configs/tiny.yaml", overrides=roots)
    open_teacher(resolve_paths(config, config_dir=ROOT / "configs"))
    arguments = ["plan", "--config", "configs/tiny.yaml", *(part for root in roots for part in ("--set", root))]
    among = tuple(name for name in HEAVY if name != "transformers")  # which reads tokenizers, and loads nothing for it
    assert loaded_by(arguments, among) == []


def test_a_finished_experiment_is_shown_without_any_library_that_computes(tmp_path: Path) -> None:
    made = Finished(tmp_path / "work", tmp_path / "runs")
    made.write()
    made.finish()
    (made.folder / "experiment.yaml").write_text(dump_config(made.config()))
    among = (*(name for name in HEAVY if name != "scipy"), "scipy.stats", "matplotlib")
    assert loaded_by(["run", "--config", str(made.folder / "experiment.yaml")], among) == []


@pytest.mark.parametrize("module", ["student_train.losses.fused", "student_train.models.decoder"])
def test_losses_and_models_need_no_cache(module: str) -> None:
    code = f"import sys, {module}; print([name for name in ('zarr', 'ray', 'mlflow', 'vllm') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_modules_that_need_no_model_load_no_library_of_models() -> None:
    modules = [
        *sorted(f"student_train.feed.{path.stem}" for path in (ROOT / "student_train/feed").glob("[a-z]*.py")),
        *sorted(f"student_train.losses.{path.stem}" for path in (ROOT / "student_train/losses").glob("[a-z]*.py")),
        "student_train.handoff.broadcast",
        "student_train.handoff.rollouts",
    ]
    heavy = ("transformers", "datasets", "deepspeed", "peft", "ray", "vllm", "mlflow")
    code = f"import sys, {', '.join(modules)}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", ["cache", "student_train"])
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_test_folder_bears_the_name_of_a_package(package: str) -> None:
    assert not (ROOT / "tests" / package).exists()


@pytest.mark.skipif(sys.dont_write_bytecode, reason="no virtual environment to keep bytecode in")
def test_no_process_of_the_suite_compiles_what_another_has_compiled() -> None:
    code = (
        "import sys, os.path, configs.errors as done; print(sys.dont_write_bytecode, os.path.exists(done.__cached__))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
