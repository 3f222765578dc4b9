"""Losses on how the states of several examples lie to each other, relational distillation (Park et al. 2019, RKD).

A state is compared with no state of the other model, so the widths of both may differ and nothing is projected.
Examples are related within groups that are the same for every number of processes and size of micro-batch
(`student_train.feed.task_steps`).

Shapes: B examples, h and H widths of student and teacher.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional


def distance_relation(
    student: Float[Tensor, "B h"], teacher: Float[Tensor, "B H"], groups: Int64[Tensor, " B"] | None = None
) -> Float[Tensor, " B"]:
    """Mean over the others of an example's group of huber(d_S - d_T) (Park et al. 2019, arXiv 1904.05068, eq. 5 to 7).

    d is the Euclidean distance divided by its mean over the pairs of the group; huber(x) is x^2 / 2 up to 1 and
    |x| - 1/2 beyond. `groups` names the group of each example, None one group of all; an example that is alone gives 0.
    """
    return _by_group(_distances, student, teacher, groups)


def angle_relation(
    student: Float[Tensor, "B h"], teacher: Float[Tensor, "B H"], groups: Int64[Tensor, " B"] | None = None
) -> Float[Tensor, " B"]:
    """Mean over pairs of others of huber(cos_S - cos_T), of the angle that they make at an example (eq. 8 to 10).

    An example with fewer than two others in its group gives 0. Towards one that lies at the same place the cosine
    counts as 0.
    """
    return _by_group(_angles, student, teacher, groups)


def _by_group(
    related: Callable[[Tensor], Tensor], student: Tensor, teacher: Tensor, groups: Int64[Tensor, " B"] | None
) -> Float[Tensor, " B"]:
    """For each example the mean of huber over what `related` [n, ...] says of it beside others of its group.

    Entries of an example with itself are 0 on both sides.
    """
    if groups is None:
        groups = torch.zeros(len(student), dtype=torch.int64, device=student.device)
    # Zeros that depend on the student, so that an empty batch has gradients.
    values = student.sum(dim=1) * 0.0
    for number in sorted(set(groups.tolist())):
        at = (groups == number).nonzero()[:, 0]
        apart = functional.huber_loss(related(student[at]), related(teacher[at]), reduction="none").flatten(1)
        others = len(at) - 1
        entries = others if apart.shape[1] == len(at) else others * (others - 1)
        values = values.index_add(0, at, apart.sum(dim=1) / max(1, entries))
    return values


def _distances(states: Float[Tensor, "n H"]) -> Float[Tensor, "n n"]:
    """Distances over their mean; all 0 where no two differ."""
    far = _lengths(states[:, None] - states[None])
    mean = far.sum() / max(1, len(states) * (len(states) - 1))
    return far / torch.where(mean > 0.0, mean, 1.0)


def _angles(states: Float[Tensor, "n H"]) -> Float[Tensor, "n n n"]:
    """[j, i, k]: the cosine of the angle at j between i and k; 0 where two of them are one."""
    apart = states[None] - states[:, None]
    far = _lengths(apart)
    towards = apart / torch.where(far > 0.0, far, 1.0)[..., None]
    same = torch.eye(len(states), dtype=torch.bool, device=states.device)
    return (towards @ towards.transpose(1, 2)).masked_fill(same[None], 0.0)


def _lengths(vectors: Float[Tensor, "... H"]) -> Float[Tensor, "..."]:
    """Euclidean lengths, with a gradient of 0 at 0, where the square root has none."""
    squared = (vectors**2).sum(dim=-1)
    there = squared > 0.0
    return torch.where(there, torch.where(there, squared, 1.0).sqrt(), 0.0)
