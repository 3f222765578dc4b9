"""`distill cache ls | info | verify | compact | gc | export | import | forget`: the arguments, and what is printed.

Every action returns plain dataclasses, which `--json` prints as they are; without it they become tables and lines.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from cache.pins import PIN_DAYS
from cache.upkeep.archives import export_archive, import_archive
from cache.upkeep.garbage import GRACE_S, collect_garbage
from cache.upkeep.inventory import TeacherInventory, teacher_inventory
from cache.upkeep.quota import enforce_quota
from cache.upkeep.rewriting import compact
from configs import ConfigError, load_config
from configs.places import parse_root
from configs.visible_text import visible
from orchestration.cache_tools.actions import Teacher, each, select, select_one, teachers, verify
from orchestration.cache_tools.tables import (
    show_collected,
    show_compacted,
    show_exported,
    show_forgotten,
    show_imported,
    show_inventory,
    show_quota,
    show_rescored,
    show_teachers,
    show_verified,
    size,
)
from orchestration.cache_tools.text_patterns import TextPattern
from orchestration.environment import prepare_environment
from orchestration.outputs.console import Console

CACHE_ROOT = Path("data/cache")
QUICKSTART = Path("configs/quickstart.yaml")

SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def add_cache_commands(parent: argparse.ArgumentParser) -> None:
    """Add the actions below `distill cache`."""
    actions = parent.add_subparsers(required=True, metavar="ACTION")
    _action(actions, _ls, "ls", "list the teachers of a cache")
    _teacher_argument(_action(actions, _info, "info", "everything about a teacher: rows, encodings, datasets, licence"))
    check = _action(
        actions,
        _verify,
        "verify",
        "check every digest; with --deep decode and name every row anew, with --rescore ask the teacher again",
    )
    _teacher_argument(check)
    check.add_argument("--deep", action="store_true", help="decode everything and compute every key anew")
    check.add_argument(
        "--teacher", action="store_true", dest="hash_teacher", help="hash the config's teacher anew, byte by byte"
    )
    check.add_argument("--rescore", type=_positive, metavar="N", help="score N cached sequences again and compare")
    _config_arguments(check)
    check.set_defaults(cache_root=None, config=None)
    _teacher_argument(_action(actions, _compact, "compact", "merge small segments"))
    collect = _action(actions, _gc, "gc", "remove what crashes and merges left, and with --max-bytes old teachers")
    _teacher_argument(collect)
    collect.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    collect.add_argument("--grace", type=float, default=GRACE_S, metavar="S", help="keep replaced segments so long")
    collect.add_argument("--pin-days", type=float, default=PIN_DAYS, metavar="D", help="a view unused so long is dead")
    collect.add_argument(
        "--max-bytes", type=parse_bytes, metavar="SIZE", help="largest size of the cache, such as 500G"
    )
    collect.add_argument("--evict", action="store_true", help="over --max-bytes, remove teachers least recently used")
    export = _action(actions, _export, "export", "write a teacher's cache into one file")
    export.add_argument("teacher", metavar="TEACHER", help="beginning of the teacher's identity (see ls)")
    export.add_argument("file", type=Path, metavar="FILE")
    _action(actions, _import, "import", "take in what export wrote").add_argument("file", type=Path, metavar="FILE")
    forget = _action(
        actions,
        _forget,
        "forget",
        "remove the sequences of a config's teacher, its assistants and their rollouts that hold a text, for good; "
        "archives, prompts and trained students are not changed",
    )
    _config_arguments(forget)
    forget.add_argument(
        "--match", required=True, type=_pattern, metavar="REGEX", help="what to look for, in RE2's syntax"
    )
    forget.add_argument("--yes", action="store_true", help="remove them; without it they are only counted and listed")
    forget.add_argument("--break-pins", action="store_true", help="also where a run's view still needs them")


def parse_bytes(text: str) -> int:
    """A size such as 500G or 1.5T, in bytes.

    Raises:
        argparse.ArgumentTypeError: when it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is no size: write 500G, 1.5T or a number of bytes")
    return int(float(found[1]) * SIZES[found[2]])


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no count: name at least 1")
    return int(text)


def _pattern(text: str) -> TextPattern:
    try:
        return TextPattern(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _action(actions: Any, command: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    if name != "forget":
        parser.add_argument("--cache-root", type=_root, default=CACHE_ROOT, metavar="ROOT", help="a directory or a URL")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=command)
    return parser


def _root(text: str) -> Path | str:
    try:
        return parse_root(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _teacher_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("teacher", nargs="?", metavar="TEACHER", help="beginning of an identity; all when left out")


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=QUICKSTART, help="names teacher and places")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")


def _ls(arguments: argparse.Namespace) -> int:
    told = _Told()
    found = each(
        teachers(arguments.cache_root, tell=told), lambda teacher: _inventory(teacher, with_tail=False), tell=told
    )
    _print(arguments, found, lambda console: show_teachers(found, root=arguments.cache_root, console=console))
    return told.code


def _info(arguments: argparse.Namespace) -> int:
    told = _Told()
    found = each(_selected(arguments, told), lambda teacher: _inventory(teacher, with_tail=True), tell=told)
    _print(arguments, found, lambda console: _each(show_inventory, found, console))
    return told.code


def _verify(arguments: argparse.Namespace) -> int:
    _settle_places(arguments)
    if arguments.rescore is not None:
        return _rescore(arguments)
    if arguments.hash_teacher:
        return _hash_teacher(arguments)
    console = Console(sys.stderr if arguments.json else sys.stdout)
    with console.stage("verify", unit="MB") as stage:
        told = _Told()
        found = verify(_selected(arguments, told), deep=arguments.deep, tell=told, progress=stage.update)
        stage.summary = f"{sum(item.segments for item in found)} segments, {size(sum(item.bytes for item in found))}"
    _print(arguments, found, lambda console: show_verified(found, console=console))
    return 1 if any(result.damaged for result in found) else told.code


def _settle_places(arguments: argparse.Namespace) -> None:
    """A config that is named says where the cache is, unless a root is named as well, which then counts everywhere."""
    named = arguments.config is not None or arguments.overrides
    arguments.config = arguments.config or QUICKSTART
    if arguments.cache_root is not None:
        arguments.overrides = [*arguments.overrides, f"runtime.cache_root={json.dumps(str(arguments.cache_root))}"]
    elif named:
        arguments.cache_root = load_config(arguments.config, overrides=arguments.overrides).runtime.cache_root
    else:
        arguments.cache_root = CACHE_ROOT


def _hash_teacher(arguments: argparse.Namespace) -> int:
    from orchestration.cache_tools.teacher_check import hash_teacher

    config = load_config(arguments.config, overrides=arguments.overrides)
    console = Console(sys.stderr if arguments.json else sys.stdout)
    with console.stage("teacher", unit="MB hashed") as stage:
        found = hash_teacher(
            config, config_dir=arguments.config.parent, progress=lambda done, _: stage.update(done / 1e6)
        )
        stage.summary = f"{found.label}, identity {found.read[:12]}"
    said = (
        f"its weights were taken for {found.remembered[:12]} and are {found.read[:12]}: what was filled since they "
        "changed stands under the wrong identity; forget it, and fill again"
        if found.differs
        else f"every weight is what identity {found.read[:12]} was computed from"
    )
    _print(arguments, found, lambda console: console.say(said))
    return 1 if found.differs else 0


def _rescore(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, overrides=arguments.overrides)
    prepare_environment(ray_address=config.runtime.ray_address)
    from orchestration.cache_tools.rescoring import rescore
    from orchestration.outputs.redirect import terminal_kept

    logs = config.runtime.run_root / "rescoring-logs"
    with terminal_kept(logs / "driver.log") as terminal:
        console = Console(sys.stderr if arguments.json else terminal)
        with console.stage("rescoring") as stage:
            stage.update(0, note="starting an engine")
            found = rescore(config, config_dir=arguments.config.parent, rows=arguments.rescore, log_dir=logs)
            stage.summary = f"{found.rows} sequences, {found.tokens:,} tokens"
    _print(arguments, found, lambda console: show_rescored(found, console=console))
    return 0


def _compact(arguments: argparse.Namespace) -> int:
    told = _Told()
    found = each(
        _selected(arguments, told), lambda teacher: compact(teacher.storage, identity=teacher.digest), tell=told
    )
    _print(arguments, found, lambda console: _each(show_compacted, found, console))
    return told.code


def _gc(arguments: argparse.Namespace) -> int:
    if arguments.evict and arguments.max_bytes is None:
        raise ConfigError("--evict without --max-bytes: say how large the cache may be")
    told = _Told()
    found = each(
        _selected(arguments, told),
        lambda teacher: collect_garbage(
            teacher.storage,
            identity=teacher.digest,
            dry_run=arguments.dry_run,
            grace_s=arguments.grace,
            pin_days=arguments.pin_days,
        ),
        tell=told,
    )
    quota = None
    if arguments.max_bytes is not None:
        evict = arguments.evict and not arguments.dry_run
        quota = enforce_quota(
            arguments.cache_root, max_bytes=arguments.max_bytes, evict=evict, pin_days=arguments.pin_days
        )

    def show(console: Console) -> None:
        _each(show_collected, found, console)
        if quota is not None:
            show_quota(quota, console=console)

    _print(arguments, {"collected": found, "quota": quota}, show)
    return told.code


def _export(arguments: argparse.Namespace) -> int:
    teacher = select_one(teachers(arguments.cache_root, tell=_Told()), arguments.teacher, root=arguments.cache_root)
    found = export_archive(teacher.storage, arguments.file, identity=teacher.digest)
    _print(arguments, found, lambda console: show_exported(found, console=console))
    return 0


def _import(arguments: argparse.Namespace) -> int:
    found = import_archive(arguments.cache_root, arguments.file)
    _print(arguments, found, lambda console: show_imported(found, console=console))
    return 0


def _forget(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, overrides=arguments.overrides)
    prepare_environment(ray_address=config.runtime.ray_address)
    from orchestration.cache_tools.forgetting import forget_text

    found = forget_text(
        config,
        config_dir=arguments.config.parent,
        pattern=arguments.match,
        remove=arguments.yes,
        break_pins=arguments.break_pins,
    )
    _print(arguments, found, lambda console: show_forgotten(found, console=console))
    return 1 if found.kept_for_views else 0


class _Told:
    """Says on stderr what is wrong with a teacher of a cache, and that the command did not do all it should."""

    def __init__(self) -> None:
        self.code = 0

    def __call__(self, reason: str) -> None:
        self.code = 1
        Console(sys.stderr).warn(f"left out: {visible(reason)}")


def _selected(arguments: argparse.Namespace, told: _Told) -> list[Teacher]:
    return select(teachers(arguments.cache_root, tell=told), arguments.teacher, root=arguments.cache_root)


def _inventory(teacher: Teacher, *, with_tail: bool) -> TeacherInventory:
    return teacher_inventory(teacher.storage, teacher.digest, with_tail=with_tail)


def _each(show: Any, found: Sequence[Any], console: Console) -> None:
    for item in found:
        show(item, console=console)


def _print(arguments: argparse.Namespace, found: Any, show: Any) -> None:
    if arguments.json:
        sys.stdout.write(json.dumps(_plain(found), indent=2, default=str) + "\n")
    else:
        show(Console(sys.stdout))


def _plain(found: Any) -> Any:
    if isinstance(found, list):
        return [_plain(item) for item in found]
    if isinstance(found, dict):
        return {name: _plain(item) for name, item in found.items()}
    return asdict(found) if is_dataclass(found) and not isinstance(found, type) else found
