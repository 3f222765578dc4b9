"""Reading an experiment: YAML and `--set key=value` in, one checked configuration out; and a task, the same way.

A file with the key `task` is an experiment that distils a task (`configs.task_experiment`), any other one distils a
language model (`configs.schema`).

A configuration that cannot work dies here. Every mistake becomes one line that names the file, the dotted key, what
was given, what is allowed and, for a misspelt key, the nearest valid one; several mistakes are reported together, a
line each. Values are checked strictly: nothing is quietly turned from text into a number or from true into 1.

Paths stay as they are written, so the digest of an experiment does not know where its checkout lies;
`resolve_data_path` finds the file when it is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import JsonValue, ValidationError

from configs.errors import ConfigError
from configs.explain import explain
from configs.models import Block
from configs.regular_files import UnreadableFileError, read_regular
from configs.schema import DistillConfig
from configs.task import TaskConfig
from configs.task_experiment import TaskDistillConfig

Experiment = DistillConfig | TaskDistillConfig
"""An experiment of either kind."""

FILE_BYTES = 2**20
"""An experiment is a page or two; more is not one."""

NODES = 50_000
"""Keys and values that a file may stand for; the largest shipped one has some two hundred."""

DIGITS = 400
"""Characters of a number; one to the base 60 (`1:30`) takes a time that grows with the square of its length."""

_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_MERGE = "tag:yaml.org,2002:merge"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_SCIENTIFIC = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$")

TELLS_A_TASK = "task"
"""The key that makes a file an experiment that distils a task."""

TASK_COMMANDS = ("run", "plan", "fill", "train", "eval", "report", "serve", "ui", "cache forget")
"""The commands that take the configuration of either kind of experiment."""

_OF_TASKS = frozenset(TaskDistillConfig.model_fields)

Content = TypeVar("Content", bound=Block)


@dataclass(frozen=True, slots=True)
class _Document(Generic[Content]):
    """A kind of YAML file: its schema, what it is in words, and one that is shipped."""

    schema: type[Content]
    words: str
    example: str


_EXPERIMENT = _Document(DistillConfig, "an experiment", "configs/quickstart.yaml")
_TASK_EXPERIMENT = _Document(TaskDistillConfig, "an experiment", "configs/intents.yaml")
_TASK = _Document(TaskConfig, "a task", "configs/tasks/reviews.yaml")


def load_experiment(path: Path, *, overrides: Sequence[str] = ()) -> Experiment:
    """Read and check one experiment of either kind: the key `task` tells which.

    Args:
        path: The YAML file.
        overrides: `a.b=c` settings, applied in order over the file. The value is YAML; a segment may be a list index
            (`students.kd.stages.0.learning_rate=3e-4`).

    Raises:
        ConfigError: one line a mistake, naming file, key, value and cure; or the file mixes both kinds.
    """
    data = _data(path, _EXPERIMENT, overrides=overrides)
    if TELLS_A_TASK not in data:
        return _checked(data, _EXPERIMENT, origin=str(path))
    of_the_other = [key for key in data if key in DistillConfig.model_fields and key not in _OF_TASKS]
    if of_the_other:
        raise ConfigError(
            f"{path}: {TELLS_A_TASK} and {of_the_other[0]} stand in one experiment: {TELLS_A_TASK} distils a task and "
            f"{of_the_other[0]} belongs to the distillation of a language model; remove one of them"
        )
    return _checked(data, _TASK_EXPERIMENT, origin=str(path))


def load_config(path: Path, *, overrides: Sequence[str] = ()) -> DistillConfig:
    """Read and check one experiment that distils a language model; see `load_experiment`.

    Raises:
        ConfigError: as there; or it distils a task.
    """
    experiment = load_experiment(path, overrides=overrides)
    if isinstance(experiment, TaskDistillConfig):
        raise ConfigError(
            f"{path}: {TELLS_A_TASK}={experiment.task} makes it an experiment that distils a task, and this command is "
            f"for language models: distill {', '.join(TASK_COMMANDS)} take it"
        )
    return experiment


def load_task_file(path: Path) -> TaskConfig:
    """Read and check one task.

    Raises:
        ConfigError: one line a mistake, naming file, key, value and cure.
    """
    return _checked(_data(path, _TASK, overrides=()), _TASK, origin=str(path))


def with_values(config: DistillConfig, values: Mapping[str, JsonValue], *, origin: str) -> DistillConfig:
    """The experiment with other values at these dotted keys, checked like one from a file; `origin` names it in errors.

    Raises:
        ConfigError: one line a mistake.
    """
    data = config.model_dump(mode="json", exclude_unset=True)
    for key, value in values.items():
        _set(data, key.split("."), value, said=f"{origin}: {key}")
    return _checked(data, _EXPERIMENT, origin=origin)


def dump_config(config: Experiment) -> str:
    """The resolved configuration as YAML, defaults included and unset options left out.

    `load_experiment` reads it back.
    """
    resolved = config.model_dump(mode="json", exclude_none=True)
    # PyYAML writes these line breaks of Unicode as they are and reads them back as spaces; escaped they survive.
    readable = not any(mark in config.model_dump_json() for mark in "\x85\u2028\u2029")
    return yaml.dump(resolved, Dumper=_Dumper, sort_keys=False, allow_unicode=readable, width=120)


def resolve_data_path(path: Path, *, config_dir: Path) -> Path:
    """Find a data file or model directory that a configuration names.

    A relative path is looked for beside the YAML file first, then from the working directory.

    Raises:
        ConfigError: naming every place that was tried.
    """
    try:
        wanted = path.expanduser()
    except RuntimeError:
        raise ConfigError(f"{path}: this user has no home directory here; write the path in full") from None
    places = [wanted] if wanted.is_absolute() else [config_dir.absolute() / wanted, Path.cwd() / wanted]
    for place in places:
        if place.exists():
            return place
    tried = " nor ".join(dict.fromkeys(str(place) for place in places))
    raise ConfigError(f"{path}: found neither {tried}; correct the path or put the file there")


def _data(path: Path, document: _Document[Content], *, overrides: Sequence[str]) -> dict[str, Any]:
    """What the file says, with the overrides over it; it is not checked yet."""
    data = _parse(_read(path, example=document.example), origin=str(path))
    if data is None:
        raise ConfigError(f"{path}: the file is empty; start from a copy of {document.example}")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds {_kind(data)}; {document.words} is a block of `key: value` lines")
    # Through JSON and back: what an anchor shares in the file must not be shared by settings.
    read: dict[str, Any] = json.loads(_as_json(data, origin=str(path)))
    for override in overrides:
        _apply(read, override)
    return read


def _checked(data: dict[str, Any], document: _Document[Content], *, origin: str) -> Content:
    text = _as_json(data, origin=origin)
    try:
        # Strict mode for Python values would refuse a list for a tuple and text for a path; for JSON it does not.
        return document.schema.model_validate_json(text, strict=True)
    except ValidationError as error:
        lines = explain(error.errors(include_url=False), data=data, schema=document.schema)
        raise ConfigError("\n".join(f"{origin}: {line}" for line in lines)) from None


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """YAML 1.1's implicit types with `3e-4` as a number and without dates (a revision may look like one)."""
    base = yaml.SafeLoader.yaml_implicit_resolvers
    kept = {first: [pair for pair in pairs if pair[0] != _TIMESTAMP] for first, pairs in base.items()}
    for first in "-+0123456789":
        kept.setdefault(first, []).append((_FLOAT, _SCIENTIFIC))
    return kept


class _Loader(yaml.SafeLoader):
    """Safe loading in which keys are text and no key stands twice in one block."""

    yaml_implicit_resolvers = _resolvers()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key.start_mark)
            line = key.start_mark.line + 1
            if key.value in seen and key.tag != _MERGE:
                reason = f"key {key.value} stands twice in one block (lines {seen[key.value]} and {line}); remove one"
                raise yaml.constructor.ConstructorError(None, None, reason, key.start_mark)
            seen[key.value] = line
            if key.tag != _MERGE:
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever `_Loader` would not read back as text."""

    yaml_implicit_resolvers = _resolvers()


def _read(path: Path, *, example: str) -> str:
    try:
        return read_regular(path, at_most=FILE_BYTES, links="follow").decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; name a YAML file, e.g. {example}") from None
    except UnreadableFileError as error:
        if path.is_dir():
            names = ", ".join(sorted(file.name for file in path.glob("*.yaml"))) or "none"
            raise ConfigError(f"{path}: is a directory; name one YAML file in it (there: {names})") from None
        raise ConfigError(f"{error}; name a YAML file, e.g. {example}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check its permissions and the path") from None


def _parse(text: str, *, origin: str) -> Any:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _require_few(node, origin=origin)
        return loader.construct_document(node)
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise ConfigError(f"{origin}:{where} not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # All but the first: PyYAML's constructors on an explicit tag that does not fit its text, as in `!!int ""`.
        reason = " ".join(str(error).split())
        raise ConfigError(f"{origin}: not valid YAML: {reason}") from None


def _require_few(root: yaml.Node, *, origin: str) -> None:
    """Refuse anchors that stand for millions of values: counted as if every alias were written out."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            if node.tag in (_INT, _FLOAT) and len(node.value) > DIGITS:
                line = node.start_mark.line + 1
                raise ConfigError(f"{origin}: line {line} holds a number of {len(node.value):,} characters: shorten it")
            sizes[id(node)] = 1  # also what a node inside of itself counts; that it is refused is said later
            parts = node.value if isinstance(node.value, list) else []
            children = (child for part in parts for child in (part if isinstance(part, tuple) else (part,)))
            sizes[id(node)] = 1 + sum(size(child) for child in children)
        return sizes[id(node)]

    count = size(root)
    if count > NODES:
        raise ConfigError(
            f"{origin}: has {count:,} values once its aliases are expanded, more than the {NODES:,} allowed: "
            "write it without aliases of aliases"
        )


def _as_json(data: Any, *, origin: str) -> bytes:
    try:
        return json.dumps(data, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{origin}: {error}; write plain text, numbers, lists and blocks") from None


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    segments = key.strip().split(".")
    if not equals or not all(segments):
        raise ConfigError(f"--set {override}: not of the form key=value, e.g. --set generation.max_new_tokens=32")
    _set(data, segments, _parse(text, origin=f"--set {override}"), said=f"--set {override}")


def _set(data: dict[str, Any], segments: list[str], value: Any, *, said: str) -> None:
    place: Any = data
    done: list[str] = []
    while True:
        name, segments = _split(place, segments)
        where = ".".join(done)
        done.append(name)
        if isinstance(place, list):
            index: int | str = _index(name, length=len(place), where=where, said=said)
        elif isinstance(place, dict):
            index = name
        else:
            raise ConfigError(f"{said}: {where} is {place!r}, which has no key {name}; set {where} itself")
        if not segments:
            place[index] = value
            return
        if isinstance(place, dict) and place.get(name) is None:
            place[index] = {}
        place = place[index]


def _split(place: Any, segments: list[str]) -> tuple[str, list[str]]:
    """The next key and the rest. A student's name may hold dots: the longest key that exists wins."""
    if isinstance(place, dict):
        for count in range(len(segments), 1, -1):
            name = ".".join(segments[:count])
            if name in place:
                return name, segments[count:]
    return segments[0], segments[1:]


def _index(name: str, *, length: int, where: str, said: str) -> int:
    if name.isdecimal() and int(name) < length:
        return int(name)
    raise ConfigError(f"{said}: {where} is a list of {length}; {name} must be an index from 0 to {length - 1}")


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"only the value {value!r}"
