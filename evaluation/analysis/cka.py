"""How alike two models see the same texts inside: linear CKA (Kornblith et al. 2019, arXiv 1905.00414).

Two layers are alike where they find the same texts similar to each other, whatever their widths and however their axes
are turned. The estimate is the debiased one, of the unbiased HSIC (Song et al. 2007): the usual one grows with the
width of the states where texts are few. It is 1 for states that are alike up to rotation and scale, about 0 for states
that have nothing to do with each other, and may then be a little below 0.

Shapes: N texts, H and h widths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

LEAST_TEXTS = 4
"""The unbiased HSIC divides by N - 3."""


def linear_cka(x: Float[np.ndarray, "N H"], y: Float[np.ndarray, "N h"]) -> float:
    """Debiased linear CKA of two layers that have read the same texts, in float64.

    It is NaN where one of them is the same for every text.

    Raises:
        ValueError: there are fewer than 4 texts.
    """
    return _cosine(_similarities(x), _similarities(y))


def cka_table(
    teacher: Sequence[Float[np.ndarray, "N _"]], student: Sequence[Float[np.ndarray, "N _"]]
) -> tuple[tuple[float, ...], ...]:
    """`linear_cka` of every layer of a teacher (rows) with every layer of a student (columns).

    Raises:
        ValueError: as there.
    """
    theirs, ours = ([_similarities(layer) for layer in layers] for layers in (teacher, student))
    return tuple(tuple(_cosine(one, other) for other in ours) for one in theirs)


def _similarities(x: Float[np.ndarray, "N H"]) -> Float64[np.ndarray, "N N"]:
    """How similar the texts are to each other, U-centred and of norm 1; zero where all states are the same.

    The inner product of two U-centred matrices is N (N - 3) times their unbiased HSIC (Szekely and Rizzo 2014, arXiv
    1310.2926), so CKA is the cosine of the angle between them.
    """
    n = len(x)
    if n < LEAST_TEXTS:
        raise ValueError(f"CKA needs {LEAST_TEXTS} texts or more, and there are {n}: give it more")
    states = x.astype(np.float64)
    # Changes nothing but the digits that states far from zero would lose.
    states -= states.mean(axis=0)
    largest = np.abs(states).max(initial=0.0)
    # What is left of equal states is noise of rounding.
    if largest <= 1e-12 * np.abs(x).max(initial=0.0):
        return np.zeros((n, n))
    states /= largest
    grams = states @ states.T
    np.fill_diagonal(grams, 0.0)
    rows = grams.sum(axis=0)
    grams += rows.sum() / ((n - 1) * (n - 2)) - rows[:, None] / (n - 2) - rows[None, :] / (n - 2)
    np.fill_diagonal(grams, 0.0)
    centred: Float64[np.ndarray, "N N"] = grams / np.linalg.norm(grams)
    return centred


def _cosine(one: Float64[np.ndarray, "N N"], other: Float64[np.ndarray, "N N"]) -> float:
    if not (one.any() and other.any()):
        return float("nan")
    return float(np.vdot(one, other))
