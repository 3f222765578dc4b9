"""`vllm serve` as anybody starts it, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from configs.schema import EngineSettings
from teacher_server.environment import engine_environment

STARTS_WITHIN_S = 900


@contextmanager
def vllm_server(model_dir: Path, *, key: str, max_model_len: int, log: Path) -> Iterator[str]:
    """The base address of a server that calls this model `noise`; it ends with the context."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={model_dir}", "--dtype=float32"]
    command += ["--host=127.0.0.1", f"--port={port}", "--served-model-name=noise", f"--api-key={key}"]
    command += [f"--max-model-len={max_model_len}", "--max-num-seqs=4", "--enforce-eager", "--max-logprobs=20"]
    environment = os.environ | engine_environment(EngineSettings(cpus=1), "cpu") | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        until = time.monotonic() + STARTS_WITHIN_S
        while not _healthy(port):
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5.0).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
