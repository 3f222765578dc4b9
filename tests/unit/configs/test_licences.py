"""What licences let a student be: every class of verdict, expressions, duties united, and names that say nothing."""

from __future__ import annotations

import pytest
from license_expression import get_spdx_licensing

from configs import ConfigError
from configs.licences import TABLE, Duties, _table, terms_of

KEY = "teacher.licence"

VERDICTS = {
    "apache-2.0": "permitted",
    "MIT": "permitted",
    "cc0-1.0": "permitted",
    "llama2": "refused",
    "llama3": "refused",
    "llama3.1": "conditional",
    "llama3.2": "conditional",
    "llama3.3": "conditional",
    "gemma": "conditional",
    "deepseek": "conditional",
    "cc-by-nc-4.0": "conditional",
    "openrail": "conditional",
    "openai-terms": "refused",
    "anthropic-terms": "refused",
    "google-api-terms": "refused",
}


@pytest.mark.parametrize(("licence", "verdict"), VERDICTS.items())
def test_every_class_of_licence_has_its_verdict_and_says_where_it_stands(licence: str, verdict: str) -> None:
    terms = terms_of(licence, key=KEY)
    assert terms.verdict == verdict
    (because,) = terms.because
    assert because.startswith(f"{terms.licence}: ") and len(because) > len(terms.licence) + 10


def test_the_table_names_licences_as_spdx_does_or_as_references() -> None:
    known = get_spdx_licensing()
    for name in _table():
        assert name.startswith("LicenseRef-") or not known.validate(name).errors, name


def test_a_name_of_the_table_belongs_to_one_licence() -> None:
    names = [alias.lower() for name, licence in _table().items() for alias in (name, *licence.names)]
    assert len(names) == len(set(names))
    for name, licence in _table().items():
        assert {terms_of(each, key=KEY).licence for each in (name, *licence.names)} == {name}


def test_a_student_of_llama_bears_its_name_its_notice_and_its_papers() -> None:
    duties = terms_of("llama3.2", key=KEY).duties(begins_with_weights=False)
    assert (duties.name_prefix, duties.displays) == ("Llama", ("Built with Llama",))
    assert duties.licence_copy and duties.use_policy and not duties.derivative
    assert "Llama 3.2 is licensed under the Llama 3.2 Community License" in duties.notices[0]
    assert any("begins with Llama" in line for line in duties.in_words)


@pytest.mark.parametrize("licence", ["gemma", "deepseek", "openrail"])
def test_a_student_of_words_alone_is_a_derivative_where_the_licence_says_so(licence: str) -> None:
    duties = terms_of(licence, key=KEY).duties(begins_with_weights=False)
    assert duties.derivative and duties.licence_copy


def test_a_free_licence_asks_something_only_of_students_that_begin_with_the_weights() -> None:
    terms = terms_of("apache-2.0", key=KEY)
    assert terms.duties(begins_with_weights=False) == Duties()
    assert terms.duties(begins_with_weights=True).licence_copy


def test_both_licences_of_a_conjunction_bind() -> None:
    both = terms_of("MIT AND (gemma AND llama3.1)", key=KEY)
    assert both.verdict == "conditional"
    assert both.of_any.name_prefix == "Llama" and both.of_any.derivative and len(both.of_any.notices) == 2
    assert len(both.because) == 3
    assert terms_of("apache-2.0 and llama2", key=KEY).verdict == "refused"


def test_of_alternatives_the_mildest_is_taken_and_of_equal_ones_the_first() -> None:
    assert terms_of("llama2 OR llama3.1", key=KEY).licence.startswith("LicenseRef-scancode-llama-3.1")
    assert terms_of("MIT OR Apache-2.0", key=KEY).licence == "MIT"


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("zlib", "nobody has noted here"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "nobody has noted here"),
        ("apachee-2.0", "there is no licence of this name; apache-2.0 is meant perhaps"),
        ("something of ours", "there is no licence of this name"),
    ],
)
def test_of_what_is_not_known_nothing_is_allowed(licence: str, said: str) -> None:
    terms = terms_of(licence, key=KEY)
    assert terms.verdict == "refused" and said in terms.because[0]
    assert terms_of(f"MIT AND {licence}", key=KEY).verdict == "refused"


@pytest.mark.parametrize("licence", ["mit mit", "AND", "(mit", "mit/apache-2.0", "mit OR"])
def test_what_is_not_an_expression_is_refused_with_the_key_and_what_would_be_one(licence: str) -> None:
    with pytest.raises(ConfigError, match=r"^teacher\.licence='.*' does not read as a licence: write an SPDX"):
        terms_of(licence, key=KEY)


@pytest.mark.parametrize("licence", ["", "  "])
def test_an_empty_licence_is_refused(licence: str) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.licence is empty"):
        terms_of(licence, key=KEY)


def test_no_name_begins_with_two_words() -> None:
    with pytest.raises(ConfigError, match="begin with Llama and with Other, which no name can"):
        Duties(name_prefix="Llama").and_of(Duties(name_prefix="Other"))


def test_of_two_beginnings_of_a_name_the_longer_one_fulfils_both() -> None:
    llama, older = (terms_of(name, key=KEY).duties(begins_with_weights=True) for name in ("llama3.1", "llama3"))
    assert llama.and_of(older).name_prefix == older.and_of(llama).name_prefix == "Llama-3"
    assert older.and_of(Duties()).name_prefix == "Llama-3"


@pytest.mark.parametrize("licence", ["llama2", "llama3"])
def test_weights_that_may_not_teach_ask_something_of_what_begins_with_them(licence: str) -> None:
    terms = terms_of(licence, key=KEY)
    assert terms.of_any == Duties()
    assert terms.of_weights.licence_copy and "Meta" in terms.of_weights.notices[0]


def test_it_is_known_whether_the_table_has_all_that_binds() -> None:
    assert terms_of("llama2", key=KEY).known and terms_of("zlib OR mit", key=KEY).known
    assert not terms_of("zlib", key=KEY).known and not terms_of("mit AND zlib", key=KEY).known


def test_duties_that_both_have_are_said_once() -> None:
    one = Duties(notices=("a", "b"), terms=("x",))
    assert one.and_of(Duties(notices=("b", "c"), terms=("x",))) == Duties(notices=("a", "b", "c"), terms=("x",))


def test_the_table_has_a_reason_for_every_verdict() -> None:
    assert TABLE.name == "licences.yaml"
    for name, licence in _table().items():
        assert licence.clause, name
        if licence.verdict == "conditional":
            assert licence.of_any.in_words or licence.of_weights.in_words, name
