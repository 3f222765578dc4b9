"""The teachers of an experiment that distils a task, as `distill serve` opens the door to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from configs import ConfigError, load_task_file
from configs.places import absolute_root
from configs.task import TaskConfig
from configs.task_experiment import TaskDistillConfig
from configs.teachers import key_of_teacher
from orchestration.cluster.planned_engine import engine_spec
from orchestration.cluster.serving_door import Behind, ServedWords
from orchestration.cluster.serving_signals import ServedHead
from orchestration.cluster.signal_engines import SignalSpec
from orchestration.commands.serve_model import served_model
from orchestration.inputs.generative_teachers import generative_provenance, open_generative_teacher
from orchestration.inputs.task_sets import load_learned_task
from orchestration.inputs.task_teachers import TaskTeacher, open_task_teacher
from orchestration.pipeline.tasks.generative_plan import ENCODING, task_questions
from orchestration.pipeline.tasks.label_questions import LabelQuestions
from orchestration.plan.fitting import require_engine_room, require_fit
from orchestration.plan.hardware import Hardware
from orchestration.plan.signal_requests import HEAD_SIGNALS
from orchestration.plan.task_memory import signal_engine_memory
from teacher_server.heads import longest_sequence
from teacher_server.http.desk import KeepingTerms
from teacher_server.http.sequence_desk import DeskTerms
from teacher_server.http.signals.served import SignalFacts
from teacher_server.http.signals.texts import SignalTexts


def task_teachers(
    config: TaskDistillConfig,
    *,
    prepared: Mapping[str, Path],
    texts: tuple[str, ...],
    hardware: Hardware,
    log_dir: Path,
) -> dict[str, Behind]:
    """What the door needs to know of each teacher, whose engines fit; they are compared on `texts` first.

    `prepared` are the directories of those that were tuned.

    Raises:
        ConfigError: a teacher writes what it says, or cannot be asked by one text; or an engine does not fit.
        ModelError: a model cannot be found, has no head for the task, or writes no text.
    """
    require_engine_room(config.runtime.teacher_engine, key="runtime.teacher_engine", hardware=hardware)
    served = dict[str, Behind]()
    for name, teacher in config.every_teacher.items():
        key, alone = key_of_teacher(name), config.of_teacher(name)
        if teacher.answers == "text":
            raise ConfigError(
                f"{key}.answers=text is an answer that is written: a language model that writes is served by an "
                f"experiment that distils it (name it as teacher.model there); or set {key}.answers: labels for "
                "classes by the likelihood of their words"
            )
        if teacher.answers == "labels":
            served[name] = _served_words(alone, key=key, texts=texts, hardware=hardware, log_dir=log_dir)
        else:
            task = load_task_file(config.task)
            opened = open_task_teacher(alone, task, prepared=prepared.get(name))
            served[name] = _served_head(alone, task, opened, texts=texts, hardware=hardware, log_dir=log_dir)
    return served


def _served_words(
    config: TaskDistillConfig, *, key: str, texts: tuple[str, ...], hardware: Hardware, log_dir: Path
) -> ServedWords:
    runtime, context = config.runtime, config.teacher_context
    if context is not None and any(value is not None for name, value in context if name != "system_prompt"):
        raise ConfigError(
            "teacher_context shows the teacher more than a text, which a door does not know: leave it out, or let it "
            "have a system_prompt alone"
        )
    task = load_learned_task(config.task, context)
    teacher = open_generative_teacher(config, task.config)
    files, settings = teacher.files, runtime.serve
    questions = task_questions(config, task, files)
    questions.require_taken(task.train[0])
    questions.require_distinct_labels(task.train[0])
    reader = LabelQuestions.of(questions, identity=teacher.by_weights, key=key)
    spec = engine_spec(
        files,
        teacher.by_weights,
        settings=runtime.teacher_engine,
        k=questions.k,
        accelerator=hardware.accelerator,
        log_dir=log_dir,
    )
    if hardware.accelerator == "gpu" and spec.memory is not None:
        require_fit(spec.memory, hardware)
    model = served_model(
        files,
        teacher.by_weights,
        spec=spec,
        cache_root=absolute_root(runtime.cache_root),
        references=runtime.run_root.absolute() / "references",
        terms=DeskTerms(
            vocab=files.vocab,
            most_k=questions.k,
            licence=config.teacher.licence,
            provenance=generative_provenance(config, teacher),
            encoding=ENCODING,
            most_waiting_tokens=settings.most_waiting_tokens,
            commit_every_s=settings.commit_every_s,
        ),
        texts=texts,
        template_variables={},
    )
    facts = SignalFacts(
        reader.identity,
        f"{files.label}, by {questions.answered_by}",
        # A score is read from one token more than the sequence has.
        max_tokens=runtime.teacher_engine.max_model_len - reader.longest_label - 1,
        vocab=files.vocab,
        gives="class_logits",
        labels=tuple(task.config.verbalisers),
        layers=0,
        hidden=0,
    )
    return ServedWords(model, reader, facts)


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
