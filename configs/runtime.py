"""Where and with what an experiment runs: engines, worker groups, machines, places. No number depends on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PlainSerializer, PlainValidator, model_validator

from configs.models import Block, Device, GrownBlock, Positive
from configs.places import parse_root
from configs.serving import ServeConfig

CacheRoot = Annotated[Path | str, PlainValidator(parse_root), PlainSerializer(str)]


class EngineSettings(GrownBlock):
    """Size and number of the inference engines of one role. Changes speed only.

    An engine is split over `ranks` processes of one machine, each with a GPU of its own (on CPUs with `cpus` of them):
    every layer over `tensor_parallel` of them, and the layers one after the other over `pipeline_parallel` groups of
    those. The first needs an exchange in every layer and so fast links between the GPUs, the second only hands hidden
    states on, for which its stages wait for one another where few sequences are at work.
    """

    later_keys = ("pipeline_parallel",)

    count: Positive = 1
    tensor_parallel: Positive = 1
    pipeline_parallel: Positive = 1
    cpus: Positive = 2
    max_model_len: Positive = 1024
    max_batched_tokens: Positive = 1024
    max_sequences: Positive = 64
    kv_cache_gib: Annotated[float, Field(gt=0.0)] = 1.0

    @property
    def ranks(self) -> int:
        """Processes of one engine, each with a part of its weights; where there are GPUs each has one."""
        return self.tensor_parallel * self.pipeline_parallel


class TrainingSettings(Block):
    """The group of training workers. Changes speed and memory only.

    `weight_sync` is how an on-policy stage brings its weights to the engines that sample from them: as `files` beside
    the checkpoints, or by a `broadcast` from memory to memory (NCCL between GPUs, on CPUs within one machine).
    """

    workers: Positive = 2
    cpus_per_worker: Annotated[float, Field(gt=0.0)] = 1.0
    zero_stage: Literal[0, 1, 2, 3] = 2
    offload: Literal["none", "optimizer", "all"] = "none"
    gradient_checkpointing: bool = False
    packing: Literal["auto", "padded"] = "auto"
    micro_batch_tokens: Positive = 4096
    checkpoint_every_s: Annotated[float, Field(gt=0.0)] = 300.0
    weight_sync: Literal["files", "broadcast"] = "files"

    @model_validator(mode="after")
    def _offload_needs_shards(self) -> Self:
        needed = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < needed:
            raise ValueError(
                f"offload={self.offload} needs zero_stage of at least {needed}, not {self.zero_stage}: change one"
            )
        return self


class RuntimeConfig(GrownBlock):
    """Where and with what the experiment runs. Never part of any digest.

    With `colocate` the engines of an on-policy stage share the GPUs of its training workers and sleep while these
    train; without it each part has GPUs of its own. On CPUs they always share.

    `energy_country` is the country whose electricity the machines take, by its three letters in ISO 3166 (DEU): it says
    how much carbon dioxide a kilowatt-hour makes. Without it the world's average does.
    """

    later_keys = ("serve",)

    accelerator: Literal["auto", Device] = "auto"
    nodes: Positive = 1
    gpus_per_node: Positive = 8
    gpu_memory_gib: Annotated[float, Field(gt=0.0)] = 80.0
    colocate: bool = False
    cache_root: CacheRoot = Path("data/cache")
    models_root: Path = Path("data/models")
    run_root: Path = Path("runs")
    tracking_uri: str | None = None
    ray_address: str | None = None
    energy_country: str | None = None
    commit_every_s: Annotated[float, Field(gt=0.0, le=30.0)] = 20.0
    teacher_engine: EngineSettings = EngineSettings()
    student_engine: EngineSettings = EngineSettings()
    training: TrainingSettings = TrainingSettings()
    serve: ServeConfig = ServeConfig()

    @model_validator(mode="after")
    def _students_engines_hold_all_layers(self) -> Self:
        stages = self.student_engine.pipeline_parallel
        if stages > 1:
            raise ValueError(
                f"student_engine.pipeline_parallel={stages}, but a student's engines are given whole new weights while "
                "they run: set it to 1, and split them by student_engine.tensor_parallel"
            )
        return self

    @model_validator(mode="after")
    def _country_by_three_letters(self) -> Self:
        if self.energy_country is not None and not re.fullmatch("[A-Z]{3}", self.energy_country):
            raise ValueError(
                f"energy_country={self.energy_country} is not a country by its three letters in ISO 3166, such as DEU"
            )
        return self
