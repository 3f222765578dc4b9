"""A model that guards another one (`configs.screening.GuardConfig`): asked once about each text, whoever reads it when.

It teaches nobody, so its licence need not let anybody learn from it; what it is under is told. Whoever asks it is given
(`Ask`): a run has engines, a plan has none and says how many questions are open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache import GenerateRequest, TeacherIdentity, TeacherRecord
from cache.protocols import Failure
from configs import ConfigError
from configs.experiments import AnyExperiment
from configs.screening import GuardConfig
from configs.teachers import NOT_STATED
from configs.visible_text import visible
from orchestration.inputs.exchanges import Exchange
from orchestration.inputs.guard_questions import ROOM, GuardQuestions
from orchestration.inputs.guard_verdicts import GuardVerdicts, name_of
from orchestration.inputs.model_papers import licence_of_model
from orchestration.inputs.models import ModelFiles, is_at_hand, materialise
from orchestration.inputs.teachers import identity_of
from orchestration.outputs.artifacts import digest_of

FORMAT = 1
"""Raised by hand when the same guard is asked otherwise."""

LOT = 512
"""Questions that are asked together, and whose verdicts are kept together."""

FEW = 20
"""Questions from which on a guard that answers hardly any is not asked any more."""

NOT_ASKED = "the guard cannot be asked about it: it is too long, or its template does not take it"
NO_VERDICT = "the guard says of it neither that it is safe nor that it is not"

Ask = Callable[[Sequence[GenerateRequest]], Sequence[TeacherRecord | Failure]]
"""Has a guard answer, with log-probabilities of `guard_questions.K` tokens."""


@dataclass(frozen=True, slots=True)
class GuardModel:
    """The guard of an experiment: its files, who it is, and how it is asked."""

    config: GuardConfig
    files: ModelFiles
    identity: TeacherIdentity
    licence: str | None
    questions: GuardQuestions

    @property
    def digest(self) -> str:
        """See `Guard`; its threshold counts."""
        asked = self.config.model_dump(mode="json", exclude={"model", "licence"})
        return digest_of(guard=FORMAT, identity=self.identity.digest(), asked=asked, tokenizer=self.files.vocab_sha256)

    @property
    def said(self) -> str:
        """See `Guard`."""
        licence = visible(self.licence or NOT_STATED)
        return (
            f"content.guard: {self.files.label} ({self.identity.digest()[:12]}, licence {licence}) judges texts and "
            "teaches nobody"
        )

    def verdicts(self, root: Path) -> GuardVerdicts:
        """What it has said, below `root`; the words that it is asked by change it, the threshold does not."""
        words = {"unsafe": self.questions.unsafe, "safe": self.questions.safe}
        return GuardVerdicts(root / digest_of(guard=FORMAT, identity=self.identity.digest(), **words)[:16])


def guard_root(config: AnyExperiment) -> Path:
    """Where verdicts of guards lie."""
    return config.runtime.run_root / "guards"


def open_guard(config: AnyExperiment, *, fetch: bool = True) -> GuardModel | None:
    """The guard of an experiment whose paths are real, if it has one; with `fetch` it may have to be brought first.

    Raises:
        ModelError: it cannot be found or loaded.
        ConfigError: it cannot be asked as the configuration says.
    """
    guard = None if config.content is None else config.content.guard
    if guard is None:
        return None
    models_root = config.runtime.models_root
    files = materialise(guard.model, models_root=models_root)
    return GuardModel(
        guard,
        files,
        identity_of(files, config=config, dtype=guard.dtype, quantization=guard.quantization),
        guard.licence or licence_of_model(guard.model, models_root=models_root, fetch=fetch),
        GuardQuestions(guard, files),
    )


def guard_in_words(config: AnyExperiment, guard: ModelGuard | None) -> tuple[str, ...]:
    """What a plan says of the guard: who it is, or that it is not here, and how much it has not read."""
    if guard is not None:
        return (f"{guard.said}.", *guard.open_in_words)
    wanted = None if config.content is None else config.content.guard
    if wanted is None:
        return ()
    return (f"content.guard: {wanted.model.label} is not on this machine, and all texts count as wanted here.",)


def planned_guard(config: AnyExperiment) -> ModelGuard | None:
    """The guard of an experiment that is only planned: it says what it has said, and is not asked.

    One that is not on this machine yet is none, and nothing is fetched.

    Raises:
        ModelError: it cannot be found or loaded.
        ConfigError: it cannot be asked as the configuration says.
    """
    guard = None if config.content is None else config.content.guard
    if guard is None or not is_at_hand(guard.model):
        return None
    model = open_guard(config, fetch=False)
    assert model is not None
    return ModelGuard(model, model.verdicts(guard_root(config)), None, rest=lambda: None)


class ModelGuard:
    """See `orchestration.inputs.unwanted.Guard`: what is known is not asked again."""

    def __init__(
        self, model: GuardModel, verdicts: GuardVerdicts, ask: Ask | None, *, rest: Callable[[], None]
    ) -> None:
        """Without `ask` what is not known counts as wanted, and in `open_in_words`."""
        self._model, self._verdicts, self._ask, self._rest = model, verdicts, ask, rest
        self._open = set[str]()

    @property
    def said(self) -> str:
        """See `Guard`."""
        return self._model.said

    @property
    def digest(self) -> str:
        """See `Guard`."""
        return self._model.digest

    @property
    def open_in_words(self) -> tuple[str, ...]:
        """A line for texts that nobody has put to it yet."""
        if not self._open:
            return ()
        return (
            f"{len(self._open):,} texts of the data were not put to the guard yet, which a run does first: here they "
            "count as wanted.",
        )

    def rest(self) -> None:
        """See `Guard`."""
        self._rest()

    def reasons(
        self, exchanges: Sequence[Exchange], *, making_room: Callable[[], None] | None = None
    ) -> list[str | None]:
        """See `Guard`.

        Raises:
            ConfigError: it answers hardly anything with the words that mean something.
        """
        read = self._model.questions.tokens(exchanges)
        names = [None if ids is None else name_of(ids) for ids in read]
        unknown = {
            name: ids
            for name, ids in zip(names, read, strict=True)
            if name is not None and ids is not None and name not in self._verdicts
        }
        if self._ask is None:
            self._open |= unknown.keys()
        elif unknown:
            if making_room is not None:
                making_room()
            self._put(unknown, ask=self._ask)
        self._require_verdicts([name for name in names if name is not None])
        return [self._reason(name) for name in names]

    def _put(self, unknown: Mapping[str, tuple[int, ...]], *, ask: Ask) -> None:
        """Ask lot by lot, and keep what is said of each lot before the next one is asked."""
        names, stops = list(unknown), self._model.files.stop_ids
        for at in range(0, len(names), LOT):
            lot = names[at : at + LOT]
            answers = ask([GenerateRequest(unknown[name], stops, ROOM) for name in lot])
            self._verdicts.keep(
                {
                    name: None if isinstance(answer, Failure) else self._model.questions.verdict(answer)
                    for name, answer in zip(lot, answers, strict=True)
                }
            )

    def _require_verdicts(self, names: Sequence[str]) -> None:
        known = [name for name in dict.fromkeys(names) if name in self._verdicts]
        silent = sum(self._verdicts.of(name) is None for name in known)
        if len(known) >= FEW and 2 * silent > len(known):
            config = self._model.config
            raise ConfigError(
                f"content.guard: {self._model.files.label} answers {silent:,} of {len(known):,} questions neither with "
                f"{_listed(config.unsafe)} nor with {_listed(config.safe)}: name the words that it begins its answers "
                "with, or set content.guard.begins to what stands before them"
            )

    def _reason(self, name: str | None) -> str | None:
        if name is None:
            return NOT_ASKED
        if name not in self._verdicts:
            return None
        unsafe, threshold = self._verdicts.of(name), self._model.config.threshold
        if unsafe is None:
            return NO_VERDICT
        return f"the guard finds it unsafe ({threshold:g} or more)" if unsafe >= threshold else None


def _listed(words: Sequence[str]) -> str:
    return " or ".join(map(repr, words))
