"""The process environment that an inference engine needs.

Most of these variables are read once, while the engine's libraries are imported, so they have to stand in the
environment of the process from its start: in the runtime environment of a Ray actor, or in `os.environ` before
anything heavy is imported. `require_environment` refuses to go on without the ones that matter for safety.
"""

from __future__ import annotations

import os

from configs.errors import EngineError
from configs.logs import quiet_environment
from configs.models import Device
from configs.schema import EngineSettings

_NEEDED = ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_NO_USAGE_STATS", "VLLM_HOST_IP", "GLOO_SOCKET_IFNAME")


def engine_environment(settings: EngineSettings, accelerator: Device) -> dict[str, str]:
    """Environment variables of a process that will hold one engine.

    - Telemetry and foreign progress bars are off, and nothing is looked up on a hub: an engine only ever reads a
      local directory.
    - The scheduler runs in the process that owns the engine, without a process of its own.
    - Every socket is bound to the loopback: the ranks of one engine always share a node.
    - vLLM logs through the logging of its process instead of a handler of its own.
    - On a CPU as many threads as the engine was given, bound to no core (engines side by side would otherwise bind
      the same ones), that soon sleep when they wait. OpenMP's own choice spins for a millisecond: no faster on free
      cores, but 95 tokens/s instead of 330 beside a few busy processes on two cores; never spinning halves the speed.
      MKL's number is the same: a thread that begins to compute takes that one, and vLLM's attention dies where it is
      another than OpenMP's (an engine behind a door steps in a thread of its own).
    - On a CPU no run-time compilation either: it costs 3 s at the first request (15 s with a cold cache, plus a C++
      compiler on every node), for about 10 % of scoring speed.
    """
    environment = quiet_environment() | {
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CONFIGURE_LOGGING": "0",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOOPBACK_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    if accelerator == "cpu":
        return environment | {
            "OMP_NUM_THREADS": str(settings.cpus),
            "MKL_NUM_THREADS": str(settings.cpus),
            "GOMP_SPINCOUNT": "1000",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "TORCHDYNAMO_DISABLE": "1",
        }
    # A GPU engine's host threads only wait for one another; more than one slows the step down.
    return environment | {
        "OMP_NUM_THREADS": "1",
        "NCCL_SOCKET_IFNAME": "lo",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }


def require_environment(settings: EngineSettings, accelerator: Device) -> None:
    """Refuse to start an engine in a process that was not prepared for one.

    Raises:
        EngineError: naming the variables that are missing or differ.
    """
    expected = engine_environment(settings, accelerator)
    wrong = [f"{name}={expected[name]}" for name in _NEEDED if os.environ.get(name) != expected[name]]
    if wrong:
        raise EngineError(
            f"the environment of this process lacks {' '.join(wrong)}: "
            "start it with the variables of teacher_server.engine_environment"
        )
