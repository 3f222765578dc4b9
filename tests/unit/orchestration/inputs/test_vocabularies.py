"""Teachers of one student mean the same by every id."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_builders import SHAPE
from transformers import AutoTokenizer

from configs import ConfigError
from configs.models import ModelSource
from orchestration.inputs.models import ModelFiles, materialise, open_model
from orchestration.inputs.vocabularies import require_one_vocabulary


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[ModelFiles]:
    root = tmp_path_factory.mktemp("models")
    return [materialise(ModelSource(random=SHAPE, seed=seed), models_root=root) for seed in (0, 1)]


def with_token(model: ModelFiles, token: str, folder: Path) -> ModelFiles:
    tokenizer = AutoTokenizer.from_pretrained(model.directory)
    tokenizer.add_tokens([token])
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((model.directory / name).read_bytes())
    return open_model(folder, label=folder.name)


def test_teachers_of_one_tokenizer_go_together(models: list[ModelFiles]) -> None:
    require_one_vocabulary({"teacher": models[0], "second": models[1]})


def test_the_first_token_that_differs_is_named(models: list[ModelFiles], tmp_path: Path) -> None:
    longer, other = (with_token(models[1], token, tmp_path / token) for token in ("more", "less"))
    words = "teachers.second \\(more\\) has another vocabulary than teacher \\(random\\(seed=0\\)\\): of its 262 tokens id 261 "
    with pytest.raises(ConfigError, match=words + "is 'more', of the other 261 no token, .* name teachers with one"):
        require_one_vocabulary({"teacher": models[0], "second": longer})
    with pytest.raises(ConfigError, match="id 261 is 'less', of the other 262 'more'"):
        require_one_vocabulary({"teacher": longer, "second": other})
