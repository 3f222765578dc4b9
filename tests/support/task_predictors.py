"""A model with a task head that says what it is told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from configs.task import TaskKind
from student_train.models.predicting import PredictedClass, Prediction


class FakePredictor:
    """Says a label by text, the first one of any other; `cut` are texts that it does not see whole."""

    def __init__(
        self,
        says: Mapping[str, str],
        *,
        kind: TaskKind = "classification",
        labels: tuple[str, ...] = ("good", "bad"),
        cut: Sequence[str] = (),
        parameters: int = 7,
    ) -> None:
        self.kind, self.labels, self._parameters = kind, labels, parameters
        self._says, self._cut = says, cut

    @property
    def parameters(self) -> int:
        return self._parameters

    def predict(self, inputs: Sequence[Sequence[str]]) -> list[Prediction]:
        return [PredictedClass(self._says.get(text, self.labels[0]), 0.75, text in self._cut) for (text,) in inputs]
