"""Deriving a student by what the teacher's activations say, in a process of its own on whatever device it is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import TeacherIdentity
from cache.opening import open_rows
from configs import ModelError
from configs.models import Device
from configs.starts import InitConfig
from orchestration.cluster.task import Apart, run_apart
from orchestration.outputs.redirect import redirect_output
from student_train.starts.calibration import calibrate
from student_train.starts.derive import derive_student
from student_train.starts.sizes import kept_layers


@dataclass(frozen=True, slots=True)
class DeriveJob:
    """One start: what to keep, of which teacher, measured on which sequences, and where it appears."""

    init: InitConfig
    teacher_dir: Path
    out_dir: Path
    cache_root: Path | str
    identity: TeacherIdentity
    view: Path
    accelerator: Device
    log_file: Path


def derive_in_worker(job: DeriveJob, *, cpus: int) -> None:
    """Calibrate the teacher and derive the student.

    Raises:
        ModelError: the teacher could not be measured or cut.
    """
    run_apart(
        _derive,
        job,
        apart=Apart("the calibration of the teacher", ModelError, job.accelerator, cpus, job.log_file),
    )


def _derive(job: DeriveJob) -> None:
    redirect_output(job.log_file)
    init = job.init
    calibration = calibrate(
        job.teacher_dir,
        _sequences(job),
        measure_widths=init.narrows,
        dtype="bfloat16" if job.accelerator == "gpu" else "float32",
        device="cuda" if job.accelerator == "gpu" else "cpu",
    )
    influence = calibration.block_influence.tolist()
    derive_student(
        job.teacher_dir,
        job.out_dir,
        keep_layers=kept_layers(init.keep_layers, total=len(influence), by=init.layers_by, influence=influence),
        attention_heads=init.attention_heads,
        mlp_channels=init.mlp_channels,
        hidden_size=init.hidden_size,
        calibration=calibration,
    )


def _sequences(job: DeriveJob) -> Iterator[NDArray[np.integer]]:
    """Training sequences, spread evenly over the view."""
    view, cache = open_rows(job.view, root=job.cache_root, identity=job.identity)
    rows = np.unique(np.linspace(0, len(view) - 1, min(job.init.calibration_rows, len(view))).astype(np.int64))
    return (record.token_ids for block in cache.iter_blocks(view, [rows]) for record in block)
