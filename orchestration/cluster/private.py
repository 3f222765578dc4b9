"""A Ray cluster for one run: a private one on this machine, or one that is already there.

The private cluster listens on loopback only, asks for a token, sends no usage statistics, and keeps everything it
writes in one temporary directory that goes when it stops. The workers of either import this program's own packages,
whatever else is called `configs` or `evaluation` where the run was started.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import services
from ray.job_config import JobConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from configs import ConfigError, EngineError
from configs.interfaces import LOOPBACK
from configs.visible_text import first_line
from orchestration.cluster.daemons import forget_raylet, remember_raylet
from orchestration.cluster.pulse import forget_pulse
from orchestration.outputs.interrupts import hangups_blocked
from orchestration.outputs.scratch import PREFIX, dead, kept_alive, sweep
from orchestration.own_packages import ROOT

OBJECT_STORE_BYTES = 256 * 2**20
"""Records go through the shared file system and not through Ray, so the object store stays small."""

logger = logging.getLogger(__name__)

TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
CONNECT_S = 10.0
STARTS = 2

DAEMON_START_S = 150.0
"""Ray gives its daemon half a minute to come up, which on a slow or busy machine is too little: on two slow cores at
loads of 4 to 8 more starts failed than not. It also asks for it without a pause, in the time that the daemon needs."""

DAEMON_POLL_S = 0.5

SOCKET_BYTES = 107
"""The longest path of a Unix socket."""

LONGEST_SOCKET = f"/{PREFIX}12345678/ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
"""What Ray puts below the directory for temporary files."""

SHORT_PLACES = (Path("/tmp"), Path("/var/tmp"))
"""Where the cluster's directory goes if the one for temporary files has too long a name."""


@contextmanager
def cluster(*, address: str | None, gpus: int) -> Iterator[None]:
    """Attach to `address`, or start a private local cluster and stop it afterwards.

    Raises:
        ConfigError: no cluster answers at `address`.
        EngineError: the private cluster did not start.
    """
    with _attached(address) if address else _private(gpus):
        remember_raylet()
        try:
            yield
        finally:
            forget_raylet()
            forget_pulse()


def cluster_address() -> str:
    """Where other processes of this user attach to the cluster of this one."""
    return str(ray.get_runtime_context().gcs_address)


def probe_roots(roots: Mapping[str, Path]) -> int:
    """Let every node read a file that this process writes below each root; returns the number of nodes.

    Raises:
        ConfigError: a node does not see a root that this process sees.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) == 1:
        return 1
    reads = ray.remote(num_cpus=0)(_reads)
    for key, root in roots.items():
        probe = root.resolve() / f".probe-{secrets.token_hex(4)}"
        probe.write_text(probe.name)
        try:
            for node in nodes:
                strategy = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
                if ray.get(reads.options(scheduling_strategy=strategy).remote(str(probe))) != probe.name:
                    raise ConfigError(
                        f"{key}={root} is not shared: node {node['NodeManagerAddress']} does not see what this one "
                        "writes there; name a directory on a file system that every node mounts at the same place"
                    )
        finally:
            probe.unlink()
    return len(nodes)


def _reads(path: str) -> str | None:
    probe = Path(path)
    return probe.read_text() if probe.exists() else None


@contextmanager
def _attached(address: str) -> Iterator[None]:
    _require_listener(address)
    try:
        ray.init(address=address, job_config=_job(), log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster answers at {address}: start one with `ray start --head`, or leave --ray-address out"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would go on trying for many minutes."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal():
        return
    try:
        socket.create_connection((host.rpartition("/")[2].strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"nothing listens at --ray-address {address} ({error}): correct it, or start a cluster with "
            "`ray start --head`"
        ) from error


class _Closed(list[str]):
    """Ray adds the working directory and the script's own to this, and puts both before everything else."""

    def extend(self, _: Iterable[str]) -> None:
        """Stay as it is."""


def _job() -> JobConfig:
    """Workers look into this program's folder first: it is found whatever the working directory or PYTHONPATH hold."""
    return JobConfig(_py_driver_sys_path=_Closed([str(ROOT)]))


@contextmanager
def _private(gpus: int) -> Iterator[None]:
    place = _short_place()
    sweep(place)
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    with kept_alive(directory):
        _set_token(directory)
        try:
            with _temporary_files(directory / "tmp"), hangups_blocked():
                _start(directory, gpus=gpus)
            yield
        finally:
            ray.shutdown()
            shutil.rmtree(directory, ignore_errors=True)
            os.environ.pop(TOKEN_PATH, None)


def _short_place() -> Path:
    """The directory for temporary files, or another one where its name is too long for sockets below it."""
    try:
        wanted = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise ConfigError(f"{error.strerror}: set TMPDIR to a directory that can be written") from None
    room = SOCKET_BYTES - len(LONGEST_SOCKET)
    for place in (wanted, *SHORT_PLACES):
        if len(os.fsencode(place)) <= room and os.access(place, os.W_OK | os.X_OK):
            return place
    raise ConfigError(
        f"TMPDIR={wanted} is too long for the sockets of Ray (at most {room} characters), and neither of "
        f"{' and '.join(map(str, SHORT_PLACES))} can be written: set TMPDIR to a directory with a shorter name"
    )


@contextmanager
def _temporary_files(directory: Path) -> Iterator[None]:
    """Give processes that are started meanwhile, and theirs, this directory: what a killed one leaves goes with it."""
    directory.mkdir(mode=0o700)
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(directory)
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def sweep_after_death(*, at_most_s: float) -> None:
    """Remove the directories of killed runs as soon as the last of their daemons has noticed."""
    place = _short_place()
    deadline = time.monotonic() + at_most_s
    while time.monotonic() < deadline and _processes_of(dead(place)):
        time.sleep(1.0)
    sweep(place)


def _processes_of(directories: Sequence[Path]) -> list[int]:
    """The processes that were started with one of these directories."""
    names, found = [os.fsencode(directory.name) for directory in directories], list[int]()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = process.read_bytes()
            if any(name in command for name in names):
                found.append(int(process.parent.name))
    return found


def _start(directory: Path, *, gpus: int) -> None:
    on_term = signal.getsignal(signal.SIGTERM)
    for left in reversed(range(STARTS)):
        try:
            with _patience():
                _init(directory, gpus=gpus)
            break
        # Ray has no error of its own for daemons that are not up in time: it raises a bare Exception.
        except Exception as error:
            if type(error) is not Exception or not left:
                raise EngineError(
                    f"the local Ray cluster did not start: {first_line(error)}: see whether the machine has memory "
                    "and time for it"
                ) from error
            logger.warning("the local Ray cluster was not up in time, it is started again: %s", first_line(error))
            _end_daemons(directory)
    # Ray replaces this handler by one that leaves its daemons and our engines behind.
    signal.signal(signal.SIGTERM, on_term)
    _require_loopback()


@contextmanager
def _patience() -> Iterator[None]:
    """Within, Ray waits longer for its daemon, and asks for it less often.

    It has no setting for this. A release that looks for its daemon in another way waits as long as it always does.
    """
    original = getattr(services, "get_node", None)

    def get_node(gcs_address: str, node_id: str) -> Any:
        assert original is not None
        deadline = time.monotonic() + DAEMON_START_S
        while True:
            try:
                return original(gcs_address, node_id)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(DAEMON_POLL_S)

    if original is not None:
        services.get_node = get_node
    try:
        yield
    finally:
        if original is not None:
            services.get_node = original


def _init(directory: Path, *, gpus: int) -> None:
    ray.init(
        address="local",
        job_config=_job(),
        # Logical CPUs only order the stages; Ray's own train controller and queue actors take none.
        num_cpus=max(os.cpu_count() or 1, 2),
        num_gpus=gpus,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=str(directory / "ray"),
    )


def _end_daemons(directory: Path) -> None:
    """End what a start left behind that gave up; Ray itself knows nothing of them any more."""
    ray.shutdown()
    for process in _processes_of([directory]):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _require_loopback() -> None:
    """Refuse to run with daemons that other machines can reach (see `environment.prepare_environment`)."""
    node = ray.util.get_node_ip_address()
    if node != LOOPBACK:
        raise EngineError(
            f"the private Ray cluster listens at {node} instead of {LOOPBACK}; "
            "call environment.prepare_environment before ray is imported"
        )


def _set_token(directory: Path) -> None:
    """Write a fresh token that only this user can read, and tell Ray where it is."""
    token = directory / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ[TOKEN_PATH] = str(token)
