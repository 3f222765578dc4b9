"""A session ends what it began: worker groups, then the cluster, whatever happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.schema import RuntimeConfig
from orchestration.cluster.warm_groups import WarmGroups
from orchestration.pipeline.session import Session


@pytest.fixture
def calls(ray_calls: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to Ray and to worker groups."""
    monkeypatch.setattr(WarmGroups, "close", lambda _: ray_calls.append("end groups"))
    return ray_calls


def test_without_need_there_is_no_cluster(calls: list[str], tmp_path: Path) -> None:
    with Session(tmp_path) as session:
        assert not session.attached
    assert calls == ["end groups"]


def test_groups_end_before_their_cluster(calls: list[str], tmp_path: Path) -> None:
    with Session(tmp_path) as session:
        assert session.attach(RuntimeConfig(), device="cpu", gpus=0) == 3
        assert session.attached
    assert calls == [
        "attach to None with 0 GPUs", "probe runtime.cache_root, runtime.run_root", "end groups", "detach",
    ]  # fmt: skip


def test_a_cluster_of_the_user_has_to_have_gpus_where_they_are_used(calls: list[str], tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.attach(RuntimeConfig(ray_address="10.0.0.1:6379"), device="gpu", gpus=4)
    assert calls[:2] == ["attach to 10.0.0.1:6379 with 4 GPUs", "require GPUs at 10.0.0.1:6379"]


def test_the_cluster_is_left_even_if_a_group_does_not_end(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: WarmGroups) -> None:
        raise KeyboardInterrupt

    session = Session(tmp_path)
    session.attach(RuntimeConfig(), device="cpu", gpus=0)
    monkeypatch.setattr(WarmGroups, "close", refuse)
    with pytest.raises(KeyboardInterrupt):
        session.close()
    assert calls[-1] == "detach"
