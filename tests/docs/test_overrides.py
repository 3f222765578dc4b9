"""What the pages say with `SET=` and `--set` can be set, and changes the experiment that it is said of."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from configs import ConfigError, load_config

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "Makefile", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))))

SET = re.compile(r'\bSET="([^"]+)"')
FLAG = re.compile(r"""--set[ =]('[^']+'|"[^"]+"|[^\s`"']+=[^\s`"']+)""")
CONFIG = re.compile(r"(?:\bCONFIG=|--config[ =])([\w./-]+\.yaml)")

PATTERN = re.compile(r"[a-z](\.[a-z])*=[a-z]")
"""`a.b=c` says how an override is written, and names no key."""


@dataclass(frozen=True, slots=True)
class Override:
    """An override as a page has it; without a configuration on its line it is said of what `make` takes by itself."""

    page: str
    line: int
    text: str
    config: str


def overrides(page: str, text: str) -> list[Override]:
    """The overrides of a page."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(r"SET\s*\?=", line):
            continue
        said = [one for words in SET.findall(line) for one in words.split()]
        said += [one for word in FLAG.findall(line) for one in shlex.split(word)]
        config = CONFIG.search(line)
        found += [
            Override(page, number, one, config[1] if config else usual_config())
            for one in said
            if not PATTERN.fullmatch(one)
        ]
    return found


def usual_config() -> str:
    """What `make` takes unless `CONFIG` names another."""
    found = re.search(r"^CONFIG\s*\?=\s*(\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


def require_change(override: Override) -> None:
    """Refuse an override that cannot be set, or that changes nothing.

    Raises:
        ConfigError: it names no key, or a value that its key does not take.
    """
    path = ROOT / override.config
    assert load_config(path, overrides=[override.text]) != load_config(path), "it is what the file says already"


SAID = [each for page in PAGES for each in overrides(page, (ROOT / page).read_text(encoding="utf-8"))]


@pytest.mark.parametrize("override", SAID, ids=lambda each: f"{each.page}:{each.line} {each.text}")
def test_it_can_be_set_and_changes_something(override: Override) -> None:
    require_change(override)


def test_the_readmes_is_among_them() -> None:
    assert {each.page for each in SAID} >= {"README.md", "Makefile"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('    make distill SET="students.kd.stages.0.steps=9 name=x"', ["students.kd.stages.0.steps=9", "name=x"]),
        ("`distill run --config configs/tiny.yaml --set name=x`", ["name=x"]),
        ("ARGS=\"--set 'data.train.path=my dir/t.jsonl'\"", ["data.train.path=my dir/t.jsonl"]),
        ("`--set a.b=c` overrides any value, and `--set` alone is a word", []),
    ],
)
def test_every_way_of_saying_it_is_found(line: str, found: list[str]) -> None:
    assert [each.text for each in overrides("page", line)] == found
    wanted = "configs/tiny.yaml" if "tiny" in line else "configs/quickstart.yaml"
    assert {each.config for each in overrides("page", line)} <= {wanted}


def test_a_misspelt_one_is_refused() -> None:
    (override,) = overrides("page", 'make distill SET="students.kd.stages.0.learning_rat=2e-4"')
    with pytest.raises(ConfigError, match="learning_rat"):
        require_change(override)
