"""Where students start in the configuration: one place, and what is refused with which words."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from configs.starts import InitConfig


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "name either model"),
        ({"hidden_size": 8, "model": {"path": "somewhere"}}, "name either model"),
        ({"keep_layers": [0, 2], "layers_by": "block_influence"}, "needs keep_layers as a number"),
        ({"mlp_channels": 8, "layers_by": "contiguous"}, "needs keep_layers as a number"),
    ],
)
def test_a_start_is_one_thing(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        InitConfig.model_validate(values)


def test_only_activations_make_a_start_wait() -> None:
    assert not InitConfig(keep_layers=4, layers_by="contiguous").calibrated
    assert InitConfig(keep_layers=4, layers_by="block_influence").calibrated
    assert InitConfig(mlp_channels=16).calibrated
