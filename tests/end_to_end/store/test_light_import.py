from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "transformers", "datasets", "vllm", "ray", "deepspeed", "mlflow")


def test_configs_and_cache_load_nothing_heavy() -> None:
    code = f"import sys, configs, cache; print([name for name in {HEAVY!r} if name in sys.modules])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
