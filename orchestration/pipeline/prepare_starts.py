"""The untouched students of a run: made before the teacher is asked, or after it, where its activations choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from configs import ConfigError
from configs.architecture import parsed_config
from configs.schema import DistillConfig, ModelShape
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.other_tokens import OtherTokens, tokens_in_words, tokens_of
from orchestration.inputs.preflight import require_positions, require_windows, require_writable
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.teachers import Teacher
from orchestration.outputs.console import StageProgress
from orchestration.pipeline.chain import plain_texts
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.pipeline.stage import Line, Stage
from orchestration.pipeline.starts import Start, calibrated_start, prepare_start, start_shape, training_bytes
from student_train.models.tracing import require_open_attention
from student_train.training.trial import require_trainable


def prepare_starts(
    settings: RunSettings, journal: Journal, *, teacher: Teacher, prompts: PromptSet
) -> dict[str, Start | None]:
    """Make the untouched students, before the teacher is asked, so that one that cannot work costs nothing.

    None stands for those that wait for a calibration; what can be said against them is said here. `prompts` are the
    teacher's, which a student of another tokenizer renders for itself.
    """
    config, readers = settings.config, _Readers(settings.config, teacher.files, prompts)
    starts: dict[str, Start | None] = {}
    with journal.console.stage("students") as stage:
        shapes = dict[str, ModelShape]()
        for name in config.students:
            starts[name], shapes[name] = _begun(name, settings=settings, teacher=teacher, readers=readers)
            _require_learnable(name, start=starts[name], shape=shapes[name], config=config, teacher=teacher.files)
        stage.summary = "; ".join(
            f"{size / 1e6:,.1f} M parameters: {', '.join(name for name in shapes if shapes[name].parameters == size)}"
            for size in dict.fromkeys(shape.parameters for shape in shapes.values())
        )
    for line in readers.said:
        journal.console.say(line)
    for line in readers.warnings:
        journal.console.warn(line)
    require_writable(config.runtime.run_root, key="runtime.run_root", needed_bytes=training_bytes(shapes.values()))
    return starts


@dataclass(frozen=True, slots=True)
class _Readers:
    """Students of other tokenizers than the teacher's, as they read its prompts; what is to be said of that."""

    config: DistillConfig
    teacher: ModelFiles
    prompts: PromptSet
    said: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def read(self, name: str, model: ModelFiles) -> OtherTokens:
        """The tokens of the student `name`, which starts from `model`.

        Raises:
            ConfigError: the experiment has several teachers.
        """
        if self.config.teachers:
            raise ConfigError(
                f"students.{name} ({model.label}) has another vocabulary than the teacher ({self.teacher.label}), and "
                f"teachers names {', '.join(self.config.teachers)}, whose beliefs are about the tokens of the "
                "first: choose a student with its tokenizer, or remove teachers"
            )
        tokens = tokens_of(name, model, config=self.config, teacher=self.teacher, prompts=self.prompts)
        lines, warned = tokens_in_words(name, tokens, config=self.config, teacher=self.teacher)
        self.said.extend(lines)
        self.warnings.extend(warned)
        return tokens


def _begun(name: str, *, settings: RunSettings, teacher: Teacher, readers: _Readers) -> tuple[Start | None, ModelShape]:
    """A student as it begins, None if that waits for a calibration, and its shape, which is known in any case."""
    init = settings.config.students[name].init
    if init.calibrated:
        return None, start_shape(init, teacher=teacher)
    start = prepare_start(
        init,
        teacher=teacher,
        artifacts=settings.artifacts,
        models_root=settings.config.runtime.models_root,
        reads=partial(readers.read, name),
    )
    return start, start.shape


def _require_learnable(
    name: str, *, start: Start | None, shape: ModelShape, config: DistillConfig, teacher: ModelFiles
) -> None:
    """Refuse a student that one of its stages cannot train, or that its engine or its texts are too long for."""
    key, stages = f"students.{name}", config.students[name].stages
    require_trainable(teacher.directory if start is None else start.directory, stages)
    require_positions(config, model=key, shape=shape, engine="student_engine")
    require_windows(config, model=key, shape=shape)
    if any(stage.reads_live for stage in stages):
        _require_live(config, teacher=teacher, key=key, opened=any(stage.reads_attention for stage in stages))
    plain_texts(config, name, positions=shape.max_positions, tokenizer=teacher.tokenizer)


def _require_live(config: DistillConfig, *, teacher: ModelFiles, key: str, opened: bool) -> None:
    """Refuse a teacher that cannot read beside a student, in torch; `opened` says that its attention is looked into.

    Raises:
        ConfigError: its weights are quantised.
        ModelError: its attention is code of its own.
    """
    quantised = config.teacher.quantization or getattr(parsed_config(teacher.directory), "quantization_config", None)
    if quantised:
        said = quantised if isinstance(quantised, str) else "that of its config.json"
        raise ConfigError(
            f"{key} has a teacher beside it (teacher: live, or features), which reads in torch with plain weights, and "
            f"teacher.quantization is {said}: name plain weights, or learn from the cache alone"
        )
    if opened:
        require_open_attention(teacher.directory)


@dataclass(slots=True)
class CalibratedStarts(Stage[list[str], dict[str, Start], dict[str, Start]]):
    """Makes the untouched students that waited for the teacher's activations on the train split; gives all of them."""

    starts: Mapping[str, Start | None]
    lesson: Lesson
    settings: RunSettings
    compute: Compute

    def prepare(self) -> list[str] | None:
        """The names of those that wait."""
        return [name for name, start in self.starts.items() if start is None] or None

    def line(self) -> Line:
        """See `Stage`."""
        return Line("calibration", total=len(self.prepare() or ()), unit="students", place="workers")

    def run(self, work: list[str], progress: StageProgress) -> dict[str, Start]:
        """Derive those that no run has derived before; each claims its own artifact."""
        made: dict[str, Start] = {}
        for name in work:
            progress.update(len(made), note=name)
            made[name] = calibrated_start(
                self.settings.config.students[name].init,
                lesson=self.lesson,
                settings=self.settings,
                derive=self.compute.derive,
            )
        return made

    def keep(self, made: dict[str, Start] | None) -> dict[str, Start]:
        """All untouched students, in their order; each was sealed when it was made."""
        every = dict(self.starts) | dict(made or {})
        return {name: start for name, start in every.items() if start is not None}

    def summary(self, made: dict[str, Start] | None, kept: dict[str, Start]) -> str:
        """See `Stage`."""
        return f"{', '.join(made or ())} derived by what the teacher's activations say"
