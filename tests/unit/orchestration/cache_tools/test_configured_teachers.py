"""Which teachers of an experiment are checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_builders import SHAPE, experiment

from configs import ConfigError
from orchestration.cache_tools.configured_teachers import configured_teachers


def test_all_of_them_unless_one_is_named_by_its_identity(tmp_path: Path) -> None:
    second = {"model": {"random": SHAPE.model_dump(), "seed": 1}, "dtype": "float32", "top_k": 4}
    config = experiment(tmp_path, teachers={"second": second})
    found = configured_teachers(config, None)
    digests = {name: teacher.identity.digest() for name, teacher in found.items()}
    assert list(digests) == ["teacher", "second"]
    assert list(configured_teachers(config, digests["second"][:6].upper())) == ["second"]
    words = (
        f"no teacher of fake begins with zzzz: name 4 or more digits; teacher is {digests['teacher'][:12]}, second is"
    )
    for prefix in ("zzzz", digests["second"][:3]):
        with pytest.raises(ConfigError, match=words.replace("zzzz", prefix)):
            configured_teachers(config, prefix)
