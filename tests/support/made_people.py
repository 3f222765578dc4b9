"""Made-up records with private values whose places are known, and records without any, to measure recognisers on."""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from faker import Faker

from orchestration.inputs.private_spans import PrivateSpan, SpanFinder

SENTENCES = {
    "EMAIL": ("Write to {} about it.", "My address is {}, please confirm.", "cc: {}"),
    "PHONE": ("Call me at {} after five.", "Tel. {}.", "The clinic's number is {}"),
    "CARD": ("Charge it to card {} as before.", "The card {} was refused."),
    "IBAN": ("Please transfer the rent to {}.", "IBAN {} belongs to my landlord."),
    "IP": ("Blocked {} after three attempts.", "ssh to {} and look"),
    "SSN": ("Her social security number is {}.", "SSN {} on the form"),
    "SECRET": ("Set API_KEY={} before you start.", 'client = Client(token="{}")', "the password is {}", "secret: {}"),
}

CLEAN = (
    "Order {a} was shipped on {date} and weighs {b} grams.",
    "Chapter {b} has {a} words, version {v}.",
    "What is {a} divided by {b}? Explain each step.",
    "The token is parsed by the tokenizer; a password must have eight characters.",
    "In {year} the company sold {a} units at {price} each.",
    "Write a function that returns the secret of a good soup.",
    "Parcel {parcel} left the depot with release {v}.{b}.{b} of the software.",
)


@dataclass(frozen=True)
class Record:
    """A text and the private values that it holds."""

    text: str
    planted: tuple[PrivateSpan, ...] = ()


def made_records(count: int, *, seed: int) -> list[Record]:
    """Two sentences of ordinary words around one or two planted values."""
    faker, chance = Faker("en_US"), random.Random(seed)
    faker.seed_instance(seed)
    records = []
    for _ in range(count):
        text, planted = faker.sentence(), list[PrivateSpan]()
        for kind in chance.sample(sorted(SENTENCES), k=chance.choice((1, 2))):
            before, after = chance.choice(SENTENCES[kind]).split("{}")
            value = _value(kind, faker=faker, chance=chance)
            start = len(text) + 1 + len(before)
            planted.append(PrivateSpan(start, start + len(value), kind))
            text = f"{text} {before}{value}{after}"
        records.append(Record(f"{text} {faker.sentence()}", tuple(planted)))
    return records


def clean_records(count: int, *, seed: int) -> list[Record]:
    """Texts with numbers, dates and the words for secrets, and nothing private."""
    faker, chance = Faker("en_US"), random.Random(seed)
    faker.seed_instance(seed)
    return [
        Record(
            f"{faker.sentence()} "
            + chance.choice(CLEAN).format(
                a=f"{chance.randrange(100, 100_000):,}",
                b=chance.randrange(2, 99),
                parcel=chance.randrange(10**9, 10**12),
                date=faker.date(),
                year=chance.randrange(1900, 2026),
                v=f"{chance.randrange(9)}.{chance.randrange(20)}",
                price=f"${chance.randrange(1, 999)}.{chance.randrange(10, 99)}",
            )
        )
        for _ in range(count)
    ]


@dataclass(frozen=True)
class Measured:
    """Of one kind: how many values were planted, how many of them found whole, how many spans were right, and in all."""

    planted: int
    recalled: int
    right: int
    found: int

    @property
    def recall(self) -> float:
        return self.recalled / max(self.planted, 1)

    @property
    def precision(self) -> float:
        return self.right / max(self.found, 1)


def measure(finder: SpanFinder, records: Sequence[Record]) -> dict[str, Measured]:
    """Recall: a planted value is covered whole by a span of its kind. Precision: a span touches one of its kind."""
    planted, recalled, right, found = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for record in records:
        spans = finder.find(record.text)
        for value in record.planted:
            planted[value.kind] += 1
            recalled[value.kind] += any(
                span.kind == value.kind and span.start <= value.start and value.end <= span.end for span in spans
            )
        for span in spans:
            found[span.kind] += 1
            right[span.kind] += any(
                value.kind == span.kind and span.start < value.end and value.start < span.end
                for value in record.planted
            )
    return {kind: Measured(planted[kind], recalled[kind], right[kind], found[kind]) for kind in sorted(planted | found)}


def _value(kind: str, *, faker: Faker, chance: random.Random) -> str:
    match kind:
        case "EMAIL":
            return str(faker.ascii_safe_email() if chance.random() < 0.3 else faker.email(domain="example.com"))
        case "PHONE":
            area, line = chance.choice((212, 312, 415, 617)), str(chance.randrange(2_000_000, 9_999_999))
            plain = f"({area}) {line[:3]}-{line[3:]}", f"+1 {area} {line[:3]} {line[3:]}"
            return chance.choice((*plain, str(faker.phone_number()), str(Faker("de_DE").phone_number())))
        case "CARD":
            number = str(faker.credit_card_number(card_type="visa16"))
            return number if chance.random() < 0.5 else " ".join(number[at : at + 4] for at in range(0, 16, 4))
        case "IBAN":
            return str(faker.iban())
        case "IP":
            return str(faker.ipv4_public() if chance.random() < 0.7 else faker.ipv6())
        case "SSN":
            return str(faker.ssn())
        case "SECRET":
            return _secret(chance)
    raise AssertionError(kind)


def _secret(chance: random.Random) -> str:
    def some(letters: str, count: int) -> str:
        return "".join(chance.choices(letters, k=count))

    alphanumeric = string.ascii_letters + string.digits
    return chance.choice(
        (
            f"AKIA{some(string.ascii_uppercase + string.digits, 16)}",
            f"ghp_{some(alphanumeric, 36)}",
            f"xoxb-{some(string.digits, 12)}-{some(string.digits, 12)}-{some(alphanumeric, 24)}",
            f"sk_live_{some(alphanumeric, 24)}",
            some(alphanumeric + "!#%+_", 14),
        )
    )
