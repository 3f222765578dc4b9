"""What outlives an experiment: the Ray cluster that it computes on, and worker groups that wait for the next stage.

`distill run` has one for its one experiment. The trials of a sweep share one, one after the other, so that only the
first of them starts workers.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from configs.models import Device
from configs.places import is_url
from configs.schema import RuntimeConfig
from orchestration.cluster.nodes import require_gpus
from orchestration.cluster.private import cluster, probe_roots
from orchestration.cluster.warm_groups import WarmGroups

MEETINGS = "meetings"
"""Of a run directory: where the workers of a group find each other."""


class Session:
    """A cluster and its worker groups, from the first need on. `place` is a directory of this session alone."""

    def __init__(self, place: Path) -> None:
        self._cluster = ExitStack()
        self._attached = False
        self.groups = WarmGroups(place.absolute() / MEETINGS)

    @property
    def attached(self) -> bool:
        """Whether there is a cluster already."""
        return self._attached

    def attach(self, runtime: RuntimeConfig, *, device: Device, gpus: int) -> int:
        """Start a private cluster of `gpus` GPUs, or attach to the one that is named; its number of nodes.

        Raises:
            ConfigError: no cluster answers there, it has no GPU where one is needed, or a node does not see a root.
            EngineError: the private cluster did not start.
        """
        self._cluster.enter_context(cluster(address=runtime.ray_address, gpus=gpus))
        if runtime.ray_address and device == "gpu":
            require_gpus(runtime.ray_address)
        roots = {"runtime.cache_root": runtime.cache_root, "runtime.run_root": runtime.run_root}
        nodes = probe_roots({key: Path(root) for key, root in roots.items() if not is_url(root)})
        self._attached = True
        return nodes

    def close(self) -> None:
        """End the worker groups, then the cluster."""
        try:
            self.groups.close()
        finally:
            self._cluster.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
