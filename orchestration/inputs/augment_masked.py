"""A masked language model that says which words may stand in a gap: plain forward passes in torch, in float32.

A word is masked as a whole, by one mask token, however many pieces it has; candidates are the entries of the vocabulary
that are whole words. (TinyBERT takes neighbours in GloVe for words of several pieces; here no second model is needed,
and every candidate fits its place.) The text stands there once: TinyBERT's code puts the original beside it.

Which texts share a batch does not change what is computed, except for rounding. So the same gaps on the same machine
get the same candidates; beside other texts, on another device or with another number of threads, a word at the edge of
the likeliest ones may be another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from cache.protocols import Progress
from configs import ModelError
from configs.architecture import read_text_model
from configs.model_files import weight_files
from configs.models import Device
from configs.visible_text import first_line
from orchestration.inputs.augment import Words
from orchestration.inputs.augment_choices import Gap, is_of_a_word
from orchestration.inputs.models import load_tokenizer
from teacher_server.heads import longest_sequence

LOGITS = 2**26
"""Logits of a batch: 256 MiB in float32. The model makes them for every token."""

READ_TOGETHER = 4096
"""Gaps that are turned into tokens at once, and sorted by length."""


class MaskedWords:
    """A masked language model as `Candidates`."""

    def __init__(self, directory: Path, *, label: str, device: Device = "cpu", report: Progress | None = None) -> None:
        """Load it; `report` is told how many gaps are done, and how many there are.

        Raises:
            ModelError: it is not a masked language model, or its tokenizer has no mask token.
        """
        weight_files(directory)
        tokenizer = load_tokenizer(directory, label=label)
        if tokenizer.mask_token_id is None or not tokenizer.is_fast:
            raise ModelError(
                f"{label}: its tokenizer has {'no mask token' if tokenizer.is_fast else 'no tokenizer.json'}: name a "
                "masked language model, such as a BERT, with its fast tokenizer"
            )
        self._tokenizer, self._label, self._report = tokenizer, label, report
        self._longest = longest_sequence(read_text_model(directory).positions, tokenizer)
        self._device = torch.device("cuda" if device == "gpu" else "cpu")
        self._model = _masked_model(directory, label=label).to(self._device).eval()
        self._columns = int(self._model.config.get_text_config().vocab_size)
        self._words = {id_: word for id_, word in whole_words(tokenizer).items() if id_ < self._columns}
        self._ids = torch.tensor(sorted(self._words))
        if not self._words:
            raise ModelError(f"{label}: no entry of its vocabulary is a whole word: name another model")

    def likeliest(self, gaps: Sequence[Gap], count: int) -> list[Words]:
        """See `Candidates`.

        Raises:
            ModelError: the model says what is not a number.
        """
        found: list[Words] = []
        for start in range(0, len(gaps), READ_TOGETHER):
            found += self._of_some(gaps[start : start + READ_TOGETHER], count)
            if self._report is not None:
                self._report(len(found), len(gaps))
        return found

    def _of_some(self, gaps: Sequence[Gap], count: int) -> list[Words]:
        read = [self._read(gap) for gap in gaps]
        found: list[Words] = [()] * len(gaps)
        for places in self._batches([len(ids) for ids, _ in read]):
            batch = self._tokenizer.pad(
                {"input_ids": [read[place][0] for place in places]}, padding_side="right", return_tensors="pt"
            )
            with torch.inference_mode():
                logits = self._model(**batch.to(self._device)).logits
            at_masks = logits[torch.arange(len(places)), [read[place][1] for place in places]].cpu()
            for place, row in zip(places, at_masks[:, self._ids], strict=True):
                if not torch.isfinite(row).all():
                    raise ModelError(f"{self._label}: its logits are not finite: name another model")
                found[place] = tuple(self._words[int(self._ids[at])] for at in _largest(row, count))
        return found

    def _read(self, gap: Gap) -> tuple[list[int], int]:
        """The tokens of a text with a mask in its gap, and the mask's place; of a long text those around the mask."""
        # With a space before it the first word is one like others, also to a tokenizer whose tokens hold their spaces.
        before = f" {gap.before}"
        read = self._tokenizer(f"{before}{self._tokenizer.mask_token}{gap.after}", return_special_tokens_mask=True)
        ids, mask = list(read["input_ids"]), read.char_to_token(len(before))
        assert mask is not None and ids[mask] == self._tokenizer.mask_token_id
        if len(ids) <= self._longest:
            return ids, mask
        special = [at != mask and bool(is_special) for at, is_special in enumerate(read["special_tokens_mask"])]
        head, tail = special.index(False), special[::-1].index(False)
        room = self._longest - head - tail
        start = min(max(mask - room // 2, head), len(ids) - tail - room)
        return ids[:head] + ids[start : start + room] + ids[len(ids) - tail :], mask - start + head

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of texts by length, the longest first, as many as make `LOGITS` logits when they are padded."""
        left = sorted(range(len(lengths)), key=lambda place: -lengths[place])
        while left:
            size = max(1, LOGITS // (lengths[left[0]] * self._columns))
            yield left[:size]
            left = left[size:]


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The entries of a vocabulary that are whole words of letters and digits, by their ids.

    An entry is a word if the tokenizer makes it, and nothing else, of that word behind another one. So it does not
    matter how it marks the beginnings of words, or pieces of them.
    """
    special = set(tokenizer.all_special_ids)
    texts = {
        id_: tokenizer.decode([id_], clean_up_tokenization_spaces=False).strip()
        for id_ in range(len(tokenizer))
        if id_ not in special
    }
    likely = {id_: text for id_, text in texts.items() if text and all(map(is_of_a_word, text))}
    if not likely:
        return {}
    first = tokenizer("x", add_special_tokens=False).input_ids
    read = tokenizer([f"x {text}" for text in likely.values()], add_special_tokens=False).input_ids
    return {id_: text for (id_, text), ids in zip(likely.items(), read, strict=True) if ids == [*first, id_]}


def _largest(values: torch.Tensor, count: int) -> list[int]:
    """Places of the largest values; of equal ones the first."""
    least = torch.topk(values, min(count, len(values))).values[-1]
    above, equal = torch.nonzero(values > least), torch.nonzero(values == least)
    return [*above.flatten().tolist(), *equal.flatten().tolist()][:count]


def _masked_model(directory: Path, *, label: str) -> Any:
    try:
        model, loading = AutoModelForMaskedLM.from_pretrained(
            directory,
            use_safetensors=True,
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    # Each architecture has code of its own, which may die of anything that it does not expect.
    except Exception as error:
        raise ModelError(
            f"{label}: does not load as a masked language model ({first_line(error)}): name one, such as a BERT"
        ) from error
    if loading["missing_keys"]:
        raise ModelError(
            f"{label} is not a masked language model: its files lack {min(loading['missing_keys'])}; name one, such as "
            "a BERT with the head that it was trained with"
        )
    return model
