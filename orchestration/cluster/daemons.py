"""Whether the part of a Ray cluster that a driver talks to (its raylet) still runs: it can be killed at any moment.

Ray tells a driver only that some process of its own died, if it does not end the driver as well
(`orchestration.commands.last_words`).
"""

from __future__ import annotations

import socket

import ray

CONNECT_S = 5.0

_RAYLETS: list[str] = []
"""The socket of the raylet to which this process is connected: a process has one at a time."""


def remember_raylet() -> None:
    """Note the raylet to which Ray has just connected this process."""
    here = ray.get_runtime_context().get_node_id()
    _RAYLETS[:] = [node["RayletSocketName"] for node in ray.nodes() if node["NodeID"] == here]


def forget_raylet() -> None:
    """From now on it may end."""
    _RAYLETS.clear()


def raylet_is_gone() -> bool:
    """Whether the raylet of this process died: the kernel then refuses connections to its socket."""
    for path in _RAYLETS:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(CONNECT_S)
            try:
                probe.connect(path)
            except (ConnectionRefusedError, FileNotFoundError):
                return True
            except OSError:  # too busy to take a connection, which the dead are not
                return False
    return False
