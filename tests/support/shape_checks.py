"""The type checker that the import hook of `conftest.py` puts around every function of the checked packages.

It is beartype, taught to let `Self` pass: the hook decorates methods one by one, and beartype knows what `Self` means
only when it decorates the whole class.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from beartype import BeartypeConf, FrozenDict, beartype
from beartype.vale import Is

_ANYTHING = Annotated[object, Is[lambda _: True]]
"""Accepts every value. Plain `object` would do, but not inside `Self | None`, where beartype insists on a real check."""

checked: Any = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: _ANYTHING})))
"""Decorates one function."""
