"""Results of finished experiments for tests of what shows them: rich ones, hostile ones, ones with holes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from evaluation.closeness import BINS, COLUMNS, WORDING
from evaluation.results import (
    Closeness,
    Exposure,
    FinalScores,
    ModelResults,
    Provenance,
    RunCost,
    RunResults,
    Serving,
    Speed,
    Spread,
    StageCost,
    TaskExample,
    TaskFacts,
    Training,
)

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

PROMPTS = (
    "Explain in one sentence why the sky is blue.",
    "Write a polite reply that declines an invitation to dinner.",
    "List three uses of a paper clip.",
    "What is the capital of Australia, and why not Sydney?",
)
ANSWERS = (
    "Sunlight is scattered by the molecules of the air, and short blue waves are scattered far more than long red ones.",
    "Thank you so much for the invitation. I am afraid that I cannot come on Friday, but I would love to another time.",
    "Holding papers together, resetting a small device through its pinhole, and serving as an improvised zip pull.",
    "Canberra is the capital of Australia; it was founded as a compromise between its rivals, Sydney and Melbourne.",
)
INTENTS = ("order", "return", "complaint", "question")
MACHINE = "cpu, 2 cores, float32, vLLM 0.25, K = 64"


def run_results(
    *, experiment: str = "quickstart", prompts: int = 40, seed: int = 0, students: Mapping[str, str] | None = None
) -> RunResults:
    """A run as it should be: a teacher, an untouched student, and students by name and method."""
    methods = students or {"seqkd": "seqkd", "kd": "kd", "minillm": "seqkd, minillm"}
    quality = {"teacher": 1.0, "untouched": 0.25} | {name: 0.55 + 0.12 * place for place, name in enumerate(methods)}
    random = np.random.default_rng(seed)
    rows = [_row(index, random) for index in range(60)]
    models = [
        _model(name, role="teacher" if name == "teacher" else "untouched" if name == "untouched" else "student",
               method=methods.get(name, ""), quality=level, prompts=prompts, rows=rows, place=place)
        for place, (name, level) in enumerate(quality.items())
    ]  # fmt: skip
    return RunResults(
        experiment=experiment,
        settings=_settings(methods),
        prompts=tuple(PROMPTS[i % 4] if i < 4 else f"{PROMPTS[i % 4]} ({i})" for i in range(prompts)),
        references=tuple(ANSWERS[i % 4] for i in range(prompts)),
        reference_tokens=tuple(24 + i % 5 for i in range(prompts)),
        models=tuple(models),
        tasks=(task_facts("intents"), replace(task_facts("sentiment"), set_aside=("test row 7: no label",))),
        cost=run_cost(),
        provenance=provenance(experiment),
        rows_set_aside=3,
        failures=(),
        notes=("kd was selected at step 120 of 200 by dev KL",),
    )


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


def with_holes(run: RunResults) -> RunResults:
    """The same run with nothing measured but the answers."""
    models = tuple(
        replace(
            model, closeness=None, exposure=None, tasks=(), serving=None, training=None, disk_bytes=0,
            failures=("speed: the engine did not start",),
        )
        for model in run.models
    )  # fmt: skip
    cost = RunCost((StageCost("fill", math.nan, math.nan, math.nan),), "", 0, 0, *[math.nan] * 5, "")
    return replace(run, models=models, tasks=(), cost=cost, notes=(), rows_set_aside=0)


def task_facts(name: str) -> TaskFacts:
    """A task of classification."""
    return TaskFacts(
        name=name,
        digest=f"digest of {name}",
        kind="classification",
        labels=INTENTS,
        metric="accuracy",
        few_shot=2,
        train_rows=200,
        dev_rows=40,
        test_rows=60,
        baseline=0.3,
        exact_copies=1,
        near_copies=2,
        near_duplicate=0.8,
        set_aside=(),
        train_label_counts={"order": 120, "return": 50, "complaint": 20, "question": 10},
        licence="CC0-1.0",
    )


def run_cost() -> RunCost:
    """Four stages, with prices."""
    stages = (
        StageCost("fill", 184.2, 9_200.0, 0.00081),
        StageCost("train kd", 96.0, 5_100.0, 0.00045),
        StageCost("train minillm", 141.0, 7_800.0, 0.00069),
        StageCost("comparison", 75.5, 3_600.0, 0.00032),
    )
    return RunCost(
        stages=stages,
        energy_source="codecarbon 3.3, CPU power estimated from its TDP",
        teacher_tokens=18_400,
        saved_tokens=126_000,
        teacher_hours=0.051,
        saved_hours=0.35,
        saved_joules=63_000.0,
        paid=0.0051,
        saved=0.035,
        currency="EUR",
    )


def provenance(experiment: str) -> Provenance:
    """A teacher without a known licence."""
    return Provenance(
        teacher="smollm2-135m",
        teacher_identity="a1" * 32,
        teacher_licence="Apache-2.0",
        cache_digest="c3" * 32,
        config_digest=experiment.encode().hex().ljust(64, "0")[:64],
        data={"data.train": "d4" * 32, "data.test": "e5" * 32},
        versions={"stillroom": "0.1.0", "torch": "2.13.0", "vllm": "0.25.0"},
    )


def _settings(methods: Mapping[str, str]) -> dict[str, str]:
    settings = {"name": "quickstart", "teacher.model": "smollm2-135m", "teacher.top_k": "64"}
    for place, (name, method) in enumerate(methods.items()):
        settings |= {
            f"students.{name}.init.layers": "8",
            f"students.{name}.stages.0.objective": method.split(", ")[0],
            f"students.{name}.stages.0.learning_rate": f"{1 + place}e-4",
        }
    return settings


def _row(index: int, random: np.random.Generator) -> tuple[int, str, str, float]:
    label = INTENTS[int(random.choice(4, p=(0.5, 0.25, 0.15, 0.1)))]
    return index, label, f"Customer: message number {index} about my {label}.", float(random.random())


def _model(
    name: str, *, role: str, method: str, quality: float, prompts: int, rows: list[tuple[int, str, str, float]], place: int
) -> ModelResults:  # fmt: skip
    random = np.random.default_rng(100 + place)
    teacher = role == "teacher"
    parameters = 134_515_008 if teacher else 28_340_000 + 1000 * place
    return ModelResults(
        name=name,
        role=role,
        method=method,
        start="untouched" if role == "student" else None,
        digest=f"{place:02d}" * 32,
        parameters=parameters,
        disk_bytes=4 * parameters,
        closeness=_closeness(quality, prompts, random),
        exposure=None if teacher else _exposure(quality),
        answers=tuple(_answer(index, quality, random) for index in range(prompts)),
        answer_tokens=tuple(int(20 + 8 * random.random()) for _ in range(prompts)),
        tasks=tuple(_scores(task, quality, rows, random) for task in ("intents", "sentiment")),
        serving=_serving(0.018 if teacher else 0.0046 + 0.0002 * place, 2.1 if teacher else 0.4 + 0.02 * place),
        training=_training(quality, place) if role == "student" else None,
        failures=("exposure: fewer than 8 answers are long enough",) if role == "untouched" else (),
    )


def _answer(index: int, quality: float, random: np.random.Generator) -> str:
    words = ANSWERS[index % 4].split()
    return " ".join(word if random.random() < quality else str(random.choice(words)) for word in words)


def _scores(
    task: str, quality: float, rows: list[tuple[int, str, str, float]], random: np.random.Generator
) -> FinalScores:
    examples = []
    for index, label, shown, difficulty in rows:
        right = difficulty < 0.35 + 0.58 * quality
        unread = not right and random.random() < 0.1
        predicted = label if right else INTENTS[(INTENTS.index(label) + 1) % 4]
        examples.append(
            TaskExample(
                row=index, seed=0, shown=shown, gold=(label,), answer="" if unread else predicted,
                predicted=None if unread else (predicted,), confidence=float(0.5 + 0.45 * random.random()),
                tokens=int(20 + 80 * difficulty),
            )
        )  # fmt: skip
    return FinalScores(task, "text", tuple(examples))


def _closeness(quality: float, prompts: int, random: np.random.Generator) -> Closeness:
    """Answers of about 24 tokens; the farther from the teacher, the more confident and the less right."""
    rows = []
    for _ in range(prompts):
        tokens = 20 + int(8 * random.random())
        kl = tokens * (0.02 + 1.6 * (1 - quality) * (0.6 + 0.8 * random.random()))
        confidence = 0.3 + 0.69 * random.random(tokens)
        hits = (random.random(tokens) < confidence * (0.6 + 0.4 * quality)).astype(np.float64)
        places = np.minimum((confidence * BINS).astype(int), BINS - 1)
        bins = [np.bincount(places, weights=each, minlength=BINS) for each in (np.ones(tokens), confidence, hits)]
        agreed = float(int(tokens * (0.4 + 0.55 * quality)))
        sums = (tokens, kl, 1.2 * kl, agreed, 0.9 * tokens, 1.1 * tokens + kl, ((confidence - hits) ** 2).sum())
        wording = (1.0, 0.3 + 0.6 * quality, tokens * (1.3 - 0.3 * quality), tokens)
        rows.append(tuple(float(each) for each in (*sums, *np.stack(bins, axis=1).ravel(), *wording)))
    return Closeness((*COLUMNS, *WORDING), tuple(rows))


def _exposure(quality: float) -> Exposure:
    length = 32
    counts = tuple(40 - place // 2 for place in range(length))
    forced = tuple(count * (1 - quality) * 1.4 for count in counts)
    free = tuple(count * (1 - quality) * (1.4 + place / 20) for place, count in enumerate(counts))
    return Exposure(free, counts, forced, counts, tuple(12.0 * (1 - quality) + i % 3 for i in range(40)), (24,) * 40)


def _serving(token_s: float, joules: float) -> Serving:
    speeds = tuple(
        Speed(
            batch,
            _spread(token_s * 6),
            _spread(token_s * (1 + batch / 40)),
            _spread(batch / (token_s * (1 + batch / 40))),
        )
        for batch in (1, 8, 32)
    )
    return Serving(MACHINE, speeds, 1.9e9, 0.0, joules)


def _spread(median: float) -> Spread:
    return Spread(median, median * 0.97, median * 1.06, 5)


def _training(quality: float, place: int) -> Training:
    steps = range(0, 201, 5)
    curves = {
        "train/loss": tuple(
            (step, 1.2 * (1 - quality) + 2.4 * math.exp(-step / 40) + 0.03 * (step % 3)) for step in steps
        ),
        "dev/forward_kl": tuple((step, 1.6 * (1 - quality) + 2.0 * math.exp(-step / 55)) for step in range(0, 201, 40)),
        "train/learning_rate": tuple((step, 1e-4) for step in steps),
    }
    return Training(88.0 + 21 * place, 240_000 + 1000 * place, 5_000.0, "cpu, 2 cores", curves)
