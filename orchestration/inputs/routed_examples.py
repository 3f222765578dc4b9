"""Which teacher of several an example goes to, by a field of its row."""

from __future__ import annotations

from collections.abc import Mapping

from configs import ConfigError
from configs.teachers import TeacherRoute
from configs.visible_text import visible
from evaluation.tasks.examples import Example
from evaluation.tasks.row_fields import row_field
from evaluation.tasks.templates import UnfitRowError
from orchestration.inputs.example_sets import RowSet

VALUE_CHARACTERS = 40
"""Of a row's value that a message shows."""


def routed_examples(sets: Mapping[str, RowSet], route: TeacherRoute) -> dict[Example, str]:
    """The teacher of every example; one that stands in two sets has that of the first.

    Raises:
        ConfigError: a row lacks the field, or has a value that is not routed.
    """
    found: dict[Example, str] = {}
    for name, held in sets.items():
        for example in held.examples:
            try:
                value = str(row_field(held.rows[example.row], route.field))
            except UnfitRowError as error:
                raise ConfigError(
                    f"combine.field={route.field}: row {example.row} of {name} has none ({error}): give every row one, "
                    "or combine by kind: mixture"
                ) from error
            if value not in route.to:
                raise ConfigError(
                    f"combine.to has no teacher for {route.field}={visible(value, at_most=VALUE_CHARACTERS)!r}, which "
                    f"row {example.row} of {name} has; it knows {', '.join(route.to)}: add it"
                )
            found.setdefault(example, route.to[value])
    return found
