"""Environment, arguments and weights of an engine, without starting one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.identity import TeacherIdentity
from configs.errors import EngineError
from configs.schema import EngineSettings
from teacher_server.engine_arguments import (
    engine_arguments,
    require_declared,
    require_same_numerics,
    with_half_a_batch,
)

IDENTITY = TeacherIdentity(weights_sha256="a", config_sha256="b", hf_overrides='{"rope_theta": 5.0}')


def test_the_package_loads_without_torch_or_an_engine() -> None:
    heavy = "{'torch', 'vllm', 'transformers', 'ray', 'deepspeed', 'mlflow'}"
    modules = "teacher_server, teacher_server.engine_arguments, teacher_server.requests, teacher_server.answers"
    code = f"import sys, {modules}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def arguments(
    settings: EngineSettings, accelerator: str, *, purpose: str = "fill", grammars: bool = False
) -> dict[str, object]:
    return engine_arguments(
        Path("model"),
        identity=IDENTITY,
        settings=settings,
        seed=4,
        accelerator=accelerator,  # type: ignore[arg-type]
        purpose=purpose,  # type: ignore[arg-type]
        grammars=grammars,
    )


def test_an_engine_for_rollouts_has_small_blocks_on_a_cpu() -> None:
    for accelerator, added in (("cpu", {"block_size": 32}), ("gpu", {})):
        usual = arguments(EngineSettings(), accelerator)
        assert arguments(EngineSettings(), accelerator, purpose="rollout") == usual | added
        assert not added.keys() & usual.keys()


def test_an_engine_that_shares_its_gpu_can_sleep_and_starts_beside_others() -> None:
    alone, shared = (arguments(EngineSettings(), "gpu", purpose=purpose) for purpose in ("rollout", "shared rollout"))
    assert shared == alone | {"enable_sleep_mode": True, "gpu_memory_utilization": 0.01}
    assert not {"enable_sleep_mode", "gpu_memory_utilization"} & alone.keys()
    # A share of the GPU says nothing about the KV cache as long as its size is given.
    assert shared["kv_cache_memory_bytes"] == 2**30


def test_a_cpu_engine_never_splits_a_prompt() -> None:
    found = arguments(EngineSettings(max_model_len=2048, max_batched_tokens=256), "cpu")
    assert found["max_num_batched_tokens"] == 2048
    assert (found["enable_chunked_prefill"], found["enforce_eager"]) == (False, True)


def test_a_gpu_engine_splits_prompts_and_compiles() -> None:
    found = arguments(EngineSettings(max_model_len=2048, max_batched_tokens=256, tensor_parallel=2), "gpu")
    assert (found["max_num_batched_tokens"], found["tensor_parallel_size"]) == (256, 2)
    assert (found["enable_chunked_prefill"], found["enforce_eager"]) == (True, False)
    assert found["distributed_executor_backend"] == "mp"


@pytest.mark.parametrize(("split", "backend"), [({}, "uni"), ({"pipeline_parallel": 2}, "mp")])
def test_the_stages_of_an_engine_are_processes_of_its_own_machine(split: dict[str, int], backend: str) -> None:
    for accelerator in ("cpu", "gpu"):
        found = arguments(EngineSettings(**split), accelerator)
        assert (found["tensor_parallel_size"], found["pipeline_parallel_size"]) == (
            1,
            split.get("pipeline_parallel", 1),
        )
        assert found["distributed_executor_backend"] == backend


def test_what_the_identity_says_reaches_the_engine() -> None:
    found = arguments(EngineSettings(), "cpu")
    assert (found["dtype"], found["logprobs_mode"], found["kv_cache_dtype"]) == ("bfloat16", "raw_logprobs", "auto")
    assert found["hf_overrides"] == {"rope_theta": 5.0}
    assert (found["trust_remote_code"], found["load_format"]) == (False, "safetensors")
    assert found["generation_config"] == "vllm"


def test_an_engine_is_filed_under_the_precision_it_runs_at() -> None:
    require_declared(IDENTITY, dtype="bfloat16", quantization=None)
    with pytest.raises(EngineError, match=r"dtype=float32.*dtype=bfloat16"):
        require_declared(IDENTITY, dtype="float32", quantization=None)
    with pytest.raises(EngineError, match=r"quantization=fp8.*quantization=None"):
        require_declared(IDENTITY, dtype="bfloat16", quantization="fp8")


def test_new_weights_keep_the_numerics_of_the_engine() -> None:
    require_same_numerics(IDENTITY, replace(IDENTITY, weights_sha256="z", config_sha256="y"))
    for change in ({"dtype": "float32"}, {"kv_cache_dtype": "fp8"}, {"hf_overrides": ""}):
        with pytest.raises(EngineError, match=next(iter(change))):
            require_same_numerics(IDENTITY, replace(IDENTITY, **change))  # type: ignore[arg-type]


def test_only_an_engine_that_holds_answers_to_grammars_has_a_tokenizer() -> None:
    usual = arguments(EngineSettings(), "cpu")
    held = arguments(EngineSettings(), "cpu", grammars=True)
    added = {"skip_tokenizer_init": False, "structured_outputs_config": {"backend": "guidance"}}
    assert usual["skip_tokenizer_init"] is True and held == usual | added


@pytest.mark.parametrize(
    ("accelerator", "tokens", "sequences", "expected"),
    [
        ("gpu", 4096, 64, [(2048, 32), (1024, 16), (512, 8)]),
        # A step holds a prompt of any length on a CPU.
        ("cpu", 3000, 5, [(1500, 2), (1024, 1), (1024, 1)]),
        # A step holds a token of every sequence.
        ("gpu", 3, 2, [(1, 1), (1, 1)]),
        # What was less than a prompt before is none of ours: the engine raises it.
        ("cpu", 512, 2, [(512, 1)]),
    ],
)
def test_half_a_batch_is_never_less_than_an_engine_takes(
    accelerator: Any, tokens: int, sequences: int, expected: list[tuple[int, int]]
) -> None:
    settings = EngineSettings(count=3, max_model_len=1024, max_batched_tokens=tokens, max_sequences=sequences)
    for each in expected:
        before, settings = settings, with_half_a_batch(settings, accelerator=accelerator)
        assert (settings.max_batched_tokens, settings.max_sequences) == each
        untouched = {"max_batched_tokens", "max_sequences"}
        assert settings.model_dump(exclude=untouched) == before.model_dump(exclude=untouched)
