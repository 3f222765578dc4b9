"""The report in a browser: nothing is asked for, nothing overflows, everything can be read aloud and seen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from hostile_results import hostile
from playwright.sync_api import Browser, Page, sync_playwright
from results_builders import finished_run, task_model, task_run, with_holes

from evaluation.report.contents import contents, title_of
from evaluation.report.page import page_of
from evaluation.results import RunResults

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine: install the package chromium"),
]

PAGES = ("whole", "hostile", "holes", "several", "task", "bare-task", "hostile-task")


def distilled_task() -> RunResults:
    """A teacher, students with several seeds, and what gold labels alone are worth."""
    return task_run(
        task_model("teacher", role="teacher", right=92, text_s=0.02, disk_bytes=440_000_000, parameters=110_000_000),
        task_model("tiny-transformer", right=90, seeds=3, text_s=0.004, disk_bytes=60_000_000),
        task_model("tiny-transformer-gold", right=84, method="hard_labels", text_s=0.004, disk_bytes=60_000_000),
        task_model("bag", right=70, text_s=0.0002, disk_bytes=9_000_000, parameters=2_000_000),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("report")
    run, of_task = finished_run(), distilled_task()
    models = tuple(replace(model, tasks=(), dev=(), serving=None, failures=("no",)) for model in of_task.models)
    bare = replace(of_task, models=models)
    for name, runs in (
        ("whole", [run]),
        ("hostile", [hostile(run)]),
        ("holes", [with_holes(run)]),
        ("several", [run, finished_run(experiment="longer", prompts=12)]),
        ("task", [of_task]),
        ("bare-task", [bare]),
        ("hostile-task", [hostile(of_task)]),
    ):
        (place / f"{name}.html").write_text(page_of(title_of(runs), contents(runs)), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium does not run as root with its sandbox on.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page in a window of some width and theme, with what it said and asked for."""

    def __init__(self, browser: Browser, path: Path, *, width: int, scheme: str = "light") -> None:
        context = browser.new_context(
            color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": 900}
        )
        self.page: Page = context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())


@pytest.mark.parametrize("name", PAGES)
def test_it_says_nothing_and_asks_for_nothing(browser: Browser, written: Path, name: str) -> None:
    path = written / f"{name}.html"
    opened = Opened(browser, path, width=1280)
    opened.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert opened.said == []
    assert [url for url in opened.asked if url not in (path.as_uri(), "data:,")] == []


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_overflows(browser: Browser, written: Path, name: str, width: int) -> None:
    page = Opened(browser, written / f"{name}.html", width=width).page
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    beyond = """() => [...document.querySelectorAll('p, li, dd, h1, h2, h3, figure, svg.chart, .scrolls')]
        .filter(each => each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 90))"""
    assert page.evaluate(beyond) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_it_can_be_read_by_everybody(browser: Browser, written: Path, name: str, scheme: str) -> None:
    page = Opened(browser, written / f"{name}.html", width=1280, scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_the_theme_reaches_the_charts(browser: Browser, written: Path) -> None:
    script = "getComputedStyle(document.querySelector('svg.chart text')).fill"
    colours = {
        scheme: Opened(browser, written / "whole.html", width=1280, scheme=scheme).page.evaluate(script)
        for scheme in ("light", "dark")
    }
    assert colours["light"] != colours["dark"]


def test_the_text_of_a_chart_stays_inside(browser: Browser, written: Path) -> None:
    page = Opened(browser, written / "whole.html", width=1280).page
    outside = """() => [...document.querySelectorAll('svg.chart')].flatMap(chart => {
        const frame = chart.getBoundingClientRect();
        return [...chart.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()])
            .filter(([_, box]) => box.left < frame.left - 2 || box.right > frame.right + 8).map(([text]) => text);
    })"""
    assert page.evaluate(outside) == []


def test_what_is_folded_is_printed(browser: Browser, written: Path) -> None:
    page = Opened(browser, written / "whole.html", width=1280).page
    heights = []
    for media in ("screen", "print"):
        page.emulate_media(media="print" if media == "print" else "screen")
        heights.append(page.evaluate("document.querySelector('details:not([open])').getBoundingClientRect().height"))
    assert heights[1] > 4 * heights[0]
