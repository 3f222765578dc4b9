"""An on-policy stage: rollouts are made while the group trains, and kept where another experiment finds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import namespace

from configs.stages import StageConfig
from orchestration.pipeline.chain import Link, Student
from orchestration.pipeline.on_policy import rollouts_name, train_on_policy

MINILLM = StageConfig.model_validate({"objective": "minillm", "rollout": {"count": 2}})
SEQKD = StageConfig.model_validate({"objective": "seqkd", "steps": 4})


class Maker:
    """Notes when it is asked for a rollout, and when it is closed."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def make_due(self) -> None:
        self.called.append("make due")

    def shares(self, seconds: float) -> dict[str, float]:
        self.called.append("shares")
        assert seconds >= 0
        return {"rollout/sampling_share": 0.5}

    def close(self) -> None:
        self.called.append("close")


@pytest.fixture
def link(tmp_path: Path) -> Link:
    """A stage whose directory holds what a training leaves there."""
    work = tmp_path / "work"
    for name in (
        "policies/policy-001/model.safetensors", "policies/behaviour-000.npz", "policies/.staging-x/part",
        "rollouts/rollout-000/view.npz", "rollouts/meeting-001-2-abc/store", "step-000000004/state", "curves.jsonl",
    ):  # fmt: skip
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(name)
    return Link(MINILLM, "d", tmp_path / "start", tmp_path / "out", work, "a start")


def test_rollouts_are_made_while_the_group_trains_and_kept(link: Link, tmp_path: Path) -> None:
    made = Maker()
    maker: Any = made

    def group(meanwhile: Callable[[], None]) -> Mapping[str, object]:
        meanwhile()
        meanwhile()
        return {"selected_step": 3}

    result, shares = train_on_policy(maker, link, group=group, kept=tmp_path / "kept")
    assert (result, shares) == ({"selected_step": 3}, {"rollout/sampling_share": 0.5})
    assert made.called == ["make due", "make due", "shares", "close"]
    # Neither checkpoints nor weights, nor the places where weights were sent.
    files = {str(path.relative_to(tmp_path / "kept")) for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert files == {"policies/behaviour-000.npz", "rollouts/rollout-000/view.npz"}


def test_a_stop_ends_the_engines_and_keeps_nothing(link: Link, tmp_path: Path) -> None:
    made = Maker()
    maker: Any = made

    def group(meanwhile: Callable[[], None]) -> Mapping[str, object]:
        meanwhile()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_on_policy(maker, link, group=group, kept=tmp_path / "kept")
    assert made.called == ["make due", "close"]
    assert not (tmp_path / "kept").exists()


def test_stages_of_one_student_keep_their_rollouts_apart() -> None:
    place = Path("here")
    links = tuple(
        Link(stage, digest, place, place, place, origin="")
        for stage, digest in ((SEQKD, "a"), (MINILLM, "b"), (MINILLM, "c"))
    )
    one, two = (Student("kid", namespace(), links[:count]) for count in (2, 3))
    assert rollouts_name(one, links[1]) == "kid"
    assert [rollouts_name(two, link) for link in links[1:]] == ["kid.1", "kid.2"]
