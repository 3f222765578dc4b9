"""What a config.json means: checked against what transformers makes of it, not against a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Gemma2Config, GraniteConfig, LlamaConfig

from configs import ModelError
from configs.architecture import DECODERS, HeadForm, head_form, parsed_config, read_architecture, read_text_model

SIZES = {
    "num_hidden_layers": 3,
    "hidden_size": 24,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "vocab_size": 99,
}


def write(folder: Path, **content: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_sizes_that_a_config_leaves_out_are_those_of_its_architecture(tmp_path: Path) -> None:
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "intermediate_size": 16,
        "vocab_size": 64,
    }
    for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "granite", "cohere", "olmo2"):
        written = {**small, "model_type": kind, "pad_token_id": 0}
        if kind in ("qwen2", "qwen3", "gemma2", "gemma3_text"):
            written["num_key_value_heads"] = 4
        write(tmp_path, **written)
        found = read_architecture(tmp_path)
        config = AutoConfig.from_pretrained(tmp_path)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        names = dict(model.named_parameters(remove_duplicate=False))
        keys = names.get("model.layers.0.self_attn.k_proj.weight")
        shape = found.shape
        if keys is not None:
            assert keys.shape[0] == shape.kv_heads * shape.head_size, kind
        assert (names["lm_head.weight"] is names["model.embed_tokens.weight"]) == shape.tied_embeddings, kind
        assert shape.max_positions == config.max_position_embeddings, kind


def test_shapes_are_read_whatever_their_spelling(tmp_path: Path) -> None:
    inner = SIZES | {"num_key_value_heads": 4}
    write(tmp_path, model_type="gemma3", text_config=inner, tie_word_embeddings=True)
    shape = read_architecture(tmp_path).shape
    assert (shape.layers, shape.kv_heads, shape.tied_embeddings, shape.max_positions) == (3, 4, True, 131_072)


def test_sizes_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path, model_type="qwen2", num_key_value_heads=4, **SIZES | {"hidden_size": 25})
    with pytest.raises(ModelError, match=r"does not describe a decoder: hidden=25 is not a multiple of heads=4"):
        read_architecture(tmp_path)


def test_what_a_file_says_of_its_kind_is_kept(tmp_path: Path) -> None:
    found = read_architecture(write(tmp_path, model_type="llama", architectures=["LlamaForCausalLM"], **SIZES))
    assert (found.model_type, found.classes, found.layer_types) == ("llama", ("LlamaForCausalLM",), None)
    assert read_architecture(write(tmp_path, model_type="llama", **SIZES)).classes == ()


def test_kinds_of_attention_are_those_of_every_layer(tmp_path: Path) -> None:
    kinds = read_architecture(write(tmp_path, model_type="gemma2", **SIZES)).layer_types
    assert kinds == ("sliding_attention", "full_attention", "sliding_attention")


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("t5", "is an encoder|no causal language model"),
        ("clip", "no causal language model of model_type=clip"),
        ("none-such", "transformers cannot read it"),
    ],
)
def test_what_is_not_a_decoder_is_refused_in_one_line(model_type: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        read_architecture(write(tmp_path, model_type=model_type))
    assert "\n" not in str(caught.value)


def test_the_configuration_is_the_one_that_transformers_reads(tmp_path: Path) -> None:
    write(tmp_path, model_type="llama", **SIZES)
    assert parsed_config(tmp_path).to_dict() == AutoConfig.from_pretrained(tmp_path).to_dict()


def test_an_unbounded_file_never_reaches_transformers(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="more than any model has"):
        parsed_config(write(tmp_path, model_type="llama", num_hidden_layers=10**9))


def test_what_a_head_does_besides_its_product() -> None:
    assert head_form(LlamaConfig()) == HeadForm(softcap=None, scales=())
    assert head_form(Gemma2Config(final_logit_softcapping=30.0)) == HeadForm(softcap=30.0, scales=())
    assert head_form(GraniteConfig(logits_scaling=8.0)) == HeadForm(softcap=None, scales=("logits_scaling",))
    assert head_form(GraniteConfig(logits_scaling=1.0)).scales == ()


def test_an_encoder_has_sizes_whatever_its_config_calls_them_and_labels(tmp_path: Path) -> None:
    place = tmp_path / "config.json"
    place.write_text(
        json.dumps(
            {
                "model_type": "distilbert",
                "dim": 32,
                "n_layers": 3,
                "hidden_dim": 64,
                "n_heads": 2,
                "id2label": {"1": "b", "0": "a"},
            }
        )
    )
    found = read_text_model(tmp_path)
    assert (found.layers, found.hidden, found.mlp, found.positions) == (3, 32, 64, 512)
    assert found.labels == ("a", "b")
    assert found.block_weights == 3 * (4 * 32 * 32 + 2 * 32 * 64)
    # transformers names two labels where a file names none.
    place.write_text(json.dumps({"model_type": "bert"}))
    assert read_text_model(tmp_path).labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"id2label": {"0": "a", "2": "b"}}, "id2label does not name labels"), ({"hidden_size": 0}, "hidden_size=0")],
)
def test_an_encoder_without_a_size_or_a_label_is_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"} | changes))
    with pytest.raises(ModelError, match=says):
        read_text_model(tmp_path)


def test_the_decoders_that_are_known_are_those_of_transformers() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) >= DECODERS
