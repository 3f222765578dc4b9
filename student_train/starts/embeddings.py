"""Embeddings that a student takes over from its teacher, as they are or narrower.

Of a matrix E = U S V' the first k columns of U S are what a rank of k keeps best (Eckart and Young 1936). They are E V
with the k eigenvectors of E'E of the largest eigenvalues: a matrix of the teacher's width, whatever the vocabulary. The
sign of a column is not determined; the largest entry of each eigenvector is made positive here, so that two machines
agree.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Float32
from safetensors import safe_open
from torch import Tensor

from configs.errors import ConfigError, ModelError
from configs.model_files import weight_files

NAMES = ("word_embeddings.weight", "embed_tokens.weight", "tok_embeddings.weight", "wte.weight", "shared.weight")
"""How the tensor of the input embeddings is called in the families of transformers."""


def read_embeddings(model_dir: Path) -> Float32[Tensor, "V H"]:
    """The input embeddings of a model, from its safetensors; no other weight is read.

    Raises:
        ModelError: there are none, or no tensor is named as they are.
    """
    for path in weight_files(model_dir):
        with safe_open(path, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - a safetensors reader is not iterable
                if name.endswith(NAMES):
                    found: Tensor = stored.get_tensor(name).float()
                    return found
    raise ModelError(
        f"{model_dir}: none of its tensors is named as embeddings are ({', '.join(NAMES)}): set embeddings: random and "
        "an embedding_size"
    )


def narrowed_embeddings(embeddings: Float[Tensor, "V H"], *, size: int | None) -> Float32[Tensor, "V k"]:
    """U S of the `size` largest singular values; the matrix itself where `size` is its width or None.

    Raises:
        ConfigError: it is wider than the embeddings are.
    """
    width = embeddings.shape[1]
    if size is not None and size > width:
        raise ConfigError(
            f"embedding_size={size} but the teacher's embeddings have {width}: set at most {width}, or embeddings: "
            "random"
        )
    if size is None or size == width:
        return embeddings.float()
    exact = embeddings.double()
    # Eigenvalues come in ascending order.
    vectors = torch.linalg.eigh(exact.T @ exact).eigenvectors.flip(1)[:, :size]
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    narrow: Tensor = exact @ (vectors * largest.sign())
    return narrow.float()
