"""Experiments whose teacher answers behind a server of OpenAI's protocol, which believes noise."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai_server import KEY, Alphabet, Habits, serving
from pipeline_builders import experiment, model_in

from configs import DistillConfig
from orchestration.inputs.models import open_model
from orchestration.inputs.spelling import spelling_of

KEY_ENV = "NOISE_API_KEY"


def tokenizer_in(root: Path) -> Path:
    """A model without weights, whose tokenizer the texts of a server are read with."""
    bare = root / "bare"
    if not bare.exists():
        shutil.copytree(model_in(root, layers=2, seed=9), bare, ignore=shutil.ignore_patterns("*.safetensors"))
    return bare


def alphabet_of(model: Path) -> Alphabet:
    """The tokens of this model: every byte is one."""
    files = open_model(model, label="tokens", weights=False)
    names = {number: token.content for number, token in files.tokenizer.added_tokens_decoder.items()}
    (end,) = files.stop_ids
    return Alphabet(spelling_of(files).tokens, names, end)


@contextmanager
def remote(root: Path, monkeypatch: pytest.MonkeyPatch, **habits: Any) -> Iterator[tuple[Habits, dict[str, Any]]]:
    """A server and the block of an experiment's teacher behind it; the key is in the environment."""
    model = tokenizer_in(root)
    server = Habits(**{"alphabet": alphabet_of(model)} | habits)
    monkeypatch.setenv(KEY_ENV, KEY)
    with serving(server) as url:
        declared = {"base_url": url, "model": server.name, "revision": "3", "key_env": KEY_ENV, "patience_s": 5.0}
        yield server, {"model": {"path": str(model)}, "top_k": 4, "openai": declared}


def remote_experiment(root: Path, teacher: dict[str, Any], **blocks: Any) -> DistillConfig:
    """An experiment with this teacher, whose student is not cut out of it."""
    stages = [{"objective": "kd", "steps": 4, "dtype": "float32"}]
    students = {"kd": {"init": {"model": {"path": str(model_in(root, layers=1, seed=1))}}, "stages": stages}}
    return experiment(root, teacher=teacher, **{"students": students} | blocks)
