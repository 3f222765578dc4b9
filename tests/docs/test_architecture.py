"""docs/architecture.md names the tree as it is, and only files that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("configs", "cache", "teacher_server", "student_train", "evaluation", "orchestration")
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def drawn() -> dict[str, set[str]]:
    """The modules of every folder as the page draws them: a folder ends in `/`, its modules stand below it."""
    found: dict[str, set[str]] = {}
    parents: list[str] = []
    for line in re.findall(r"^```\n(configs/.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0].splitlines():
        indent = len(line) - len(line.lstrip())
        first = line.split()[0]
        if first.endswith("/"):
            parents[indent // 2 :] = [first.rstrip("/")]
            found["/".join(parents)] = set()
        else:
            found["/".join(parents)] |= set(line.split())
    return found


def test_the_tree_is_the_tree() -> None:
    there: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            modules = there.setdefault(path.parent.relative_to(ROOT).as_posix(), set())
            if not path.stem.startswith("__"):
                modules.add(path.stem)
    assert drawn() == there


def test_every_file_that_it_names_exists() -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.py)`|\]\((\S+\.md)\)", PAGE)
    missing = [code or page for code, page in named if not (ROOT / code if code else ROOT / "docs" / page).exists()]
    assert missing == []


def test_it_says_where_at_least_twenty_things_are_changed() -> None:
    table = PAGE.partition("## Where do I change")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith(("| what", "|---"))]
    assert len(rows) >= 20
    assert all(re.search(r"`[\w/]+\.py`|\]\(\S+\.md\)", row.split("|")[2]) for row in rows)
