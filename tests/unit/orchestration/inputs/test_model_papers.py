"""What the files of a model say of its licence: cards of all kinds, and the papers beside it or of its package."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_cards import save_card

from configs.models import ModelSource
from orchestration.inputs.model_papers import licence_of_model, licence_on_card, papers_of_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("written", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit AND apache-2.0"),
        ("---\nlicense: unknown\n---\n", None),
        ("---\nlicense: other\n---\n", None),
        ("---\ntags: [x]\n---\n", None),
        ("no front matter", None),
        ("", None),
        ("---\nlicense: [\n---\n", None),
        ("---\n- a list\n---\n", None),
    ],
)
def test_the_front_matter_of_a_card_is_read_and_never_fatal(model: Path, written: str, licence: str | None) -> None:
    (model / "README.md").write_text(written, encoding="utf-8")
    assert licence_on_card(model) == licence


def test_a_card_that_is_no_file_says_nothing(model: Path) -> None:
    assert licence_on_card(model) is None
    (model / "README.md").mkdir()
    assert licence_on_card(model) is None


def test_a_model_is_asked_for_its_card_where_it_lies(model: Path, tmp_path: Path) -> None:
    save_card(model, licence="mit")
    assert licence_of_model(ModelSource(path=model), models_root=tmp_path / "models", fetch=False) == "mit"
    away = ModelSource(hub="nobody/has-this")
    assert licence_of_model(away, models_root=tmp_path / "models", fetch=False) is None


def test_what_lies_beside_a_model_is_its_papers(model: Path, tmp_path: Path) -> None:
    (model / "LICENSE").write_text("the licence")
    (model / "config.json").write_text("{}")
    assert papers_of_model(ModelSource(path=model), models_root=tmp_path) == {"LICENSE": b"the licence"}
