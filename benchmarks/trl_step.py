"""A whole training step here against those of others and loops by hand: same pair, tokens, dtype and machine.

Each contender lives in a process of its own, and takes its steps in turn with ours; the best of each counts, on a CPU
by processor time on one thread. Those that keep a teacher's outputs read them in every step, ours included; the others
run the teacher.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from benchmarks.measurement import Row, at_least
from benchmarks.pair import HIDDEN, LENGTH, MLP, RESPONSE, ROWS, STUDENT_LAYERS, VOCAB
from benchmarks.turns import ContenderFailed, Turn, best_of_turns, stepping

ROUNDS = 5
AHEAD = 1.3
"""How many times as long as ours a step of another should take, where its products leave so much."""

OURS = "benchmarks.step_loops:from_the_cache"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another way to take the step: where it is written down, and the package that it needs."""

    name: str
    place: str
    needs: str | None = None
    products: float = math.inf

    @property
    def target(self) -> float:
        """1.3, or less where both have to make nearly the same products: within 5 % of what these leave."""
        return min(AHEAD, 0.95 * self.products)


def products_of_a_loop() -> float:
    """What a step that computes logits at every token multiplies, over ours, which does so where answers are."""
    layers, head = STUDENT_LAYERS * HIDDEN * (HIDDEN * 8 // 3 + 3 * MLP), HIDDEN * VOCAB
    return (layers + head) / (layers + head * RESPONSE / LENGTH)


PEERS = (
    Peer("TRL GKDTrainer, teacher at hand", "benchmarks.peer_trainers:trl_gkd", "trl"),
    Peer("TRL DistillationTrainer, teacher at hand", "benchmarks.peer_trainers:trl_distillation", "trl"),
    Peer("a loop by hand, teacher at hand", "benchmarks.step_loops:teacher_at_hand"),
    Peer(
        "a loop by hand, top k from a memory map",
        "benchmarks.step_loops:top_k_from_arrays",
        products=products_of_a_loop(),
    ),
    Peer(
        "the same with float32 weights under autocast",
        "benchmarks.step_loops:top_k_with_master_weights",
        products=products_of_a_loop(),
    ),
    Peer("DistillKit offline, its own cache", "benchmarks.peer_trainers:distillkit_offline", "distillkit"),
)


def bench_trl_step() -> Iterator[Row]:
    """Tokens a second of ours beside each, and how many times as long the other takes."""
    with stepping(partial(_contend, OURS)) as ours:
        for peer in PEERS:
            if peer.needs is not None and importlib.util.find_spec(peer.needs) is None:
                yield f"{peer.name}: not measured, {peer.needs} is not installed"
                continue
            try:
                with stepping(partial(_contend, peer.place)) as theirs:
                    seconds = best_of_turns({"ours": ours, peer.name: theirs}, rounds=ROUNDS)
            except ContenderFailed as failed:
                yield f"{peer.name}: not measured, {failed}"
                continue
            rates = {name: f"{ROWS * LENGTH / taken:,.0f}" for name, taken in seconds.items()}
            note = f"ours {rates['ours']} tokens/s, the other {rates[peer.name]}"
            yield at_least(
                f"step of {peer.name} / ours", seconds[peer.name] / seconds["ours"], round(peer.target, 2), note=note
            )


def _contend(place: str, turn: Turn) -> None:
    """Import a contender where it lives, and only there."""
    module, _, function = place.partition(":")
    getattr(import_module(module), function)(turn)
