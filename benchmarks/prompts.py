"""How fast rows become prompts, and what they take of memory: N rows and four times as many, each in its own process.

The tokenizer and the chat template are those of the quickstart's teacher. The floor is the tokenizer alone: the same
text, with what the template writes around it, in batches of as many rows, on the same cores and in the same process
just afterwards. Of a row only its place is held, so a further row takes a few bytes.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.measurement import Measurement, at_least, at_most
from configs import load_config
from configs.schema import DataConfig
from orchestration.inputs.models import load_tokenizer, locate_model
from orchestration.inputs.prompt_reader import ROWS_AT_ONCE
from orchestration.inputs.tokenizing import tokenizing_on_all_cores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONFIG = Path("configs/quickstart.yaml")
ROWS, TIMES = 50_000, 4
WORDS_A_ROW = 20
LEAST_ROWS_S = 1_000_000 / 180
"""A million in three minutes, on two cores."""

MOST_TIMES_FLOOR = 1.5
MOST_BYTES_A_ROW = 100
"""Ten million rows in one gigabyte."""


def bench_prompts() -> Iterator[Measurement]:
    """Rows a second through the chat template, and as they are; the memory of a row, at N and at 4N."""
    with TemporaryDirectory() as place:
        source = load_config(CONFIG).teacher.model
        model = locate_model(source, models_root=Path(place) / "models")
        few, many = (_measured(Path(place), rows=rows, template="chat", model=model) for rows in (ROWS, TIMES * ROWS))
        raw = _measured(Path(place), rows=ROWS, template="raw", model=model)
    yield at_least(
        f"{TIMES * ROWS:,} rows through a chat template, a second",
        many["rows_s"],
        LEAST_ROWS_S,
        digits=0,
        peers={f"{ROWS:,} rows": few["rows_s"], "without a template": raw["rows_s"]},
        note=f"{1e6 * many['cpu_s'] / (TIMES * ROWS):.0f} µs of processor a row",
    )
    yield at_most(
        "the same, in times of the tokenizer alone",
        many["floor_rows_s"] / many["rows_s"],
        MOST_TIMES_FLOOR,
        unit="x",
        peers={f"{ROWS:,} rows": few["floor_rows_s"] / few["rows_s"]},
        note=f"the tokenizer takes {1e6 * many['floor_cpu_s'] / (TIMES * ROWS):.0f} µs of processor a row",
    )
    yield at_most(
        f"memory of a further row among {TIMES * ROWS:,}",
        (many["bytes"] - few["bytes"]) / ((TIMES - 1) * ROWS),
        MOST_BYTES_A_ROW,
        unit="B",
        digits=0,
        peers={f"of each, with all that is held once, among {ROWS:,}": few["bytes"] / ROWS},
    )


def _measured(place: Path, *, rows: int, template: str, model: Path) -> dict[str, float]:
    """What a process of its own says."""
    folder = place / str(rows)
    if not folder.exists():
        write_rows(folder, rows)
    command = [sys.executable, "-m", "benchmarks.prompts", str(folder), template, str(model)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_rows(folder: Path, rows: int) -> None:
    folder.mkdir()
    drawn = random.Random(0)
    words = ["".join(drawn.choices("abcdefghijklmnopqrstuvwxyz", k=drawn.randint(2, 8))) for _ in range(500)]
    for split, count in (("train", rows), ("dev", 8), ("test", 8)):
        with (folder / f"{split}.jsonl").open("w") as stream:
            for at in range(count):
                text = f"{split} {at}: {' '.join(drawn.choices(words, k=WORDS_A_ROW))}"
                stream.write(json.dumps({"prompt": text}) + "\n")


def _read(folder: Path, template: str, model: Path) -> None:
    """Read the rows of a folder and print what that took."""
    from orchestration.inputs.prompt_splits import load_prompts

    tokenizer = load_tokenizer(model, label="the teacher")
    splits = {split: {"path": str(folder / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    config = DataConfig.model_validate({**splits, "template": template})
    before, began, computed = peak_bytes(), time.monotonic(), cpu_s()
    prompts = load_prompts(config, tokenizer=tokenizer, stop_ids=(2,), max_new_tokens=64)
    seconds, rows = time.monotonic() - began, len(prompts.splits["train"])
    found = {"rows_s": rows / seconds, "bytes": peak_bytes() - before, "cpu_s": cpu_s() - computed}
    computed = cpu_s()
    floor = tokenizer_s(folder, tokenizer)
    print(json.dumps({**found, "floor_rows_s": rows / floor, "floor_cpu_s": cpu_s() - computed}))


def tokenizer_s(folder: Path, tokenizer: PreTrainedTokenizerBase) -> float:
    """Seconds that the tokenizer alone takes for the training rows of a folder with their template around them."""
    asked = [{"role": "user", "content": "{}"}]
    frame = str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
    with (folder / "train.jsonl").open() as stream:
        texts = [frame.replace("{}", json.loads(line)["prompt"]) for line in stream]
    with tokenizing_on_all_cores():
        began = time.monotonic()
        for at in range(0, len(texts), ROWS_AT_ONCE):
            tokenizer(texts[at : at + ROWS_AT_ONCE], add_special_tokens=False, return_attention_mask=False)
        return time.monotonic() - began


def peak_bytes() -> int:
    # Not `ru_maxrss`, in which a process counts what the one had that it was started by.
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def cpu_s() -> float:
    """Of this process and of the templates' that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    _read(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
