"""The comparison at the end: a table, sample answers side by side, and the same as files in the run directory."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from configs.visible_text import markdown_text, visible
from orchestration.outputs.artifacts import write_json
from orchestration.outputs.console import Console, clock
from orchestration.outputs.fields import from_fields
from orchestration.outputs.foundations import RestsOn
from orchestration.outputs.kept import OutdatedError, read_sealed, sealed

ANSWER_SHOWN = 240
"""Characters of a sample answer that the terminal shows; the files hold all of it."""

COLUMNS = ("model", "params", "KL(teacher‖·)", "KL(·‖teacher)", "top-1", "Rouge-L", "ppl", "tok/s")

REPORT = "stillroom/report/2"
"""The schema of a kept comparison, with its version."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model's row. Divergences in nats a token, agreement a fraction, Rouge-L x 100.

    `measured_on` says in words what the speed was measured on: speeds can be compared where it is the same. `digest` is
    what the evaluation is addressed by.
    """

    name: str
    role: str
    parameters: int
    forward_kl: float
    forward_kl_stderr: float
    reverse_kl: float
    top1_agreement: float
    perplexity: float
    rouge_l: float
    tokens_per_s: float
    measured_on: str
    answers: tuple[str, ...]
    digest: str

    def metrics(self) -> dict[str, float]:
        """The numbers under their names in MLflow."""
        names = (
            "forward_kl", "forward_kl_stderr", "reverse_kl", "top1_agreement", "perplexity", "rouge_l", "tokens_per_s"
        )  # fmt: skip
        return {f"eval/test/{name}": float(getattr(self, name)) for name in names} | {
            "eval/parameters": float(self.parameters)
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A finished experiment: `rests_on` is what it was made from, `notes` what a reader of its table has to know."""

    experiment: str
    config_digest: str
    cache_digest: str
    prompts: tuple[str, ...]
    references: tuple[str, ...]
    models: tuple[Evaluated, ...]
    times: tuple[tuple[str, float], ...]
    teacher_forward_tokens: int
    rejected_rows: int
    rests_on: RestsOn
    notes: tuple[str, ...] = ()


def write_report(report: Report, run_dir: Path) -> None:
    """Write `report.json` and `report.md`; the first marks the experiment as finished."""
    # Text may hold half a surrogate pair, which no file can.
    (run_dir / "report.md").write_text(_markdown(report), encoding="utf-8", errors="backslashreplace")
    write_json(run_dir / "report.json", sealed(REPORT, report.config_digest, asdict(report)))


def read_report(run_dir: Path) -> Report | None:
    """The report of a finished experiment, or None.

    Raises:
        OutdatedError: it is not what was written, or another version wrote it.
    """
    path = run_dir / "report.json"
    raw = read_sealed(path, schema=REPORT)
    if raw is None:
        return None
    try:
        report = from_fields(Report, raw)
        if {len(report.prompts), *(len(model.answers) for model in report.models)} != {len(report.references)}:
            raise ValueError("it does not have an answer to every prompt")
    except ValueError as error:
        raise OutdatedError(f"{path}: is not a comparison ({error})") from error
    return report


def print_report(report: Report, console: Console, *, samples: int) -> None:
    """Show the table, `samples` answers side by side and the times."""
    table = Table(title=f"{report.experiment}: held-out comparison ({len(report.prompts)} test prompts)")
    for title in COLUMNS:
        table.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    marks = speed_marks(report)
    for model in report.models:
        table.add_row(*_cells(model, mark=marks.get(model.measured_on, "")))
    console.say(table)
    for note in _notes(report):
        console.warn(note)
    for index in range(min(samples, len(report.prompts))):
        console.say(_sample(report, index))
    if report.times:
        console.say(
            "Times: "
            + ", ".join(f"{title} {clock(seconds)}" for title, seconds in report.times)
            + f"; together {clock(sum(seconds for _, seconds in report.times))}"
        )


def speed_marks(report: Report) -> dict[str, str]:
    """A letter for each machine and setting that speeds were measured on; empty where there is only one.

    A model that was measured for an earlier experiment keeps its speed, whatever it was measured on then.
    """
    kinds = list(dict.fromkeys(model.measured_on for model in report.models))
    return {kind: f" {_letter(number)}" for number, kind in enumerate(kinds)} if len(kinds) > 1 else {}


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"#{number}"


def _notes(report: Report) -> list[str]:
    """What a reader of the table has to know."""
    speeds = [f"tok/s{mark}: {kind}" for kind, mark in speed_marks(report).items()]
    if speeds:
        speeds.insert(0, "Speeds that bear different letters were measured on different machines or settings:")
    return [*report.notes, *speeds]


def _cells(model: Evaluated, *, mark: str) -> tuple[str, ...]:
    # One sequence alone has no standard error.
    interval = "" if math.isnan(model.forward_kl_stderr) else f" ± {1.96 * model.forward_kl_stderr:.3f}"
    return (
        model.name,
        f"{model.parameters / 1e6:,.1f} M",
        f"{model.forward_kl:.3f}{interval}",
        f"{model.reverse_kl:.3f}",
        f"{100 * model.top1_agreement:.1f} %",
        f"{model.rouge_l:.1f}",
        f"{model.perplexity:,.2f}" if model.perplexity < 1e5 else f"{model.perplexity:.1e}",
        f"{model.tokens_per_s:,.0f}{mark}",
    )


def _sample(report: Report, index: int) -> Table:
    table = Table(title=_short(report.prompts[index]), title_justify="left", show_header=False, min_width=60)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold", max_width=100)
    for model in report.models:
        table.add_row(model.name, _short(model.answers[index]))
    return table


def _short(text: str) -> str:
    """One line, cut; an answer that would drive the terminal shows how."""
    return visible(" ".join(text.split()), at_most=ANSWER_SHOWN)


def _markdown(report: Report) -> str:
    marks = speed_marks(report)
    lines = [
        f"# {markdown_text(report.experiment)}",
        "",
        f"Config `{report.config_digest[:12]}`, test view `{report.cache_digest[:12]}`, "
        f"{report.teacher_forward_tokens:,} teacher forward tokens, {report.rejected_rows} rows set aside.",
        "KL in nats a token at the teacher's answers (tail bucket, 95 % interval over sequences); the teacher's own "
        "row is the noise floor: the live teacher against what the cache keeps of it.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *(
            "| " + " | ".join(map(markdown_text, _cells(model, mark=marks.get(model.measured_on, "")))) + " |"
            for model in report.models
        ),
        "",
        *(f"- {visible(note)}" for note in _notes(report)),
    ]
    for index, prompt in enumerate(report.prompts):
        lines += ["", f"## Prompt {index + 1}", "", *_literal(prompt)]
        lines += ["", "**teacher (cached)**", "", *_literal(report.references[index])]
        for model in report.models:
            lines += ["", f"**{markdown_text(model.name)}**", "", *_literal(model.answers[index])]
    return "\n".join(lines) + "\n"


def _literal(text: str) -> list[str]:
    """The lines of a code block: whatever a model writes, headings and HTML included, stays text."""
    shown = visible(text.replace("\r\n", "\n"), lines=True)
    return [f"    {line}" for line in shown.splitlines()] or ["    (empty)"]
