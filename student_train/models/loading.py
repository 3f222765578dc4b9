"""Models of transformers from plain directories: safetensors alone, no remote code, and no weight that is made up.

transformers draws weights at random that the files lack, and only warns.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from configs.errors import ModelError
from configs.visible_text import first_line


def load_seeded(
    loader: Any, model_dir: Path, *, config: Any, dtype: torch.dtype, seed: int, wanted: str, cure: str
) -> tuple[Any, frozenset[str]]:
    """What `loader`, a class of transformers, reads, and the names of the weights that it drew, with this seed.

    Raises:
        ModelError: it does not load; says what was `wanted` of it, and the cure.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model, loading = loader.from_pretrained(
                model_dir,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        # Each architecture has code of its own, which may die of anything that it does not expect.
        except Exception as error:
            raise ModelError(f"{model_dir}: cannot be loaded {wanted} ({first_line(error)}): {cure}") from error
    return model, frozenset(loading["missing_keys"])


def require_all_weights(model_dir: Path, missing: Collection[str]) -> None:
    """Refuse a model of which weights are `missing` that nobody meant to draw.

    Raises:
        ModelError: naming the first.
    """
    if missing:
        raise ModelError(
            f"{model_dir} lacks {len(missing)} of the weights that its config.json asks for, the first {min(missing)}: "
            "copy or download it again"
        )
