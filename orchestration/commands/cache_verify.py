"""`distill cache verify`: the cache against its own digests, its teachers' files, or the live teachers."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from configs import load_config, load_experiment
from orchestration.cache_tools.actions import select, teachers, verify
from orchestration.cache_tools.tables import show_hashed, show_rescored, show_verified, size
from orchestration.commands.results import LeftOut, print_result, progress_console, show_each
from orchestration.environment import prepare_environment
from orchestration.outputs.console import Console

CACHE_ROOT = Path("data/cache")
QUICKSTART = Path("configs/quickstart.yaml")


def verify_cache(arguments: argparse.Namespace) -> int:
    """Check what the arguments ask for; the exit code is 1 where something is wrong or could not be checked."""
    _settle_places(arguments)
    if arguments.rescore is not None:
        return _rescore(arguments)
    if arguments.hash_teacher:
        return _hash_teacher(arguments)
    console = progress_console(arguments)
    with console.stage("verify", unit="MB") as stage:
        left_out = LeftOut()
        chosen = select(teachers(arguments.cache_root, left_out=left_out), arguments.teacher, root=arguments.cache_root)
        found = verify(chosen, deep=arguments.deep, left_out=left_out, progress=stage.update)
        stage.summary = f"{sum(item.segments for item in found)} segments, {size(sum(item.bytes for item in found))}"
    print_result(arguments, found, lambda console: show_verified(found, console=console))
    return 1 if any(result.damaged for result in found) else left_out.code


def _settle_places(arguments: argparse.Namespace) -> None:
    """A config that is named says where the cache is, unless a root is named as well, which then counts everywhere."""
    named = arguments.config is not None or arguments.overrides
    arguments.config = arguments.config or QUICKSTART
    if arguments.cache_root is not None:
        arguments.overrides = [*arguments.overrides, f"runtime.cache_root={json.dumps(str(arguments.cache_root))}"]
    elif named:
        arguments.cache_root = load_experiment(arguments.config, overrides=arguments.overrides).runtime.cache_root
    else:
        arguments.cache_root = CACHE_ROOT


def _hash_teacher(arguments: argparse.Namespace) -> int:
    from orchestration.cache_tools.teacher_check import hash_teachers

    config = load_config(arguments.config, overrides=arguments.overrides)
    console = progress_console(arguments)
    with console.stage("teacher", unit="MB hashed") as stage:
        found = hash_teachers(
            config,
            config_dir=arguments.config.parent,
            progress=lambda done, _: stage.update(done / 1e6),
            prefix=arguments.teacher,
        )
        stage.summary = "; ".join(f"{each.label}, identity {each.read[:12]}" for each in found)
    print_result(arguments, found, lambda console: show_each(show_hashed, found, console))
    return 1 if any(each.differs for each in found) else 0


def _rescore(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, overrides=arguments.overrides)
    prepare_environment(ray_address=config.runtime.ray_address)
    from orchestration.cache_tools.rescoring import rescore
    from orchestration.outputs.redirect import terminal_kept

    logs = config.runtime.run_root / "rescoring-logs"
    with terminal_kept(logs / "driver.log") as terminal:
        console = Console(sys.stderr if arguments.json else terminal)
        with console.stage("rescoring") as stage:
            stage.update(0, note="starting an engine")
            found = rescore(
                config,
                config_dir=arguments.config.parent,
                rows=arguments.rescore,
                log_dir=logs,
                prefix=arguments.teacher,
            )
            tokens = sum(each.tokens for each in found)
            stage.summary = f"{sum(each.rows for each in found)} sequences, {tokens:,} tokens"
    print_result(arguments, found, lambda console: show_each(show_rescored, found, console))
    return 0
