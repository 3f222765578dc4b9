"""`distill cache ls | info | verify | compact | gc | export | import | forget`: the arguments, and what is printed.

Every action returns plain dataclasses, which `--json` prints as they are; without it they become tables and lines.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache.pins import PIN_DAYS
from cache.upkeep.archives import export_archive, import_archive
from cache.upkeep.garbage import GRACE_S, collect_garbage
from cache.upkeep.inventory import TeacherInventory, teacher_inventory
from cache.upkeep.quota import enforce_quota
from cache.upkeep.rewriting import compact
from configs import ConfigError, load_experiment
from orchestration.cache_tools.actions import CachedTeacher, each, select, select_one, teachers
from orchestration.cache_tools.tables import (
    show_collected,
    show_compacted,
    show_exported,
    show_forgotten,
    show_imported,
    show_inventory,
    show_quota,
    show_teachers,
)
from orchestration.commands.argument_types import parse_bytes, parse_cache_root, parse_count, parse_pattern
from orchestration.commands.cache_verify import CACHE_ROOT, QUICKSTART, verify_cache
from orchestration.commands.results import LeftOut, print_result, show_each
from orchestration.environment import prepare_environment
from orchestration.outputs.console import Console

Command = Callable[[argparse.Namespace], int]


def add_cache_commands(parent: argparse.ArgumentParser) -> None:
    """Add the actions below `distill cache`."""
    actions = parent.add_subparsers(required=True, metavar="ACTION")
    _action(actions, _ls, "ls", "list the teachers of a cache")
    _teacher_argument(_action(actions, _info, "info", "everything about a teacher: rows, encodings, datasets, licence"))
    check = _action(
        actions,
        verify_cache,
        "verify",
        "check every digest; with --deep decode and name every row anew, with --rescore ask the teachers again",
    )
    _teacher_argument(check)
    check.add_argument("--deep", action="store_true", help="decode everything and compute every key anew")
    check.add_argument(
        "--teacher", action="store_true", dest="hash_teacher", help="hash the config's teachers anew, byte by byte"
    )
    check.add_argument(
        "--rescore", type=parse_count, metavar="N", help="score N cached sequences of each teacher again"
    )
    _config_arguments(check)
    check.set_defaults(cache_root=None, config=None)
    _teacher_argument(_action(actions, _compact, "compact", "merge small segments"))
    collect = _action(actions, _gc, "gc", "remove what crashes and merges left, and with --max-bytes old teachers")
    _teacher_argument(collect)
    collect.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    collect.add_argument(
        "--grace", type=float, default=GRACE_S, metavar="S", help="keep replaced segments for S seconds"
    )
    collect.add_argument(
        "--pin-days", type=float, default=PIN_DAYS, metavar="D", help="a view unused for D days is dead"
    )
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
        "remove a text from every cache below the cache root and from the runs beside it, for good, and remember it by "
        "hashes, so that nothing brings it back; trained students, archives and data are not changed. Or forget what "
        "teachers could not answer, which is then asked again",
    )
    _config_arguments(forget)
    what = forget.add_mutually_exclusive_group(required=True)
    what.add_argument("--match", type=parse_pattern, metavar="REGEX", help="what to look for, in RE2's syntax")
    what.add_argument("--failures", action="store_true", help="what could not be answered, so that it is asked again")
    how = forget.add_mutually_exclusive_group()
    how.add_argument("--yes", action="store_true", help="remove them; without it they are only counted and listed")
    how.add_argument("--dry-run", action="store_true", help="count and list alone, as without --yes")
    forget.add_argument("--break-pins", action="store_true", help="also where a run's view still needs them")


def _action(actions: Any, command: Command, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    if name != "forget":
        parser.add_argument(
            "--cache-root", type=parse_cache_root, default=CACHE_ROOT, metavar="ROOT", help="a directory or a URL"
        )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=command)
    return parser


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=QUICKSTART, help="names teacher and places")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")


def _teacher_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("teacher", nargs="?", metavar="TEACHER", help="beginning of an identity; all when left out")


def _ls(arguments: argparse.Namespace) -> int:
    left_out = LeftOut()
    found = each(
        teachers(arguments.cache_root, left_out=left_out),
        lambda teacher: _inventory(teacher, with_tail=False),
        left_out=left_out,
    )
    print_result(arguments, found, lambda console: show_teachers(found, root=arguments.cache_root, console=console))
    return left_out.code


def _info(arguments: argparse.Namespace) -> int:
    left_out = LeftOut()
    found = each(_selected(arguments, left_out), lambda teacher: _inventory(teacher, with_tail=True), left_out=left_out)
    print_result(arguments, found, lambda console: show_each(show_inventory, found, console))
    return left_out.code


def _compact(arguments: argparse.Namespace) -> int:
    left_out = LeftOut()
    found = each(
        _selected(arguments, left_out),
        lambda teacher: compact(teacher.storage, identity=teacher.digest),
        left_out=left_out,
    )
    print_result(arguments, found, lambda console: show_each(show_compacted, found, console))
    return left_out.code


def _gc(arguments: argparse.Namespace) -> int:
    if arguments.evict and arguments.max_bytes is None:
        raise ConfigError("--evict without --max-bytes: say how large the cache may be")
    left_out = LeftOut()
    found = each(
        _selected(arguments, left_out),
        lambda teacher: collect_garbage(
            teacher.storage,
            identity=teacher.digest,
            dry_run=arguments.dry_run,
            grace_s=arguments.grace,
            pin_days=arguments.pin_days,
        ),
        left_out=left_out,
    )
    quota = None
    if arguments.max_bytes is not None:
        evict = arguments.evict and not arguments.dry_run
        quota = enforce_quota(
            arguments.cache_root, max_bytes=arguments.max_bytes, evict=evict, pin_days=arguments.pin_days
        )

    def show(console: Console) -> None:
        show_each(show_collected, found, console)
        if quota is not None:
            show_quota(quota, console=console)

    print_result(arguments, {"collected": found, "quota": quota}, show)
    return left_out.code


def _export(arguments: argparse.Namespace) -> int:
    teacher = select_one(
        teachers(arguments.cache_root, left_out=LeftOut()), arguments.teacher, root=arguments.cache_root
    )
    found = export_archive(teacher.storage, arguments.file, identity=teacher.digest)
    print_result(arguments, found, lambda console: show_exported(found, console=console))
    return 0


def _import(arguments: argparse.Namespace) -> int:
    found = import_archive(arguments.cache_root, arguments.file, differs=_other_model)
    print_result(arguments, found, lambda console: show_imported(found, console=console))
    return 0


def _other_model(here: Any, there: Any) -> str | None:
    from teacher_server.remote.probing import Fingerprint

    try:
        return Fingerprint.parse(here).difference(Fingerprint.parse(there))
    except (KeyError, TypeError, ValueError):
        return "what one of them said first is not readable"


def _forget(arguments: argparse.Namespace) -> int:
    config = load_experiment(arguments.config, overrides=arguments.overrides)
    prepare_environment(ray_address=config.runtime.ray_address)
    from orchestration.cache_tools.forgetting import forget_text

    found = forget_text(
        config,
        config_dir=arguments.config.parent,
        pattern=arguments.match,
        remove=arguments.yes,
        break_pins=arguments.break_pins,
    )
    print_result(arguments, found, lambda console: show_forgotten(found, console=console))
    return 1 if found.kept_for_views else 0


def _selected(arguments: argparse.Namespace, left_out: LeftOut) -> list[CachedTeacher]:
    return select(teachers(arguments.cache_root, left_out=left_out), arguments.teacher, root=arguments.cache_root)


def _inventory(teacher: CachedTeacher, *, with_tail: bool) -> TeacherInventory:
    return teacher_inventory(teacher.storage, teacher.digest, with_tail=with_tail)
