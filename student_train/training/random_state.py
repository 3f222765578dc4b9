"""The random state of a process as text that fits into JSON."""

from __future__ import annotations

import base64

import torch

RandomState = dict[str, list[str]]


def random_state() -> RandomState:
    """The state of torch's generators, on the CPU and on every GPU this process sees."""
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": [_text(torch.get_rng_state())], "gpu": [_text(state) for state in on_gpu]}


def set_random_state(state: RandomState) -> None:
    """Go back to a state. The states of GPUs are ignored if their number has changed."""
    torch.set_rng_state(_tensor(state["cpu"][0]))
    if torch.cuda.is_available() and len(state["gpu"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_tensor(text) for text in state["gpu"]])


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode("ascii")


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
