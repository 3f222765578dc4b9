"""A causal language model that continues texts: passes of transformers in float32, tokens drawn here.

Every text has a generator of its own, so it is continued in the same way whatever stands beside it, except for
rounding. The same texts on the same machine get the same continuations; beside others, on another device or with
another number of threads, a token whose draw falls on the boundary between two may be the other one, and what follows
it differs.

Shapes: B texts, V columns of the head.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessor, LogitsProcessorList

from cache.protocols import Progress
from configs import ConfigError, ModelError
from configs.models import Device
from configs.visible_text import first_line
from orchestration.inputs.augment_choices import Beginning
from orchestration.inputs.models import open_model

WRITTEN_TOGETHER = 64
"""Texts that are continued side by side."""

UNFINISHED_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""Stands for the first bytes of a character whose others were not written."""


class CausalWriter:
    """A causal language model as `Writer`."""

    def __init__(self, directory: Path, *, label: str, device: Device = "cpu", report: Progress | None = None) -> None:
        """Load it; `report` is told how many texts are done, and how many there are.

        Raises:
            ModelError: it is not a causal language model, or has no token that ends a text.
        """
        self._files, self._report = open_model(directory, label=label), report
        self._stops = self._files.stop_ids
        self._device = torch.device("cuda" if device == "gpu" else "cpu")
        try:
            model = AutoModelForCausalLM.from_pretrained(
                directory, use_safetensors=True, dtype=torch.float32, trust_remote_code=False, local_files_only=True
            )
        # Each architecture has code of its own, which may die of anything that it does not expect.
        except Exception as error:
            raise ModelError(
                f"{label}: does not load as a causal language model ({first_line(error)}): name another one"
            ) from error
        # What a model's own settings do to logits (a penalty for repetitions) is not part of the augmentation's.
        model.generation_config = GenerationConfig()
        self._model: Any = model.to(self._device).eval()

    def continued(self, beginnings: Sequence[Beginning], *, max_new_tokens: int, temperature: float) -> list[str]:
        """See `Writer`; what is written ends with its first line.

        Raises:
            ConfigError: `max_new_tokens` is as many as the model reads.
            ModelError: the model says what is not a number.
        """
        positions = self._files.shape.max_positions
        if max_new_tokens >= positions:
            raise ConfigError(
                f"data.augment has max_new_tokens={max_new_tokens} and {self._files.label} reads {positions} tokens: "
                "lower it"
            )
        read = [self._ids(beginning.text) for beginning in beginnings]
        found = [""] * len(beginnings)
        done = 0
        for places in _batches([len(ids) for ids in read]):
            together = [read[place] for place in places]
            choice = Sampling(
                [beginnings[place].seed for place in places], temperature=temperature, vocab=self._files.vocab
            )
            tokens = min(max_new_tokens, positions - len(together[0]))
            for place, written in zip(places, self._write(together, choice, tokens), strict=True):
                found[place] = self._text(read[place], written)
            done += len(places)
            if self._report is not None:
                self._report(done, len(beginnings))
        return found

    def _ids(self, text: str) -> list[int]:
        bos = self._files.leading_bos
        ids = list(self._files.tokenizer(text, add_special_tokens=False).input_ids)
        return ids if bos is None else [bos, *ids]

    def _write(self, ids: list[list[int]], choice: LogitsProcessor, tokens: int) -> list[list[int]]:
        """What is written after texts of one length, without the token that ends it."""
        if tokens < 1:
            return [[] for _ in ids]
        settings = GenerationConfig(
            max_new_tokens=tokens, do_sample=False, eos_token_id=list(self._stops), pad_token_id=self._stops[0]
        )
        given = torch.tensor(ids, device=self._device)
        with torch.inference_mode():
            written = self._model.generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                generation_config=settings,
                logits_processor=LogitsProcessorList([choice]),
            )
        rows = written[:, given.shape[1] :].tolist()
        return [row[: next((at for at, token in enumerate(row) if token in self._stops), None)] for row in rows]

    def _text(self, given: list[int], written: list[int]) -> str:
        """The first line of what was written. It is read together with what it follows, as its space may be."""
        head, whole = (
            self._files.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for ids in (given, [*given, *written])
        )
        return next(iter(whole[len(head) :].splitlines()), "").rstrip(UNFINISHED_CHARACTER)


class Sampling(LogitsProcessor):  # type: ignore[misc]
    """Draws the next token of each text by its own seed, on the CPU in float64, and leaves no other to choose."""

    def __init__(self, seeds: Sequence[int], *, temperature: float, vocab: int) -> None:
        """Columns of the logits from `vocab` on are padding."""
        self._randoms = [np.random.default_rng(seed) for seed in seeds]
        self._temperature, self._vocab = temperature, vocab

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] of which one in each row is finite.

        Raises:
            ModelError: the model says what is not a number.
        """
        logits = scores[:, : self._vocab].double().cpu().numpy() / self._temperature
        weights = np.exp(logits - logits.max(axis=1, keepdims=True)).cumsum(axis=1)
        if not np.isfinite(weights).all():
            raise ModelError("the model that continues texts has logits that are not finite: name another one")
        last = weights.shape[1] - 1
        chosen = [
            min(int(np.searchsorted(row, random.random() * row[-1], side="right")), last)
            for random, row in zip(self._randoms, weights, strict=True)
        ]
        allowed = torch.full_like(scores, -torch.inf)
        allowed[torch.arange(len(chosen)), chosen] = 0.0
        return allowed


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of texts, some of one length each time: so nothing is padded, whatever the architecture makes of that."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, length in enumerate(lengths):
        by_length[length].append(place)
    for same in by_length.values():
        for start in range(0, len(same), WRITTEN_TOGETHER):
            yield same[start : start + WRITTEN_TOGETHER]
