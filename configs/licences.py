"""What a teacher's licence lets a student be, and what it asks of one: `configs/licences.yaml`, read and combined.

A licence is named by its SPDX identifier, by the name that model hubs use (`llama3.1`), or by an expression of several
(`Apache-2.0 AND MIT`, SPDX 2.3 annex D). Of a licence that is not in the table nothing is known, and that is a refusal:
only who has read it can lift it. This is a reading of the terms for engineers and no advice of a lawyer.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache, reduce
from pathlib import Path
from typing import Any, Literal

import yaml
from license_expression import (
    ExpressionError,
    LicenseSymbol,
    LicenseWithExceptionSymbol,
    Licensing,
    get_spdx_licensing,
)
from pydantic import TypeAdapter

from configs.errors import ConfigError
from configs.models import Block

TABLE = Path(__file__).with_suffix(".yaml")

Verdict = Literal["permitted", "conditional", "refused"]

VERDICTS: tuple[Verdict, ...] = ("permitted", "conditional", "refused")
"""From the mildest to the hardest."""


class Duties(Block):
    """What must go with a student that is given to others.

    `name_prefix` begins its name, `displays` stand where people see them, `notices` in a file NOTICE; `licence_copy`
    and `use_policy` are files of the teacher. A `derivative` is under the teacher's licence itself. `terms` is what no
    file can fulfil.
    """

    name_prefix: str = ""
    displays: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    licence_copy: bool = False
    use_policy: bool = False
    derivative: bool = False
    terms: tuple[str, ...] = ()

    def and_of(self, other: Duties) -> Duties:
        """Those of both, each once.

        Raises:
            ConfigError: a name cannot begin with two words.
        """
        shorter, longer = sorted((self.name_prefix, other.name_prefix), key=len)
        if not longer.startswith(shorter):
            raise ConfigError(
                f"a student's name would have to begin with {self.name_prefix} and with {other.name_prefix}, which no "
                "name can: learn from one of these teachers"
            )
        return Duties(
            name_prefix=longer,
            displays=_each_once(self.displays, other.displays),
            notices=_each_once(self.notices, other.notices),
            licence_copy=self.licence_copy or other.licence_copy,
            use_policy=self.use_policy or other.use_policy,
            derivative=self.derivative or other.derivative,
            terms=_each_once(self.terms, other.terms),
        )

    @property
    def in_words(self) -> tuple[str, ...]:
        """Each of them, in the words of a plan."""
        return (
            *((f"its name begins with {self.name_prefix}",) if self.name_prefix else ()),
            *(f'"{shown}" stands where people see it' for shown in self.displays),
            *(("a copy of the licence goes with it",) if self.licence_copy else ()),
            *(("a copy of the acceptable use policy goes with it",) if self.use_policy else ()),
            *(("a notice goes with it",) if self.notices else ()),
            *(("it is a derivative, under the same licence",) if self.derivative else ()),
            *self.terms,
        )


class Licence(Block):
    """A licence of the table: other `names` of it, the verdict, the `clause` that says so, and the duties of students.

    `of_any` binds every student, `of_weights` also those that began with the teacher's weights.
    """

    names: tuple[str, ...] = ()
    verdict: Verdict
    clause: str
    of_any: Duties = Duties()
    of_weights: Duties = Duties()


class Terms(Block):
    """What an expression of licences comes to: its normal form, the verdict and why, and what a student must carry.

    It is `known` if all that binds stands in the table.
    """

    licence: str
    verdict: Verdict
    because: tuple[str, ...]
    known: bool = True
    of_any: Duties = Duties()
    of_weights: Duties = Duties()

    def and_of(self, other: Terms) -> Terms:
        """Both bind: the harder verdict, and the duties of each.

        Raises:
            ConfigError: they contradict each other.
        """
        return Terms(
            licence=self.licence if self.licence == other.licence else f"{self.licence} AND {other.licence}",
            verdict=max(self.verdict, other.verdict, key=VERDICTS.index),
            because=_each_once(self.because, other.because),
            known=self.known and other.known,
            of_any=self.of_any.and_of(other.of_any),
            of_weights=self.of_weights.and_of(other.of_weights),
        )

    def duties(self, *, begins_with_weights: bool) -> Duties:
        """Those of a student of the teacher."""
        return self.of_any.and_of(self.of_weights) if begins_with_weights else self.of_any


def terms_of(licence: str, *, key: str) -> Terms:
    """What a licence, as a configuration or a model's card names it, says about students; `key` is where it stands.

    Of alternatives (`OR`) the mildest counts, and of equal ones the first.

    Raises:
        ConfigError: it is not an expression of licences, or two of its parts contradict each other.
    """
    try:
        parsed = _licensing().parse(licence)
    except (ExpressionError, TypeError) as error:
        raise ConfigError(
            f"{key}={licence!r} does not read as a licence: write an SPDX identifier (apache-2.0), the name that its "
            "hub uses (llama3.1), or several with AND and OR"
        ) from error
    if parsed is None:
        raise ConfigError(f"{key} is empty: name the licence, or leave it out")
    return _terms(parsed)


@cache
def _table() -> dict[str, Licence]:
    read: dict[str, Any] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, Licence]).validate_python(read)


@cache
def _licensing() -> Licensing:
    return Licensing([LicenseSymbol(name, aliases=licence.names) for name, licence in _table().items()])


def _terms(parsed: Any) -> Terms:
    if isinstance(parsed, LicenseSymbol | LicenseWithExceptionSymbol):
        return _terms_of_one(str(parsed))
    parts = [_terms(part) for part in parsed.args]
    if isinstance(parsed, _licensing().OR):
        return min(parts, key=lambda part: VERDICTS.index(part.verdict))
    return reduce(Terms.and_of, parts)


def _terms_of_one(name: str) -> Terms:
    known = _table().get(name)
    if known is None:
        return Terms(licence=name, verdict="refused", because=(f"{name}: {_unknown(name)}",), known=False)
    return Terms(
        licence=name,
        verdict=known.verdict,
        because=(f"{name}: {known.clause}",),
        of_any=known.of_any,
        of_weights=known.of_weights,
    )


def _unknown(name: str) -> str:
    """Why nothing is known of a licence, and what was perhaps meant."""
    if not get_spdx_licensing().validate(name).errors:
        return "nobody has noted here what it says about training another model"
    names = [alias for key, licence in _table().items() for alias in (key, *licence.names)]
    near = difflib.get_close_matches(name.lower(), [each.lower() for each in names], n=1)
    return "there is no licence of this name" + (f"; {near[0]} is meant perhaps" if near else "")


def _each_once(*parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for part in parts for word in part))
