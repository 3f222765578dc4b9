from __future__ import annotations

from dataclasses import replace

from cache import GenerateRequest, TeacherIdentity, TeacherRecord
from cache.protocols import Failure
from orchestration.inputs.random_models import byte_tokenizer
from teacher_server import FakeTeacher
from teacher_server.grammar import Grammars

YES = 'start: "yes" | "no"'


def test_what_may_come_next_and_where_an_answer_may_end() -> None:
    tokenizer = byte_tokenizer()
    held = Grammars(tokenizer, vocab=len(tokenizer)).begin(YES)

    def next_ones() -> set[str]:
        return {tokenizer.decode([token]) for token in held.allowed().nonzero()[0].tolist()}

    assert held.allowed().shape == (len(tokenizer),)
    assert next_ones() == {"y", "n"}
    for letter in "no":
        held.take(tokenizer.encode(letter)[0])
    assert next_ones() == {tokenizer.eos_token}


def test_a_text_that_is_no_grammar_is_refused_in_one_line() -> None:
    grammars = Grammars(byte_tokenizer(), vocab=len(byte_tokenizer()))
    assert grammars.refusal(YES) is None
    for text in ('start: "yes', "start: ((((", "x" * 2000, "root ::= (", "%", "start: <|none|>", "\x00"):
        refused = grammars.refusal(text)
        assert refused and "\n" not in refused, text


def test_a_fake_teacher_writes_what_the_grammar_allows() -> None:
    tokenizer = byte_tokenizer()
    identity = TeacherIdentity(weights_sha256="0" * 64, config_sha256="1" * 64, dtype="float32")
    eos, vocab = int(tokenizer.eos_token_id), len(tokenizer)
    plain = FakeTeacher(identity, vocab=vocab, eos_id=eos)
    able = FakeTeacher(identity, vocab=vocab, eos_id=eos, grammars=Grammars(tokenizer, vocab=vocab))
    asked = [
        GenerateRequest((65, number), (eos,), 8, temperature=1.0, replicate=number, grammar=YES) for number in range(20)
    ]
    written = {
        tokenizer.decode(outcome.response_ids, skip_special_tokens=True)
        for _, outcome in able.generate(asked, k=0)
        if isinstance(outcome, TeacherRecord) and outcome.finish == "stop"
    }
    assert written == {"yes", "no"}
    [(_, refused)] = plain.generate(asked[:1], k=0)
    assert refused == Failure("it reads no grammars")
    [(_, refused)] = able.generate([replace(asked[0], grammar='start: "yes')], k=0)
    assert isinstance(refused, Failure)
