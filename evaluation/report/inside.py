"""How alike students and their teacher are inside: a table a student, its layers beside all of the teacher's."""

from __future__ import annotations

import math

from evaluation.report.blocks import Block, Cell, Column, Paragraph, Row, Section, Table
from evaluation.report.merging import Part
from evaluation.results import LayerLikeness

UNDEFINED = "undefined"

SAYS = (
    "Linear CKA (debiased) of the states of both on the same test texts, each the mean over the tokens of a text: "
    "1 where two layers find the same texts similar to each other, about 0 where they have nothing in common. Layer 0 "
    "is what the embeddings give. Marked with * is the layer of the teacher at the same relative depth. A high number "
    "says that a layer sees texts as its teacher does, not that it answers as well."
)


def inside_section(part: Part) -> Section | None:
    """CKA of every student that was measured; None where none was."""
    tables: list[Block] = [
        _table(model.name, model.likeness) for model in part.results.models if model.likeness is not None
    ]
    return Section("inside", "Inside student and teacher", (Paragraph(SAYS), *tables)) if tables else None


def _table(student: str, likeness: LayerLikeness) -> Table:
    matched = set(likeness.matched)
    rows = [
        Row(
            f"layer {theirs}",
            tuple(Cell(_written(value), "*" if (ours, theirs) in matched else "") for ours, value in enumerate(values)),
        )
        for theirs, values in enumerate(likeness.cka)
    ]
    columns = tuple(Column(f"layer {ours}", "of the student") for ours in range(len(likeness.cka[0])))
    caption = f"{student} beside {likeness.teacher}: CKA of their layers, {likeness.texts} test texts"
    return Table(caption, f"layer of {likeness.teacher}", columns, tuple(rows))


def _written(value: float) -> str:
    # Without a zero that has a sign.
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−") if math.isfinite(value) else UNDEFINED
