"""Limits and prices in the configuration: which of them are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from configs.budgets import PriceConfig


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: PriceConfig(), "name gpu_hour, teacher_million_tokens or both"),
        (lambda: PriceConfig(gpu_hour=-1.0), "greater than or equal to 0"),
        (lambda: PriceConfig.model_validate({"gpu_hour": "cheap"}), "valid number"),
        (lambda: PriceConfig.model_validate({"gpu_houre": 2.0}), "Extra inputs"),
    ],
)
def test_malformed_prices_are_refused(build: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        build()
