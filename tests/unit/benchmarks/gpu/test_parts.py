"""The parts for a GPU are there, and need torch, transformers, numpy and DeepSpeed alone."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.gpu.parts import PARTS

ROOT = Path(__file__).parents[4]
LEFT_OUT = ("datasets", "liger_kernel", "mlflow", "ray", "rich", "trl", "typer", "vllm", "zarr")


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_a_function_of_its_module(name: str) -> None:
    module, function = PARTS[name]
    assert callable(getattr(import_module(module), function))


def test_they_load_where_nothing_else_is_installed() -> None:
    modules = sorted({module for module, _ in PARTS.values()} | {"benchmarks.gpu.__main__"})
    program = (
        f"import sys, importlib\nfor name in {LEFT_OUT}: sys.modules[name] = None\n"
        f"for name in {modules}: importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, cwd=ROOT)
