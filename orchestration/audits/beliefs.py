"""What models of a finished run believe of given sequences; each is asked once for each of them.

Several students share a teacher and a start, and several instruments ask about the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cache import ScoreRequest
from configs.models import Device
from orchestration.comparison.finished_models import FinishedModel
from student_train.likelihoods import likelihoods


@dataclass(frozen=True, slots=True)
class Beliefs:
    """Log-probabilities in nats, one for each response token of a sequence, computed on `device`."""

    device: Device
    _known: dict[tuple[str, str], dict[ScoreRequest, NDArray[np.float32]]] = field(default_factory=dict)

    def of(self, model: FinishedModel, sequences: Sequence[ScoreRequest]) -> list[NDArray[np.float32]]:
        """What a model believes of these sequences, in their order.

        Raises:
            ModelError: it cannot be loaded, or cannot read one of them.
        """
        known = self._known.setdefault((str(model.directory), model.dtype), {})
        new = [each for each in dict.fromkeys(sequences) if each not in known]
        if new:
            found = likelihoods(model.directory, new, dtype=model.dtype, device=self.device)
            known |= dict(zip(new, found, strict=True))
        return [known[each] for each in sequences]
