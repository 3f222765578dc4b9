"""An on-policy stage: a worker group that learns, two engines that write for it, and what remains of their rollouts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

from orchestration.pipeline.chain import Link, Student
from orchestration.pipeline.rollout_maker import RolloutMaker
from student_train.files import staged_directory

RunGroup = Callable[[Callable[[], None]], Mapping[str, object]]
"""Trains to the end; calls its argument again and again meanwhile."""


def train_on_policy(
    maker: RolloutMaker, link: Link, *, group: RunGroup, kept: Path
) -> tuple[Mapping[str, object], Mapping[str, float]]:
    """Let a worker group train while its rollouts are made; its result, and the shares of the time by part.

    The rollouts stay in the directory `kept`, where `replay_from` of another experiment finds them.

    Raises:
        EngineError: the engines died again and again; the worker group has written a checkpoint.
    """
    with closing(maker):
        started = time.monotonic()
        result = group(maker.make_due)
        shares = maker.shares(time.monotonic() - started)
    with staged_directory(kept) as staging:
        shutil.copytree(link.work_dir, staging, ignore=_all_but_rollouts(link), dirs_exist_ok=True)
    return result, shares


def rollouts_name(student: Student, link: Link) -> str:
    """What the rollouts of a stage are kept under: the student's name, and the stage's number if several have some."""
    writing = [each for each in student.links if each.stage.rollout is not None]
    return student.name if writing == [link] else f"{student.name}.{student.links.index(link)}"


def _all_but_rollouts(link: Link) -> Callable[[str, list[str]], list[str]]:
    """Leaves out checkpoints and weights: what is kept of a stage's directory are its rollouts and their scores."""

    def left_out(folder: str, names: list[str]) -> list[str]:
        if folder == str(link.work_dir):
            return [name for name in names if name not in ("policies", "rollouts")]
        return [name for name in names if name.startswith(("policy-", "meeting-", "."))]

    return left_out
