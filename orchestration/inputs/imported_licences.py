"""What the licences ask of students under which rows of a teacher's cache were bought that came with an archive.

Every segment notes under what its teacher was used, and an archive brings that along. Who imports it names a licence of
their own, and a student that learns from these rows owes what either asks. That somebody else had a reason to use the
teacher in spite of its licence is no reason of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.disk.roots import open_storage
from cache.upkeep.inventory import imported_licences
from configs import ConfigError
from configs.licences import terms_of
from configs.teachers import NOT_STATED, USED_ALL_THE_SAME, HasTeachers, LicensedTeacher, key_of_teacher
from student_train.papers import Papers, TaughtUnder

IMPORTED = "_imported"
"""What such rows are called among the papers of a student; no teacher's name begins with a line."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What students owe for rows that came with archives: papers that go with them, and the same in words."""

    papers: tuple[Papers, ...] = ()
    terms: tuple[str, ...] = ()


NOTHING_IMPORTED = Imported()


def imported_rows(config: HasTeachers, identities: Mapping[str, str]) -> Imported:
    """That of all teachers of an experiment, whose identities (hex) stand by their names.

    Raises:
        CacheError: a cache cannot be read.
        ConfigError: no student may learn from such rows, and `licence_override` gives no reason.
    """
    found, terms = list[Papers](), list[str]()
    for name, identity in identities.items():
        key = key_of_teacher(name)
        papers = papers_of_imported(config.runtime.cache_root, identity, config.every_teacher[name], key=key)
        terms += imported_in_words(papers, key=key)
        found += papers
    return Imported(tuple(found), tuple(terms))


def papers_of_imported(root: Path | str, identity: str, teacher: LicensedTeacher, *, key: str) -> tuple[Papers, ...]:
    """Under what else the imported rows of this identity below a cache root were bought than `teacher` is used here.

    `key` is where the configuration names the teacher. Nothing of a model that was drawn from a seed.

    Raises:
        CacheError: the cache cannot be read.
        ConfigError: no student may learn from them, and `licence_override` gives no reason.
    """
    if teacher.model.random is not None:
        return ()
    found: list[Papers] = []
    own = _normal(teacher.licence, key=key)
    for said in imported_licences(open_storage(root, identity, create=False), identity):
        licence, theirs, reason = said.partition(USED_ALL_THE_SAME)
        stated = None if licence == NOT_STATED else licence
        if teacher.licence_override is None:
            _require_permitted(stated, reason.removesuffix(")") if theirs else None, teacher, key=key)
        if _normal(stated, key=key) != own:
            found.append(
                Papers(
                    TaughtUnder(
                        name=f"{IMPORTED}{len(found) + 1}",
                        label=f"{teacher.label} (imported rows)",
                        licence=stated,
                        override=teacher.licence_override,
                    )
                )
            )
    return tuple(found)


def imported_in_words(papers: Sequence[Papers], *, key: str) -> tuple[str, ...]:
    """What they ask of every student, a line each that asks something or of which nothing is known."""
    lines = []
    for each in (paper.teacher for paper in papers):
        duties = "; ".join(each.duties.in_words)
        if each.licence is None:
            lines.append(f"{key}: nothing is known of the licence under which {each.label} were bought: find it out")
        elif duties:
            lines.append(f"{key}: {each.label} were bought under {each.licence}, and so of every student: {duties}")
    return tuple(lines)


def _normal(licence: str | None, *, key: str) -> str | None:
    return None if licence is None else terms_of(licence, key=f"{key}.licence").licence


def _require_permitted(licence: str | None, reason: str | None, teacher: LicensedTeacher, *, key: str) -> None:
    if licence is None and reason is None:
        return  # of earlier versions, which noted nothing
    refused = licence is None or terms_of(licence, key=f"{key}.licence").verdict == "refused"
    if reason is None and not refused:
        return
    why = "lets no student learn from it" if reason is None else f"was used all the same by whoever did ({reason})"
    raise ConfigError(
        f"{key}: imported rows of {teacher.label} were bought under {licence or 'an unknown licence'}, which {why}: "
        f"set {key}.licence_override to a reason of your own, or name another runtime.cache_root and ask anew"
    )
