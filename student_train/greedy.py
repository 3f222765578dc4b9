"""What a model writes when it always takes the likeliest token, by transformers alone: no engine has to start for it.

Prompts of one length share a batch, so nothing is padded, whatever the architecture makes of padding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import GenerationConfig

from configs.models import Device
from student_train.models.decoder import TORCH_DTYPES, load_decoder

TOGETHER = 16
"""Prompts that are answered at a time."""

Ids = tuple[int, ...]


def greedy_answers(
    model_dir: Path,
    prompts: Sequence[Ids],
    *,
    stop_ids: Ids,
    max_new_tokens: int,
    dtype: str = "float32",
    device: Device = "cpu",
) -> list[Ids]:
    """An answer to each prompt, in their order, up to a token of `stop_ids` (which is left out) or `max_new_tokens`.

    Raises:
        ModelError: the model cannot be loaded.
    """
    model = load_decoder(model_dir, dtype=TORCH_DTYPES[dtype]).model
    model.to("cuda" if device == "gpu" else "cpu").eval()
    # Nothing of the model's own file: it may ask for samples, for more tokens, for penalties.
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=list(stop_ids), pad_token_id=stop_ids[0]
    )
    model.generation_config = settings
    by_length: dict[int, list[int]] = defaultdict(list)
    for at, ids in enumerate(prompts):
        by_length[len(ids)].append(at)
    found: list[Ids] = [()] * len(prompts)
    for places in by_length.values():
        for start in range(0, len(places), TOGETHER):
            together = places[start : start + TOGETHER]
            given = torch.tensor([prompts[at] for at in together], device=model.device)
            with torch.inference_mode():
                written = model.generate(
                    input_ids=given, attention_mask=torch.ones_like(given), generation_config=settings
                )
            for at, row in zip(together, written[:, given.shape[1] :].tolist(), strict=True):
                found[at] = _before_stop(row, stop_ids)
    return found


def _before_stop(ids: list[int], stop_ids: Ids) -> Ids:
    return tuple(ids[: next((at for at, token in enumerate(ids) if token in stop_ids), None)])
