"""What a config.json says of a head, and a tokenizer of how much is read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from task_heads import save_classifier, save_span_finder, save_tagger

from teacher_server.heads import RESERVED_POSITIONS, head_of, longest_sequence


def test_the_kind_of_head_stands_in_the_config(tmp_path: Path) -> None:
    assert head_of(save_classifier(tmp_path / "c")) == "classification"
    assert head_of(save_tagger(tmp_path / "t")) == "tagging"
    assert head_of(save_span_finder(tmp_path / "s")) == "extractive_qa"
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    assert head_of(tmp_path / "none") is None


def test_a_tokenizer_that_states_no_length_leaves_the_positions_that_every_architecture_has() -> None:
    stating: Any = SimpleNamespace(model_max_length=512)
    silent: Any = SimpleNamespace(model_max_length=10**30)
    assert longest_sequence(514, stating) == 512
    assert longest_sequence(514, silent) == 514 - RESERVED_POSITIONS
