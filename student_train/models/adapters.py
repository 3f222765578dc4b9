"""LoRA (Hu et al. 2021, arXiv 2106.09685): a frozen matrix W learns as W + (alpha / rank) B A with small A and B.

Adapters have the dtype of the model. DeepSpeed keeps float32 copies of what it trains in bfloat16 anyway, and adapters
of another dtype than the activations would have to be cast in every forward pass. The head, which the loss reads
directly, takes no adapter and stays frozen.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from configs.errors import ConfigError
from configs.stages import LoraConfig

_ADAPTER = "default"
_BASE = ".base_layer."


def attach_adapters(model: Any, lora: LoraConfig, *, whole: Collection[nn.Parameter] = ()) -> None:
    """Put adapters around linear layers of `model`, in place, and freeze everything else but `whole`.

    A is drawn from torch's generator, B is zero: the outputs of the model stay the same.

    Raises:
        ConfigError: a module of `lora.modules` that the model does not have.
    """
    # Imported late: it takes seconds and leaves the directory of a compiler among the temporary files.
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    targets = adapted_layers(model, lora, whole=whole)
    config = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type] # only ever divided by the rank
        lora_dropout=lora.dropout,
        target_modules=targets,
    )
    inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    for weight in whole:
        weight.requires_grad = True


def adapted_layers(model: Any, lora: LoraConfig, *, whole: Collection[nn.Parameter] = ()) -> list[str]:
    """The names of the linear layers that get an adapter; no weight is read.

    The output matrix of a language model gets none, nor a layer of which a weight learns as a `whole`.

    Raises:
        ConfigError: there is no such layer, or a module of `lora.modules` that the model does not have.
    """
    output = getattr(model, "get_output_embeddings", lambda: None)()
    apart = {id(weight) for weight in whole}
    linears = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output and id(module.weight) not in apart
    ]
    if not linears:
        raise ConfigError("lora adapts linear layers and this student has none below its head: remove lora")
    wanted = sorted({name.rpartition(".")[2] for name in linears}) if lora.modules == "all-linear" else lora.modules
    targets = [name for name in linears if name.endswith(tuple(f".{ending}" for ending in wanted))]
    for ending in wanted:
        if not any(name.endswith(f".{ending}") for name in targets):
            there = ", ".join(sorted({name.rpartition(".")[2] for name in linears}))
            raise ConfigError(
                f"lora.modules names {ending}, which is not a linear layer of the body: choose from {there}"
            )
    return targets


def merge_adapters(weights: dict[str, Tensor], lora: LoraConfig) -> dict[str, Tensor]:
    """The weights of a model with adapters, by name, as those of the plain model.

    Products and sums are taken in float32 and then cast. Untouched adapters leave every weight as it was.
    """
    merged: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if ".lora_A." in name or ".lora_B." in name:
            continue
        module = name.removesuffix(f"{_BASE}weight")
        if module != name:
            down, up = (weights[f"{module}.lora_{side}.{_ADAPTER}.weight"].float() for side in "AB")
            weight = (weight.float() + lora.alpha / lora.rank * (up @ down)).to(weight.dtype)
        merged[name.replace(_BASE, ".")] = weight
    return merged
