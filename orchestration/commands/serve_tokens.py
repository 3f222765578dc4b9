"""The options of `distill serve`, and the tokens of those who may ask: made, listed, revoked while the door is open."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta

from rich.table import Table

from configs import Experiment, load_experiment
from orchestration.commands.last_words import last_words
from orchestration.environment import prepare_environment
from orchestration.outputs.console import Console
from teacher_server.http.guard import SCOPES, TokenStore

TOKENS = "door-tokens.json"
"""Below the run root: who may come in."""


def add_serve(command: argparse.ArgumentParser) -> None:
    """The options of `distill serve` beside its configuration, and its `token` commands."""
    command.add_argument("--ray-address", help="attach to this Ray cluster instead of starting a private one")
    command.add_argument("--port", type=int, help="listen here instead of at runtime.serve.port")
    command.set_defaults(command=serve)
    tokens = command.add_subparsers(metavar="token")
    token = tokens.add_parser("token", help="make, list and revoke the tokens of who may ask")
    actions = token.add_subparsers(required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make a token, and show it this once")
    new.add_argument("name", help="whose it is")
    new.add_argument(
        "--scope", default="ask", choices=SCOPES, help="read what is there, ask the teacher, or everything"
    )
    new.add_argument("--days", type=float, help="how long it is valid; without it until it is revoked")
    new.set_defaults(command=_new_token)
    listed = actions.add_parser("list", help="list the tokens by name, without what they say")
    listed.set_defaults(command=_list_tokens)
    revoke = actions.add_parser("revoke", help="let nobody in with this token from now on")
    revoke.add_argument("name", help="whose it is")
    revoke.set_defaults(command=_revoke_token)


def serve(arguments: argparse.Namespace) -> None:
    """Open the door of a configuration, until somebody stops it."""
    overrides = list(arguments.overrides)
    if arguments.port is not None:
        overrides.append(f"runtime.serve.port={arguments.port}")
    if arguments.ray_address:
        overrides.append(f"runtime.ray_address={arguments.ray_address}")
    config = load_experiment(arguments.config, overrides=overrides)
    prepare_environment(ray_address=config.runtime.ray_address)
    from orchestration.commands.serve import serve_teachers

    with last_words():
        serve_teachers(config, config_dir=arguments.config.parent, store=token_store(config))


def _new_token(arguments: argparse.Namespace) -> None:
    expires = None if arguments.days is None else datetime.now(UTC) + timedelta(days=arguments.days)
    token = token_store(_load(arguments)).new(arguments.name, scopes=[arguments.scope], expires=expires)
    # The token alone, so that it can go into a variable or a file.
    sys.stdout.write(f"{token}\n")
    sys.stderr.write("This is the only time that it is shown: only its hash is kept.\n")


def _list_tokens(arguments: argparse.Namespace) -> None:
    now = datetime.now(UTC).timestamp()
    table = Table("name", "scope", "made", "until")
    made = token_store(_load(arguments)).listed()
    for key in made:
        ended = key.revoked if key.revoked is not None else key.expires
        until = "" if ended is None else _day(ended) + (" (revoked)" if key.revoked is not None else "")
        if not key.valid_at(now) and key.revoked is None:
            until += " (expired)"
        table.add_row(key.name, ", ".join(key.scopes), _day(key.created), until)
    Console(sys.stdout).say(table)


def _revoke_token(arguments: argparse.Namespace) -> None:
    token_store(_load(arguments)).revoke(arguments.name)
    sys.stdout.write(f"The token of {arguments.name} lets nobody in any more.\n")


def _load(arguments: argparse.Namespace) -> Experiment:
    return load_experiment(arguments.config, overrides=arguments.overrides)


def token_store(config: Experiment) -> TokenStore:
    """Who may come in at the door of a configuration."""
    return TokenStore((config.runtime.serve.tokens or config.runtime.run_root / TOKENS).absolute())


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
