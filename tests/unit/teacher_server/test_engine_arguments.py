"""Environment, arguments and weights of an engine, without starting one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file
from tiny_llama import save_tiny_llama

from cache.identity import TeacherIdentity
from cache.records import GenerateRequest
from configs.errors import EngineError, ModelError
from configs.schema import EngineSettings
from teacher_server.engine_arguments import engine_arguments, require_declared, require_same_numerics
from teacher_server.environment import engine_environment, require_environment
from teacher_server.requests import generate_arguments, score_arguments
from teacher_server.weights import require_same_shape, require_weights

IDENTITY = TeacherIdentity(weights_sha256="a", config_sha256="b", hf_overrides='{"rope_theta": 5.0}')


def test_the_package_loads_without_torch_or_an_engine() -> None:
    heavy = "{'torch', 'vllm', 'transformers', 'ray', 'deepspeed', 'mlflow'}"
    modules = "teacher_server, teacher_server.engine_arguments, teacher_server.requests, teacher_server.answers"
    code = f"import sys, {modules}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_every_engine_is_quiet_offline_and_on_the_loopback(accelerator: str) -> None:
    environment = engine_environment(EngineSettings(cpus=3), accelerator)  # type: ignore[arg-type]
    assert environment["VLLM_NO_USAGE_STATS"] == environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert environment["VLLM_HOST_IP"] == "127.0.0.1" and environment["GLOO_SOCKET_IFNAME"] == "lo"
    assert environment["OMP_NUM_THREADS"] == ("3" if accelerator == "cpu" else "1")
    assert ("GOMP_SPINCOUNT" in environment) == (accelerator == "cpu")


def test_a_process_that_was_not_prepared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = EngineSettings()
    for name, value in engine_environment(settings, "cpu").items():
        monkeypatch.setenv(name, value)
    require_environment(settings, "cpu")
    monkeypatch.setenv("VLLM_HOST_IP", "0.0.0.0")
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING")
    with pytest.raises(EngineError, match=r"VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_HOST_IP=127\.0\.0\.1"):
        require_environment(settings, "cpu")


def arguments(settings: EngineSettings, accelerator: str, *, purpose: str = "fill") -> dict[str, object]:
    return engine_arguments(
        Path("model"),
        identity=IDENTITY,
        settings=settings,
        seed=4,
        accelerator=accelerator,  # type: ignore[arg-type]
        purpose=purpose,  # type: ignore[arg-type]
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


def test_what_the_identity_says_reaches_the_engine() -> None:
    found = arguments(EngineSettings(), "cpu")
    assert (found["dtype"], found["logprobs_mode"], found["kv_cache_dtype"]) == ("bfloat16", "raw_logprobs", "auto")
    assert found["hf_overrides"] == {"rope_theta": 5.0}
    assert (found["trust_remote_code"], found["load_format"]) == (False, "safetensors")
    assert found["generation_config"] == "vllm"


def test_greedy_requests_carry_no_seed_and_no_cuts() -> None:
    found = generate_arguments(GenerateRequest((1,), (2, 7), 5, top_p=0.5, top_k=3, min_p=0.1), seed=9, logprobs=0)
    assert (found["temperature"], found["seed"], found["top_p"], found["top_k"]) == (0.0, None, 1.0, 0)
    assert (found["stop_token_ids"], found["ignore_eos"], found["logprobs"]) == ([2, 7], True, None)


def test_sampled_requests_carry_their_own_seed() -> None:
    request = GenerateRequest((1,), (), 5, temperature=0.7, top_p=0.5, top_k=3)
    found = generate_arguments(request, seed=9, logprobs=64)
    assert (found["temperature"], found["seed"], found["top_p"], found["top_k"]) == (0.7, 9, 0.5, 3)
    assert found["logprobs"] == 64


def test_scoring_asks_for_prompt_rows() -> None:
    assert score_arguments(logprobs=8)["prompt_logprobs"] == 8


def test_a_directory_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        require_weights(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        require_weights(tmp_path)


def test_only_a_model_of_the_same_shape_may_take_the_place(tmp_path: Path) -> None:
    first, second = save_tiny_llama(tmp_path / "1", seed=0), save_tiny_llama(tmp_path / "2", seed=1)
    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps(config | {"_name_or_path": "another", "use_cache": False}))
    require_same_shape(first, second)
    (second / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    with pytest.raises(ModelError, match=r"rms_norm_eps=0\.5"):
        require_same_shape(first, second)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    first, second = save_tiny_llama(tmp_path / "1", seed=0), save_tiny_llama(tmp_path / "2", seed=1)
    [path] = second.glob("*.safetensors")
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"model\.norm\.weight has shape None"):
        require_same_shape(first, second)


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
