"""What holds for every test: one thread, no telemetry, checked array shapes, reproducible property tests, interrupts.

All of it has to happen before torch, the heavy parts and our own packages are imported, so it stands at the top level.
"""

from __future__ import annotations

import os
import signal
import sys

# Where PYTHONDONTWRITEBYTECODE is set, nothing is to lie beside the sources. Without any bytecode each process of the
# hundreds that the suite starts would compile what it imports, Ray, vLLM and torch among it: the virtual environment
# keeps it instead.
if sys.dont_write_bytecode and sys.prefix != sys.base_prefix and sys.pycache_prefix is None:
    sys.dont_write_bytecode, sys.pycache_prefix = False, os.path.join(sys.prefix, "pycache")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

from configs.logs import quiet_environment

os.environ.update(quiet_environment())
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A shell that starts the suite in the background has it ignore Ctrl-C, and so would all that it starts: tests that send
# one to a run of theirs would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import shape_checks
from hypothesis import settings

# From here on every array that enters or leaves a function of these packages is checked against its signature.
shape_checks.install(["cache", "student_train", "evaluation"])

# Assertions of the conformance suite explain themselves like those of any test file.
pytest.register_assert_rewrite("conformance")

settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
