"""Rows that came with an archive bring the licence along under which they were bought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from store_builders import TEACHER, VOCAB, answer, make_request, open_cache

from cache.disk.roots import open_storage
from cache.upkeep.archives import export_archive, import_archive
from configs import ConfigError
from configs.schema import TeacherConfig
from orchestration.inputs.imported_licences import imported_in_words, papers_of_imported
from student_train.papers import Papers


def imported(root: Path, *licences: str | None) -> Path:
    """A cache with a row of its own, and one that came with an archive under each of these licences."""
    here = root / "here"
    for at, licence in enumerate(licences):
        there = root / f"there-{at}"
        request = make_request((7, at + 2))
        open_cache(there).put([answer(request)], vocab=VOCAB, licence=licence)
        archive = root / f"{at}.tar"
        storage = open_storage(there, TEACHER.digest(), create=False)
        export_archive(storage, archive, identity=TEACHER.digest())
        import_archive(here, archive)
    own = make_request((9, 9))
    open_cache(here).put([answer(own)], vocab=VOCAB, licence="llama2 (used all the same: ours)")
    return here


def teacher(**values: Any) -> TeacherConfig:
    return TeacherConfig.model_validate({"model": {"path": "teacher"}, **values})


def papers(root: Path, **values: Any) -> tuple[Papers, ...]:
    return papers_of_imported(root, TEACHER.digest(), teacher(**values), key="teacher")


def test_a_student_owes_what_either_licence_asks(tmp_path: Path) -> None:
    here = imported(tmp_path, "apache-2.0", "llama3.3", "Apache-2.0", "llama3.3")
    (found,) = papers(here, licence="apache-2.0")
    assert found.teacher.name == "_imported1" and found.teacher.licence == "llama3.3"
    assert found.teacher.label == "teacher (imported rows)" and found.teacher.duties.name_prefix == "Llama"
    (line,) = imported_in_words([found], key="teacher")
    assert line.startswith(
        "teacher: teacher (imported rows) were bought under llama3.3, and so of every student: its name begins with Llama"
    )


def test_rows_that_were_asked_for_here_are_not_told_of(tmp_path: Path) -> None:
    assert papers(imported(tmp_path), licence="apache-2.0") == ()


@pytest.mark.parametrize(
    ("licence", "why"),
    [
        ("llama2", "were bought under llama2, which lets no student learn from it"),
        ("llama2 (used all the same: they may)", "which was used all the same by whoever did (they may)"),
        ("not stated (used all the same: they may)", "under an unknown licence, which was used all the same"),
    ],
)
def test_a_reason_of_somebody_else_is_none_of_ours(licence: str, why: str, tmp_path: Path) -> None:
    here = imported(tmp_path, licence)
    with pytest.raises(ConfigError) as raised:
        papers(here, licence="apache-2.0")
    assert why in str(raised.value) and "set teacher.licence_override to a reason of your own" in str(raised.value)
    (found,) = papers(here, licence="apache-2.0", licence_override="agreed in May")
    assert found.teacher.override == "agreed in May"


def test_of_rows_without_a_licence_nothing_is_known(tmp_path: Path) -> None:
    found = papers(imported(tmp_path, None), licence="apache-2.0")
    assert [each.teacher.unknown for each in found] == [True]
    (line,) = imported_in_words(found, key="teacher")
    assert "nothing is known of the licence under which teacher (imported rows) were bought" in line


def test_random_weights_are_nobodys(tmp_path: Path) -> None:
    shape = {"layers": 1, "hidden": 8, "heads": 2, "kv_heads": 2, "mlp": 16, "vocab": 32}
    drawn = TeacherConfig.model_validate({"model": {"random": shape}})
    assert papers_of_imported(imported(tmp_path, "llama2"), TEACHER.digest(), drawn, key="teacher") == ()
