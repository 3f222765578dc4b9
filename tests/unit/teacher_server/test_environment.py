"""The environment of a process with an engine."""

from __future__ import annotations

import pytest

from configs.errors import EngineError
from configs.schema import EngineSettings
from teacher_server.environment import engine_environment, require_environment


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_every_engine_is_quiet_offline_and_on_the_loopback(accelerator: str) -> None:
    environment = engine_environment(EngineSettings(cpus=3), accelerator)  # type: ignore[arg-type]
    assert environment["VLLM_NO_USAGE_STATS"] == environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert environment["VLLM_HOST_IP"] == "127.0.0.1" and environment["GLOO_SOCKET_IFNAME"] == "lo"
    assert environment["OMP_NUM_THREADS"] == ("3" if accelerator == "cpu" else "1")
    # Whatever the environment of whoever starts it says: both numbers or neither.
    assert environment.get("MKL_NUM_THREADS") == ("3" if accelerator == "cpu" else None)
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
