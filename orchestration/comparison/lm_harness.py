"""lm-evaluation-harness (lm_eval, an optional extra) over our engines; the only module that imports it.

It brings the tasks, their prompts and their metrics; what it asks of a model goes through `continuations`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import jinja2
import numpy as np
import torch
import yaml
from datasets.exceptions import DatasetsError
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from configs import ConfigError, DataError, DistillError
from orchestration.comparison.continuations import Continuations, wanted_of
from orchestration.comparison.harness_lines import HarnessLine, lines_of

SEED = 1234
"""Of the worked examples that are drawn and of whatever else draws: the harness's own default, that of its tables."""

BOOTSTRAP = 1000
"""Draws for standard errors that have no formula; the harness's 100,000 take minutes a task and change two digits."""

BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    DatasetsError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    jinja2.TemplateError,
    yaml.YAMLError,
)
"""What a task's own files and code (its YAML, templates, functions, data set) end with when they are broken."""

Render = Callable[[Sequence[Mapping[str, Any]]], str]
"""A conversation as text, up to where the model goes on."""


class HarnessModel(LM):  # type: ignore[misc]  # its types are not followed
    """A model that engines serve, as the harness asks it."""

    def __init__(self, asked: Continuations, *, render: Render) -> None:
        super().__init__()
        self._asked, self._render = asked, render

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Of each (context, continuation): see `Continuations.likelihoods`."""
        return self._asked.likelihoods([request.args for request in requests])

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Of each (text,): see `Continuations.rolling`."""
        return self._asked.rolling([request.args[0] for request in requests])

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """To each (context, settings): see `Continuations.written`."""
        return self._asked.written([(context, wanted_of(settings)) for context, settings in map(_args, requests)])

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:  # noqa: FBT001, FBT002
        """A conversation as text; without a generation prompt its last message is an answer to go on with."""
        if add_generation_prompt:
            return self._render(chat_history)
        return self._render(chat_history[:-1]) + chat_history[-1]["content"]

    def chat_template(self, chat_template: bool | str = False) -> str | None:  # noqa: FBT001, FBT002
        """The source of the template, where one is applied."""
        return self._asked.files.tokenizer.chat_template if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        """What the harness names its stored requests by; it stores none here."""
        return self._asked.files.directory.name


class Harness:
    """The tasks of the harness, and those in `folder` (YAML files with their data). Its chatter goes to `log`."""

    def __init__(self, folder: Path | None, *, log: Path) -> None:
        self._log = log
        # It would fork a process that holds the threads of engines.
        os.environ["DISABLE_MULTIPROC"] = "1"
        with log.open("a", encoding="utf-8") as stream:
            self._tasks: TaskManager = _quietly(stream, lambda: TaskManager(include_path=folder))

    def check(self, names: Sequence[str]) -> None:
        """Refuse a name that is neither a task nor a group nor a tag.

        Raises:
            ConfigError: naming it.
        """
        for name in names:
            if name not in self._tasks.all_tasks:
                raise ConfigError(
                    f"--harness {name}: lm-evaluation-harness knows no such task: correct it, or name the directory of "
                    "its YAML file with --harness-tasks"
                )

    def run(self, name: str, model: HarnessModel, *, chat: bool, limit: int | None) -> tuple[HarnessLine, ...]:
        """Put a task, or each task of a group, to a model; with `limit` its first rows alone.

        Raises:
            DataError: the task is broken, or its data cannot be had.
            DistillError: the model could not be asked.
        """
        with self._log.open("a", encoding="utf-8") as stream:
            try:
                results = _quietly(stream, lambda: self._results(name, model, chat=chat, limit=limit))
            except DistillError:
                raise
            except BROKEN as error:
                raise DataError(f"{type(error).__name__}: {_first_line(error)}") from error
        return lines_of(results)

    def _results(self, name: str, model: HarnessModel, *, chat: bool, limit: int | None) -> Mapping[str, Any]:
        random.seed(SEED)
        np.random.seed(SEED)
        torch.manual_seed(SEED)
        loaded = self._tasks.load([name])
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=SEED)
        found: Mapping[str, Any] = evaluate(
            lm=model,
            task_dict=loaded,
            limit=limit,
            bootstrap_iters=BOOTSTRAP,
            log_samples=False,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
        )
        return found


def _quietly(stream: TextIO, act: Callable[[], Any]) -> Any:
    with redirect_stdout(stream), redirect_stderr(stream):
        return act()


def _args(request: Instance) -> tuple[str, Mapping[str, Any]]:
    context, settings = request.args
    return context, settings


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "no reason given")
