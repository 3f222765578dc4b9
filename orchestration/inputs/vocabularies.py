"""Several teachers of one student have one vocabulary: every id means the same token to each of them."""

from __future__ import annotations

from collections.abc import Mapping

from configs import ConfigError
from configs.teachers import FIRST
from configs.visible_text import visible
from orchestration.inputs.models import ModelFiles

TOKEN_CHARACTERS = 40
"""Of a token that an error shows."""


def require_one_vocabulary(teachers: Mapping[str, ModelFiles]) -> None:
    """Refuse teachers, by their names, of which one has other tokens than the first.

    Raises:
        ConfigError: naming both models, the first id that differs and the cure.
    """
    first = teachers[FIRST]
    tokens = _by_id(first)
    for name, other in teachers.items():
        theirs = _by_id(other)
        if theirs == tokens:
            continue
        at = min(set(tokens.items()) ^ set(theirs.items()))[0]
        raise ConfigError(
            f"teachers.{name} ({other.label}) has another vocabulary than teacher ({first.label}): of "
            f"its {len(theirs):,} tokens id {at} is {_shown(theirs, at)}, of the other {len(tokens):,} "
            f"{_shown(tokens, at)}, and students read one kind of ids: name teachers with one tokenizer"
        )


def _shown(tokens: Mapping[int, str], at: int) -> str:
    return repr(visible(tokens[at], at_most=TOKEN_CHARACTERS)) if at in tokens else "no token"


def _by_id(model: ModelFiles) -> dict[int, str]:
    found: dict[int, str] = {at: token for token, at in model.tokenizer.get_vocab().items()}
    return found
