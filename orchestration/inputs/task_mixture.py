"""What several teachers of a task believe together: the mean of their probabilities, p = sum w_t p_t.

A student that learns at a temperature T learns the mixture of the *softened* distributions, sum w_t softmax(z_t / T).
It is kept as logits z = T log of that mixture, whose softmax at T it is again, so losses need to know nothing of it. At
T = 1 these are log p; they are centred, for `logit_mse`, which would learn their sum else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from configs import ConfigError, DataError
from configs.model_files import speech_sha256
from configs.task import TaskKind
from configs.task_experiment import TaskDistillConfig
from orchestration.inputs.models import locate_model
from orchestration.inputs.task_examples import Beliefs
from orchestration.inputs.tasks import LoadedTask


@dataclass(frozen=True, slots=True, eq=False)
class Together:
    """What several teachers believe about one example of a task of this kind, each with its share; shares sum to 1."""

    kind: TaskKind
    parts: tuple[tuple[float, Beliefs], ...]

    def at(self, temperature: float) -> Beliefs:
        """Their mixture for a student that learns at this temperature; of one teacher its logits as they are.

        Units that one of them does not see are left out.

        Raises:
            DataError: they cut a passage into different tokens, whose places cannot be mixed.
        """
        if len(self.parts) == 1:
            return self.parts[0][1]
        first = self.parts[0][1].units
        if self.kind == "extractive_qa" and any(beliefs.units != first for _, beliefs in self.parts):
            raise DataError(
                "teachers in a mixture cut a passage into different tokens, so their answers begin at different "
                "places: name teachers with one tokenizer"
            )
        places = [{name: at for at, name in enumerate(beliefs.units)} for _, beliefs in self.parts]
        units = tuple(name for name in first if all(name in known for known in places))
        rows = [
            beliefs.logits[[known[name] for name in units]]
            for (_, beliefs), known in zip(self.parts, places, strict=True)
        ]
        # The ends of a span are among units, everything else among labels.
        axis = 0 if self.kind == "extractive_qa" else 1
        return Beliefs(
            units, mixed_logits(rows, [share for share, _ in self.parts], temperature=temperature, axis=axis)
        )


def mixed_logits(
    logits: Sequence[Float32[np.ndarray, "U C"]], shares: Sequence[float], *, temperature: float, axis: int
) -> Float32[np.ndarray, "U C"]:
    """T log sum_t w_t softmax(z_t / T) along `axis`, centred there; in float64."""
    parts = [
        np.log(share) + _log_softmax(each.astype(np.float64) / temperature, axis=axis)
        for share, each in zip(shares, logits, strict=True)
    ]
    mixed = temperature * np.logaddexp.reduce(parts)
    centred: Float32[np.ndarray, "U C"] = (mixed - mixed.mean(axis=axis, keepdims=True)).astype(np.float32)
    return centred


def require_mixable(config: TaskDistillConfig, task: LoadedTask) -> None:
    """Refuse teachers whose answers in a passage cannot be mixed: they are places among tokens, which have to be alike.

    Raises:
        ConfigError: naming both.
    """
    if task.config.kind != "extractive_qa" or config.route is not None:
        return
    first, root = config.teacher, config.runtime.models_root
    for name, other in config.teachers.items():
        if other.max_tokens != first.max_tokens:
            raise ConfigError(
                f"teachers.{name}.max_tokens={other.max_tokens} and teacher.max_tokens={first.max_tokens}: answers in "
                "a passage are mixed token by token, so let both read as much"
            )
        if speech_sha256(locate_model(other.model, models_root=root)) != speech_sha256(
            locate_model(first.model, models_root=root)
        ):
            raise ConfigError(
                f"teachers.{name} ({other.model.label}) has another tokenizer than teacher ({first.model.label}), and "
                "answers in a passage are mixed token by token: name teachers with one tokenizer, or combine by kind: "
                "route"
            )


def _log_softmax(values: NDArray[np.float64], *, axis: int) -> NDArray[np.float64]:
    normalised: NDArray[np.float64] = values - np.logaddexp.reduce(values, axis=axis, keepdims=True)
    return normalised
