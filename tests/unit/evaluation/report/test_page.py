from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hostile_results import HOSTILE, hostile
from results_builders import finished_run, with_holes

from evaluation.report.contents import contents, title_of
from evaluation.report.page import page_of
from evaluation.results import RunResults

ROOT = Path(__file__).resolve().parents[4]


def page_for(*runs: RunResults) -> str:
    return page_of(title_of(runs), contents(runs))


class Tags(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return page_for(finished_run(prompts=6))


@pytest.fixture(scope="module")
def hostile_page() -> str:
    return page_for(hostile(finished_run(prompts=6)))


def test_it_is_one_file_that_asks_for_nothing(page: str) -> None:
    found = Tags(page)
    assert {tag for tag, _ in found.tags} & {"script", "iframe", "object", "img", "form", "base"} == set()
    targets = [
        value
        for _, attributes in found.tags
        for name, value in attributes.items()
        if name in ("href", "src", "xlink:href")
    ]
    assert targets and all(str(target).startswith(("#", "data:,")) for target in targets)
    assert "url(" not in re.sub(r"url\(#[^)]+\)", "", page)
    assert "@import" not in page


@pytest.fixture(scope="module")
def page_of_two() -> str:
    return page_for(finished_run(prompts=2), finished_run(experiment="other", prompts=3))


@pytest.mark.parametrize("which", ["page", "page_of_two"])
def test_links_lead_somewhere_and_ids_are_unique(which: str, request: pytest.FixtureRequest) -> None:
    found = Tags(request.getfixturevalue(which))
    ids = [str(attributes["id"]) for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(attributes["href"])[1:] for tag, attributes in found.tags if tag == "a"]
    assert links and set(links) <= set(ids)


def test_hostile_text_is_text(page: str, hostile_page: str) -> None:
    found = Tags(hostile_page)
    assert {tag for tag, _ in found.tags} == {tag for tag, _ in Tags(page).tags} | {"h3"}
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert HOSTILE[0] in found.text and HOSTILE[1] in found.text and HOSTILE[4] in found.text
    for hidden in "\u202e\u2066\u200b\ufeff\x1b\x07":
        assert hidden not in hostile_page
    assert "\\u202e backwards" in found.text and "\\ud800" in found.text
    hostile_page.encode()
    assert len(hostile_page) < 2 * len(page)


def test_what_is_missing_is_said_in_words() -> None:
    text = Tags(page_for(with_holes(finished_run(prompts=2)))).text
    assert re.search(r"\b(nan|inf|None)\b", text.partition("}\n\n")[2] or text) is None
    assert "not measured" in text and "no prices set" in text


def test_a_mark_is_a_sign_and_a_sentence(page: str) -> None:
    assert re.search(
        r'<span class="mark better"><span aria-hidden="true">▲ start</span><span class="aside">against untouched: better by',
        page,
    )


def test_another_process_makes_the_same_bytes(page: str) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests/support'); from results_builders import finished_run; "
        "from evaluation.report.contents import contents, title_of; from evaluation.report.page import page_of; "
        "runs = [finished_run(prompts=6)]; sys.stdout.buffer.write(page_of(title_of(runs), contents(runs)).encode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, env={"PYTHONHASHSEED": "7", "PATH": "", "HOME": "/"},
    )  # fmt: skip
    assert done.stdout.decode() == page


def test_every_series_has_a_colour_in_all_themes(page: str) -> None:
    style = page[page.index("<style>") : page.index("</style>")]
    defined = set(re.findall(r"(--[\w-]+):", style))
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= defined
    for scheme in ("prefers-color-scheme: dark", "@media print"):
        block = style[style.index(scheme) :]
        assert set(re.findall(r"(--[\w-]+):", block[: block.index("}")])) == defined
