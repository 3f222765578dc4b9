"""What the rules of a door refuse is neither asked nor given out, whatever the cache holds; each row is told by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from doors import Gated, OpenDoor, at_door, scored, written

BAD_PROMPT, BAD_SEQUENCE = 7, 9


class NoSevens:
    """Refuses what holds one token, and withholds an answer to prompts that it is told about."""

    def __init__(self, *, withhold: bool = False) -> None:
        self.withhold = withhold

    def why_unasked(self, token_ids: Sequence[int]) -> str | None:
        return "it holds a seven" if {BAD_PROMPT, BAD_SEQUENCE} & set(token_ids) else None

    def why_withheld(self, token_ids: Sequence[int]) -> str | None:
        return "its answer is not given" if self.withhold else None


def test_a_row_is_refused_with_its_code_and_the_others_are_answered(tmp_path: Path) -> None:
    gated = Gated(open_gate=True)

    async def play(door: OpenDoor) -> None:
        body = {"k": 1, "requests": [written(1, 5), written(1, BAD_PROMPT), written(1, 6)]}
        rows = (await door.ask("/v1/generate", body)).json()["rows"]
        assert rows[1] == {"error": {"code": "unwanted", "reason": "it holds a seven"}}
        assert [row["token_ids"][:2] for row in (rows[0], rows[2])] == [[1, 5], [1, 6]]
        assert len(gated.asked) == 2
        body = {"k": 1, "requests": [scored(1, 5, BAD_SEQUENCE), scored(1, 5, 6)]}
        rows = (await door.ask("/v1/score", body)).json()["rows"]
        assert rows[0]["error"]["code"] == "unwanted" and "error" not in rows[1]

    at_door(tmp_path, play, asking=gated, rules=NoSevens())


def test_where_every_row_is_refused_nobody_is_asked(tmp_path: Path) -> None:
    gated = Gated()

    async def play(door: OpenDoor) -> None:
        rows = (await door.ask("/v1/generate", {"k": 1, "requests": [written(BAD_PROMPT)]})).json()["rows"]
        assert rows[0]["error"]["code"] == "unwanted" and gated.asked == []

    at_door(tmp_path, play, asking=gated, rules=NoSevens())


def test_what_the_cache_holds_is_refused_and_withheld_as_well(tmp_path: Path) -> None:
    body = {"k": 1, "requests": [written(1, 5), written(1, BAD_PROMPT)]}

    async def fill(door: OpenDoor) -> None:
        assert all("error" not in row for row in (await door.ask("/v1/generate", body)).json()["rows"])

    async def play(door: OpenDoor) -> None:
        rows = (await door.ask("/v1/generate", body)).json()["rows"]
        assert [row["error"]["reason"] for row in rows] == ["its answer is not given", "it holds a seven"]
        given = {"k": 1, "requests": [scored(1, 5, 6)]}
        assert "error" not in (await door.ask("/v1/score", given)).json()["rows"][0], "who brought a text knows it"

    at_door(tmp_path, fill)
    (tmp_path / "tokens.json").unlink()
    at_door(tmp_path, play, rules=NoSevens(withhold=True))


def test_the_protocol_of_openai_has_the_same_code(tmp_path: Path) -> None:
    async def play(door: OpenDoor) -> None:
        body = {"model": "noise", "prompt": [[1, BAD_PROMPT]], "max_tokens": 2}
        response = await door.ask("/v1/completions", body)
        assert response.status_code == 422 and response.json()["error"]["code"] == "unwanted", response.text

    at_door(tmp_path, play, rules=NoSevens())
