"""The teachers of an experiment that distils a task, as `distill serve` opens the door to them."""

from __future__ import annotations

from pathlib import Path

from configs import ConfigError, load_task_file
from configs.places import absolute_root
from configs.task import TaskConfig
from configs.task_experiment import TaskDistillConfig
from configs.teachers import key_of_teacher
from orchestration.cluster.serving_signals import ServedHead
from orchestration.cluster.signal_engines import SignalSpec
from orchestration.inputs.task_teachers import TaskTeacher, open_task_teacher
from orchestration.plan.hardware import Hardware
from orchestration.plan.placement import require_engine_room, require_fit
from orchestration.plan.signal_requests import HEAD_SIGNALS
from orchestration.plan.task_memory import signal_engine_memory
from teacher_server.encoder import longest_sequence
from teacher_server.http.desk import KeepingTerms
from teacher_server.http.signals.served import SignalFacts
from teacher_server.http.signals.texts import SignalTexts


def served_heads(
    config: TaskDistillConfig, *, texts: tuple[str, ...], hardware: Hardware, log_dir: Path
) -> dict[str, ServedHead]:
    """What the door needs to know of each teacher, whose engines fit; they are compared on `texts` first.

    Raises:
        ConfigError: a teacher answers in words, or is made within a run; or an engine does not fit.
        ModelError: a model cannot be found, or has no head for the task.
    """
    task = load_task_file(config.task)
    require_engine_room(config.runtime.teacher_engine, key="runtime.teacher_engine", hardware=hardware)
    served = {}
    for name, teacher in config.every_teacher.items():
        key = key_of_teacher(name)
        if teacher.answers != "head":
            raise ConfigError(
                f"{key}.answers={teacher.answers}: a language model is served by an experiment that distils it: name "
                f"it as teacher.model there, or set {key}.answers: head for a model with a head"
            )
        if teacher.prepare:
            raise ConfigError(
                f"{key}.prepare tunes the teacher within a run: run it, then name the tuned directory (below "
                f"runtime.run_root/students) as {key}.model and leave {key}.prepare out"
            )
        alone = config.of_teacher(name)
        served[name] = _served_head(
            alone, task, open_task_teacher(alone, task), texts=texts, hardware=hardware, log_dir=log_dir
        )
    return served


def _served_head(
    config: TaskDistillConfig,
    task: TaskConfig,
    teacher: TaskTeacher,
    *,
    texts: tuple[str, ...],
    hardware: Hardware,
    log_dir: Path,
) -> ServedHead:
    runtime, settings, model = config.runtime, config.runtime.serve, teacher.model
    longest = longest_sequence(model.positions, teacher.tokenizer)
    fit = signal_engine_memory(
        model,
        settings=runtime.teacher_engine,
        dtype=config.teacher.dtype,
        longest=longest,
        accelerator=hardware.accelerator,
    )
    if hardware.accelerator == "gpu":
        require_fit(fit, hardware)
    facts = SignalFacts(
        teacher.identity,
        teacher.label,
        max_tokens=longest,
        vocab=model.vocab,
        gives=HEAD_SIGNALS[task.kind],
        labels=model.labels,
        layers=model.layers,
        hidden=model.hidden,
    )
    return ServedHead(
        SignalSpec(
            model_dir=teacher.directory.resolve(),
            identity=teacher.identity,
            settings=runtime.teacher_engine,
            accelerator=hardware.accelerator,
            log_dir=log_dir,
            memory=fit,
        ),
        absolute_root(runtime.cache_root),
        KeepingTerms(
            encoding=config.teacher.encoding,
            licence=config.teacher.licence,
            provenance=teacher.provenance(config),
            most_waiting_tokens=settings.most_waiting_tokens,
            commit_every_s=settings.commit_every_s,
        ),
        facts,
        check=facts.every_kind(SignalTexts(teacher.tokenizer).text(text) for text in texts),
    )
