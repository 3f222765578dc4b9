"""What Prometheus reads."""

from __future__ import annotations

import asyncio
from pathlib import Path

from doors import IDENTITY, VOCAB, Gated, asked
from prometheus_client.parser import text_string_to_metric_families

from cache import TeacherCache
from cache.records import GenerateRequest
from teacher_server.http.exchange import Exchange
from teacher_server.http.guard import Key
from teacher_server.http.metrics import Metrics
from teacher_server.http.sequence_desk import DeskTerms, SequenceDesk

Samples = dict[tuple[str, ...], float]


def samples(metrics: Metrics) -> Samples:
    """Every sample by its name and the values of its labels, in the order of the labels' names."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_the_desk_counts_is_read_at_the_moment_of_asking(tmp_path: Path) -> None:
    gated = Gated()
    desk = SequenceDesk(TeacherCache.open(tmp_path, IDENTITY), gated, DeskTerms(vocab=VOCAB, most_k=8))
    metrics = Metrics({"noise": desk})

    async def run() -> None:
        one, other = GenerateRequest((1, 5), (2,), 4), GenerateRequest((1, 6), (2,), 4)
        waiting = [asyncio.create_task(desk.answer(asked(rows, k=0))) for rows in ([one, other], [one])]
        await gated.until_asked(2)
        while not desk.counts.shared:
            await asyncio.sleep(0.005)
        meanwhile = samples(metrics)
        assert meanwhile["stillroom_waiting_tokens", "noise"] == 12
        assert meanwhile["stillroom_rows_total", "asked", "noise"] == 2
        assert meanwhile["stillroom_rows_total", "shared", "noise"] == 1
        gated.gate.set()
        await asyncio.gather(*waiting)
        await desk.answer(asked([GenerateRequest((), (2,), 4)], k=0))
        await desk.close()

    asyncio.run(run())
    metrics.count_hits("noise", 5)
    then = samples(metrics)
    assert then["stillroom_rows_total", "hit", "noise"] == 5
    assert then["stillroom_rows_total", "failed", "noise"] == 1
    assert then["stillroom_rows_total", "refused", "noise"] == 0
    assert then["stillroom_waiting_tokens", "noise"] == 0
    assert then["stillroom_teacher_tokens_total", "noise"] == desk.counts.teacher_tokens > 0
    assert then["stillroom_committed_rows_total", "noise"] == 2
    assert then["stillroom_commit_errors_total", "noise"] == 0


def test_requests_are_counted_by_key_route_and_status() -> None:
    metrics = Metrics({})
    for status in (200, 200, 429):
        exchange = Exchange("abc", "POST", route="/v1/score", status=status)
        exchange.key = Key("me", "0" * 64, ("ask",), 0.0)
        metrics.count(exchange)
    found = samples(metrics)
    assert found["stillroom_requests_total", "me", "/v1/score", "200"] == 2
    assert found["stillroom_requests_total", "me", "/v1/score", "429"] == 1
    assert found["stillroom_request_seconds_count", "/v1/score"] == 3
    assert found["stillroom_request_seconds_bucket", "600.0", "/v1/score"] == 3


def test_the_registry_is_the_door_s_own() -> None:
    Metrics({})
    names = {name for name, *_ in samples(Metrics({}))}
    assert all(name.startswith("stillroom_") for name in names)
