"""What was forgotten here stays out of every archive; of its segments the rest is taken once."""

from __future__ import annotations

from pathlib import Path

import pytest
from rewriting_builders import DIGEST, everything, killed_at, merge, names, put_each, requests_of, storage_of
from signal_builders import CLASSES, ask, respond
from store_builders import open_cache

from cache.erasures import Erasures, asked_name, held_name
from cache.records import TeacherRecord
from cache.upkeep.archives import ImportReport, export_archive, import_archive

PROMPTS = [5, 6, 7]


def remember(root: Path, *erased: str) -> None:
    root.mkdir(exist_ok=True)
    Erasures.read(root).add(erased, root=root)


def archive(root: Path, *, merged: bool) -> tuple[list[TeacherRecord], Path]:
    records = put_each(root, PROMPTS)
    if merged:
        merge(root)
    export_archive(storage_of(root), root / "a.tar", identity=DIGEST)
    return records, root / "a.tar"


@pytest.mark.parametrize("merged", [True, False])
def test_forgotten_rows_stay_out_and_the_others_come_as_they_were(merged: bool, tmp_path: Path) -> None:
    records, path = archive(tmp_path / "here", merged=merged)
    remember(tmp_path / "there", held_name([3, 4, 6]), held_name(records[2].token_ids))
    done = import_archive(tmp_path / "there", path)
    assert (done.rows, done.forgotten, len(done.imported)) == (1, 2, 1)
    there, stay = open_cache(tmp_path / "there"), requests_of(PROMPTS[:1])
    assert [record is None for record in there.get_many([each.key for each in records])] == [False, True, True]
    here = open_cache(tmp_path / "here")
    mine, theirs = (everything(cache, stay, [records[0].key]) | {"count": 1} for cache in (there, here))
    assert mine == theirs
    assert there.missing(requests_of(PROMPTS, limits=[8]), k=8).generate == (1, 2)
    assert there.verify() == []
    again = import_archive(tmp_path / "there", path)
    assert (again.imported, again.skipped, again.forgotten) == ((), done.imported, 2)


def test_a_prompt_that_nobody_asks_keeps_the_answers_that_did_not_hold_it(tmp_path: Path) -> None:
    _, path = archive(tmp_path / "here", merged=True)
    remember(tmp_path / "there", asked_name([3, 4, 6]))
    assert import_archive(tmp_path / "there", path).forgotten == 0


def test_a_segment_of_nothing_else_is_not_taken(tmp_path: Path) -> None:
    _, path = archive(tmp_path / "here", merged=True)
    remember(tmp_path / "there", *(held_name([3, 4, prompt]) for prompt in PROMPTS))
    done = import_archive(tmp_path / "there", path)
    assert done == ImportReport(DIGEST, (), (), 0, 0, forgotten=3)
    assert names(tmp_path / "there", "manifests") == []


def test_signals_are_sifted_too(tmp_path: Path) -> None:
    kept, gone = ask([3, 4], CLASSES), ask([5, 6], CLASSES)
    open_cache(tmp_path / "here").signals.put([respond(kept), respond(gone)])
    export_archive(storage_of(tmp_path / "here"), tmp_path / "a.tar", identity=DIGEST)
    remember(tmp_path / "there", held_name([5, 6]))
    assert import_archive(tmp_path / "there", tmp_path / "a.tar").forgotten == 1
    store = open_cache(tmp_path / "there").signals
    assert [each is None for each in store.get_many(store.keys([kept, gone]))] == [False, True]


def test_an_import_that_is_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    records, path = archive(tmp_path / "here", merged=True)
    remember(tmp_path / "there", held_name([3, 4, 6]))
    killed_at("segment-after-rename", lambda: import_archive(tmp_path / "there", path))
    assert import_archive(tmp_path / "there", path).rows == 2
    found = open_cache(tmp_path / "there").get_many([each.key for each in records])
    assert [record is None for record in found] == [False, True, False]
