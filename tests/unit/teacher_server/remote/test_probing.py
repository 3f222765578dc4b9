"""What a server can do is what it shows, whatever it takes without a word; and a model that changes is noticed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from fastapi.responses import JSONResponse
from openai_server import KEY, LIKE_VLLM, VOCAB, Habits, serving, tokens

from configs import EngineError
from teacher_server.remote.calls import Server, ServerSettings
from teacher_server.remote.probing import DRIFT_NATS, Abilities, Fingerprint, Prober


def probed(habits: Habits, *, k: int = 8) -> tuple[Abilities, Fingerprint]:
    """What a server with these habits shows, and says of the fixed texts."""
    with serving(habits) as url:
        server = Server(ServerSettings(url, key=KEY, budget_s=10.0))
        try:
            prober = Prober(server, model="noise", tokens=tokens())
            abilities = prober.abilities(k=k)
            return abilities, prober.fingerprint(abilities)
        finally:
            server.close()


LIKE_OUR_ENGINE = Abilities(
    model="noise",
    chat=False,
    takes_ids=True,
    id_fields=("return_token_ids", "return_tokens_as_token_ids"),
    most_k=8,
    scoring="prompt_logprobs",
    takes_stops=True,
    samplers=frozenset({"top_k", "min_p"}),
)


@pytest.mark.parametrize("strict", [True, False])
def test_all_that_there_is(strict: bool) -> None:
    assert probed(Habits(strict=strict))[0] == LIKE_OUR_ENGINE


@pytest.mark.parametrize(
    ("lacking", "strict", "change"),
    [
        (
            {"return_tokens_as_token_ids"},
            True,
            {"id_fields": ("return_token_ids",), "most_k": 0, "scoring": "prompt_logprobs"},
        ),
        ({"prompt_logprobs"}, True, {"scoring": "echo"}),
        ({"prompt_logprobs"}, False, {"scoring": "echo"}),
        ({"stop_token_ids"}, True, {"takes_stops": False}),
        ({"stop_token_ids"}, False, {"takes_stops": False}),
        # One that ignores it may still stop rightly; an answer that it ends elsewhere is refused then.
        ({"ignore_eos"}, True, {"takes_stops": False}),
        ({"top_k"}, True, {"samplers": frozenset({"min_p"})}),
        ({"min_p"}, False, {"samplers": frozenset({"top_k"})}),
    ],
)
def test_what_is_ignored_or_refused_is_lacking(lacking: set[str], strict: bool, change: dict[str, Any]) -> None:
    assert probed(Habits(fields=LIKE_VLLM - lacking, strict=strict))[0] == replace(LIKE_OUR_ENGINE, **change)


def test_log_probabilities_are_counted_and_not_promised() -> None:
    assert probed(Habits(most_logprobs=5))[0].most_k == 5
    assert probed(Habits(most_logprobs=3))[0].most_k == 1
    assert probed(Habits(most_logprobs=0))[0].most_k == 0


def test_a_server_without_extensions() -> None:
    abilities, fingerprint = probed(
        Habits(fields=frozenset(), takes_ids=False, echoes=False, most_logprobs=20, ascii=True)
    )
    assert abilities == Abilities("noise", False, False, (), 8, "none", False, frozenset())
    assert not fingerprint.logprobs and len(fingerprint.texts) == 3
    assert abilities.kept_k == 0
    assert abilities.told() == (
        "takes texts, gives no log-probabilities of the end of an answer, scores no given texts, ends where it wants to"
    )


def test_a_server_that_breaks_down_over_token_ids_takes_texts() -> None:
    abilities, _ = probed(Habits(takes_ids=False, unread=500, ascii=True))
    assert not abilities.chat and not abilities.takes_ids


def test_a_server_of_conversations() -> None:
    abilities, fingerprint = probed(Habits(chat_only=True, ascii=True))
    assert abilities == Abilities("noise", True, False, (), 8, "none", False, frozenset())
    assert len(fingerprint.texts) == 3


def test_a_server_that_breaks_down_is_no_server_that_lacks_something() -> None:
    with pytest.raises(EngineError, match="status 500"):
        probed(Habits(before=lambda _: JSONResponse({}, status_code=500)))


def test_the_same_model_has_the_same_fingerprint_and_another_one_another() -> None:
    same, other = probed(Habits())[1], probed(Habits(seed=1))[1]
    assert same.difference(probed(Habits())[1]) is None
    assert [len(each) > 10 for each in same.logprobs] == [True] * 3
    said = same.difference(other)
    assert said is not None and "log-probabilities of the same texts differ by" in said
    words, others = (probed(Habits(chat_only=True, ascii=True, seed=seed))[1] for seed in (0, 1))
    assert words.difference(words) is None
    assert "it writes" in (words.difference(others) or "")


def test_rounding_is_no_other_model() -> None:
    one = Fingerprint(logprobs=((-1.0, -2.0, float("-inf")),))
    assert one.difference(Fingerprint(logprobs=((-1.02, -1.98, float("-inf")),))) is None
    assert one.difference(Fingerprint(logprobs=((-1.0 - 4 * DRIFT_NATS, -2.0, float("-inf")),))) is not None
    assert one.difference(Fingerprint(logprobs=((-1.0, -2.0),))) == "it counts other tokens in the same texts"


def test_what_cannot_be_compared_any_more_is_not_the_same() -> None:
    told, silent = Fingerprint(logprobs=((-1.0, -2.0),)), Fingerprint(texts=("a", "b"))
    for one, other in ((told, silent), (silent, told)):
        assert one.difference(other) == "log-probabilities of given texts are told at one time and not at the other"


def test_a_fingerprint_goes_through_a_file() -> None:
    for one in (Fingerprint(logprobs=((-1.5, -0.25), (-3.0,))), Fingerprint(texts=("a", "b"))):
        assert Fingerprint.parse(json.loads(json.dumps(one.fields()))) == one


def test_the_whole_vocabulary_may_be_asked_for() -> None:
    assert probed(Habits(), k=VOCAB)[0].most_k == VOCAB
