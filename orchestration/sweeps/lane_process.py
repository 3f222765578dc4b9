"""What the process of a lane does: one job after the other, in a session that all of them share.

Jobs come on its standard input, one JSON object a line, and answers go out likewise; all that it prints goes to
its log. It ends when there are no more jobs, and as on Ctrl-C when the sweep is gone.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from configs import DistillConfig, DistillError
from configs.architecture import read_architecture
from configs.places import CURVES
from configs.visible_text import first_line
from orchestration.environment import prepare_environment
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.curves import read_curve
from orchestration.outputs.fields import from_fields
from orchestration.outputs.redirect import redirect_output
from orchestration.sweeps.lane import LaneJob
from orchestration.sweeps.trials import Outcome

if TYPE_CHECKING:
    from orchestration.pipeline.chain import Student
    from orchestration.pipeline.experiment import Ended, Until
    from orchestration.pipeline.session import Session

PARENT_POLL_S = 1.0

logger = logging.getLogger(__name__)


def main() -> None:
    """Do jobs until there are no more; the argument of the process is the path of its log."""
    log_file = Path(sys.argv[1])
    jobs, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    redirect_output(log_file)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        _work(jobs, replies, place=log_file.with_suffix(""))
    except KeyboardInterrupt:
        # The sweep was stopped; whatever was finished is kept.
        sys.exit(130)


def _end_with(parent: int) -> None:
    """Stop as on Ctrl-C when the sweep is gone: nobody would take what comes of the job."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os.kill(os.getpid(), signal.SIGINT)


def _work(jobs: IO[bytes], replies: IO[bytes], *, place: Path) -> None:
    session: Session | None = None
    try:
        while line := jobs.readline():
            began = time.monotonic()
            job = from_fields(LaneJob, json.loads(line))
            config = DistillConfig.model_validate_json(job.config, strict=True)
            if session is None:
                prepare_environment(ray_address=config.runtime.ray_address)
                session = _session(place)
            try:
                ended = _run(job, config, session)
                artifacts = Artifacts(config.runtime.run_root)
                outcome = outcome_of(ended, artifacts=artifacts, seconds=time.monotonic() - began)
            except DistillError as error:
                logger.warning("the trial failed: %s", error)
                outcome = Outcome.failed(first_line(error), seconds=time.monotonic() - began)
            replies.write(json.dumps(asdict(outcome)).encode() + b"\n")
            replies.flush()
    finally:
        if session is not None:
            session.close()


def _session(place: Path) -> Session:
    # Ray reads the environment while it is imported.
    from orchestration.pipeline.session import Session

    return Session(place)


def _run(job: LaneJob, config: DistillConfig, session: Session) -> Ended:
    from orchestration.pipeline.experiment import run_experiment

    return run_experiment(
        config,
        config_dir=Path(job.config_dir),
        until=cast("Until", job.until),
        session=session,
        below=Path(job.parent) if job.parent else None,
    )


def outcome_of(ended: Ended, *, artifacts: Artifacts, seconds: float) -> Outcome:
    """What a sweep wants to know of an experiment that came to its end."""
    # Ray, which all of the pipeline imports, reads the environment while it is imported.
    from orchestration.pipeline.training_cost import Took

    links = [link for student in ended.students for link in student.links]
    starts = [Took.of(artifacts.read_student(link.digest) or {}).start_seconds for link in links]
    return Outcome(
        failure="",
        dev=_means([_dev(student, artifacts=artifacts) for student in ended.students]),
        parameters=sum(read_architecture(each.directory).shape.parameters for each in ended.students),
        seconds=seconds,
        start_seconds=math.fsum(start for start in starts if math.isfinite(start)),
        teacher_tokens=ended.teacher_tokens,
        directory=str(ended.directory),
    )


def _dev(student: Student, *, artifacts: Artifacts) -> dict[str, float]:
    """The held-out metrics of the step that became the student."""
    from orchestration.pipeline.links import selected_step

    link = student.links[-1]
    measured = [at for at in read_curve(link.output_dir / CURVES) if any(name.startswith("dev/") for name in at.values)]
    step = selected_step(link, artifacts=artifacts)
    chosen = next((at for at in measured if at.step == step), measured[-1] if measured else None)
    values = {} if chosen is None else chosen.values
    return {name: value for name, value in values.items() if name.startswith("dev/") and math.isfinite(value)}


def _means(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean over students of whatever all of them have."""
    names = set.intersection(*map(set, found)) if found else set()
    return {name: sum(each[name] for each in found) / len(found) for name in sorted(names)}
