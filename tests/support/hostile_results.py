"""Text that would be markup, drive a terminal, break an encoding, or never end, wherever results hold text."""

from __future__ import annotations

from dataclasses import replace

from evaluation.results import RunResults

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "]]></style></script><!-- {{ 7 * 7 }} {% raw %} -->",
    "\u202e backwards \u2066 isolated \u200b zero \ufeff width \x1b[31m red \x07",
    "half a pair \ud800 of surrogates \udfff",
    "![image](https://example.invalid/x.png) [link](javascript:alert(3)) <https://example.invalid>",
    "x" * 1_000_000,
    "Z" + "\u0335\u0321\u0322" * 80 + "algo",
    "السلام عليكم (mixed) שלום",
)
"""Answers that would be markup, drive a terminal, break an encoding, or never end."""


def hostile(run: RunResults) -> RunResults:
    """The same run with hostile text wherever text of models or of data stands."""
    names = tuple(HOSTILE)
    models = tuple(
        replace(
            model,
            answers=tuple(names[(i + place) % len(names)] for i in range(len(model.answers))),
            failures=(names[0], names[3]),
            tasks=tuple(
                replace(
                    scores,
                    examples=tuple(
                        replace(example, shown=names[i % len(names)], answer=names[(i + 1) % len(names)])
                        for i, example in enumerate(scores.examples)
                    ),
                )
                for scores in model.tasks
            ),
        )
        for place, model in enumerate(run.models)
    )
    return replace(
        run,
        experiment="<b>quick</b>\u202estart",
        prompts=tuple(names[i % len(names)] for i in range(len(run.prompts))),
        references=tuple(names[(i + 1) % len(names)] for i in range(len(run.references))),
        models=models,
        notes=names[:5],
        failures=(names[5],),
        settings={**run.settings, "<i>key</i>": "<script>alert(4)</script>"},
        provenance=replace(run.provenance, teacher="<script>teacher</script>", versions={"<b>": "</style>"}),
    )
