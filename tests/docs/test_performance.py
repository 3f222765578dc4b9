"""docs/performance.md explains every benchmark by its name, and the files that it shows are there."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.gpu.parts import PARTS
from benchmarks.running import found_benchmarks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
CODE = set(re.findall(r"`(\w+)`", PAGE))


def test_every_benchmark_is_explained_by_its_name() -> None:
    assert set(found_benchmarks()) - CODE == set(), "say what it measures, its floor, and what was measured"


def test_every_part_for_a_gpu_is_named() -> None:
    assert set(PARTS) - CODE == set()


def test_it_names_no_benchmark_that_is_gone() -> None:
    entries = re.findall(r"^((?:`\w+`(?:, )?)+): \*\*", PAGE, re.MULTILINE)
    named = {name for entry in entries for name in re.findall(r"\w+", entry)}
    assert named and named <= set(found_benchmarks())


def test_what_it_shows_is_there_and_the_readme_leads_to_it() -> None:
    shown = re.findall(r"\]\((?!http)([^)#]+)", PAGE)
    assert [path for path in shown if not (ROOT / "docs" / path).is_file()] == []
    assert "(docs/performance.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
