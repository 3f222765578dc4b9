"""A machine that does everything to a store that may be done to one, with a model that says what it must answer."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from signal_builders import ENCODINGS, respond
from store_builders import VOCAB, flip_bit, make_record, open_cache
from store_model import DIGEST, GENERATIONS, SIGNALS, TEXTS, Facts, Union, completion, key_of

from cache.claims import Claims
from cache.disk.failpoints import FAILPOINTS, REWRITE_FAILPOINTS
from cache.disk.key_objects import FINISHES
from cache.disk.local_storage import LocalStorage
from cache.disk.owners import Owner
from cache.disk.publishing import Staging
from cache.pinning import remove_pins
from cache.pins import keepers, read_pins
from cache.records import ScoreRequest, TeacherRecord
from cache.signals import SignalRecord, SignalRequest
from cache.store import TeacherCache
from cache.upkeep.garbage import collect_garbage
from cache.upkeep.rewriting import compact, forget
from cache.upkeep.rollouts import enforce_rollout_quota
from cache.views import CacheView
from configs.errors import CacheError

# So few that most things happen to the same rows.
PROMPTS = st.integers(0, 1)
LENGTHS = st.sampled_from([2, 5])
KS = st.sampled_from([0, 2, 4])
PARTS = st.integers(0, 999).map(lambda part: part / 1000)
"""A place as a part of the whole. (Floats would mostly be 0.)"""


def deaths(places: Sequence[str]) -> st.SearchStrategy[str]:
    """Where a process dies: mostly nowhere."""
    return st.sampled_from([*([""] * 2 * len(places)), *places])


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it."""


@contextmanager
def killed_at(place: str) -> Iterator[None]:
    """The process 'dies' at this failpoint, if it is one; nothing is tidied up."""
    if not place:
        yield
        return

    def die(name: str) -> None:
        if name == place:
            raise Killed

    with ExitStack() as patches:
        for name, module in list(sys.modules.items()):
            if name.startswith("cache.") and hasattr(module, "failpoint") and name != "cache.disk.failpoints":
                patches.enter_context(mock.patch.object(module, "failpoint", die))
        patches.enter_context(mock.patch.object(Staging, "drop", lambda _: None))
        with suppress(Killed):
            yield


class StoreMachine(RuleBasedStateMachine):
    """A store that is written, damaged, tidied and killed, and what each segment held when it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.cache = open_cache(self.root)
        self.other = open_cache(self.root)
        self.place = self.root / DIGEST
        self.storage = LocalStorage(self.place)
        self.segments: dict[str, Facts] = {}
        self.views: list[tuple[CacheView, list[bytes]]] = []

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    # What is known.

    def names(self, folder: str) -> set[str]:
        return {name.removesuffix(".json") for name in self.storage.names(folder) if name.endswith(".json")}

    def learn(self) -> None:
        """Look at the segments that are new, which nobody has damaged yet, and forget those that are gone."""
        there = self.names("manifests")
        self.segments = {uuid: facts for uuid, facts in self.segments.items() if uuid in there}
        for uuid in there - self.segments.keys():
            self.segments[uuid] = Facts.of(self.storage, uuid)

    def live(self) -> dict[str, Facts]:
        replaced = self.names("tombstones")
        return {uuid: facts for uuid, facts in self.segments.items() if uuid not in replaced}

    def sure(self, *, without: bytes | None = None) -> Union:
        """What must be answered: sound segments hold it."""
        return Union.of((facts for facts in self.live().values() if not facts.hurt), without=without)

    def possible(self) -> Union:
        """What may be answered: some segment held it."""
        return Union.of(self.live().values())

    # What is written.

    def record(self, prompt: int, *, length: int, k: int, finish: str) -> TeacherRecord:
        tokens = completion(prompt, length=length)[1]
        return make_record(tokens, prompt_len=3, k=k, finish=finish)  # type: ignore[arg-type]

    @rule(prompt=PROMPTS, length=LENGTHS, k=KS, death=deaths(FAILPOINTS))
    def generate(self, prompt: int, length: int, k: int, death: str) -> None:
        request, _, finish = completion(prompt, length=length)
        before = self.possible()
        with killed_at(death):
            self.other.put([(self.record(prompt, length=length, k=k, finish=finish), request)], vocab=VOCAB)
        self.after(death)
        if death in ("", "segment-after-manifest"):
            assert self.sure().rows[key_of(prompt, length=length)][0] >= k
            assert self.sure().reach[GENERATIONS[prompt]] >= length
        else:
            assert self.possible() == before

    @rule(prompt=PROMPTS, length=LENGTHS, k=st.sampled_from([2, 4]))
    def score(self, prompt: int, length: int, k: int) -> None:
        self.cache.put([self.record(prompt, length=length, k=k, finish="given")], vocab=VOCAB)
        self.learn()
        assert self.sure().rows[key_of(prompt, length=length)][0] >= k

    @rule(prompt=PROMPTS, lengths=st.tuples(LENGTHS, LENGTHS), k=KS)
    def two_writers_at_once(self, prompt: int, lengths: tuple[int, int], k: int) -> None:
        with self.cache.writer(vocab=VOCAB) as one, self.other.writer(vocab=VOCAB) as two:
            for writer, length in zip((one, two), lengths, strict=True):
                request, _, finish = completion(prompt, length=length)
                record = self.record(prompt, length=length, k=k, finish=finish)
                writer.add(record, generation_key=GENERATIONS[prompt], max_new_tokens=request.max_new_tokens)
            two.commit()
        self.learn()
        assert all(self.sure().rows[key_of(prompt, length=length)][0] >= k for length in lengths)

    @rule(prompt=PROMPTS, length=LENGTHS, k=st.sampled_from([2, 4]), death=deaths(FAILPOINTS))
    def write_as_a_student(self, prompt: int, length: int, k: int, death: str) -> None:
        record = dataclasses.replace(self.record(prompt, length=length, k=k, finish="given"), policy_version=1)
        with killed_at(death):
            self.other.put([record], vocab=VOCAB, rollout="stage")
        self.after(death)
        if death in ("", "segment-after-manifest"):
            assert self.sure().rows[record.key][0] >= k

    @rule(
        keys=st.lists(st.sampled_from([*SIGNALS]), min_size=1, max_size=3, unique=True),
        encoding=st.sampled_from(ENCODINGS),
        death=deaths(FAILPOINTS),
    )
    def say_signals(self, keys: list[bytes], encoding: str, death: str) -> None:
        before = self.possible()
        with killed_at(death):
            self.other.signals.put([respond(SIGNALS[key]) for key in keys], encoding=encoding)
        self.after(death)
        if death in ("", "segment-after-manifest"):
            assert set(keys) <= self.sure().rows.keys()
        else:
            assert self.possible() == before

    # What goes wrong.

    def after(self, death: str) -> None:
        """What a process left that died says whose it was, and that process is no more. Its window is gone."""
        if death:
            self.other = open_cache(self.root)
        for note in self.place.glob("staging/*/owner.json"):
            owner = Owner.from_json(note.read_bytes())
            assert owner is not None
            note.write_bytes(dataclasses.replace(owner, start_ticks=owner.start_ticks + 1).to_json())
        self.learn()

    @rule(
        segment=PARTS,
        kind=st.sampled_from(["keys", "token_ids", "token_offsets", "topk_ids", "target_logprob", "signal", "any"]),
        which=PARTS,
        at=PARTS,
        bit=st.integers(0, 7),
        how=st.sampled_from(["flip", "flip", "cut", "empty", "delete"]),
    )
    def corrupt(self, segment: float, kind: str, which: float, at: float, bit: int, how: str) -> None:
        sound = [uuid for uuid, facts in self.segments.items() if not facts.hurt]
        if not sound:
            return
        uuid = sound[int(segment * len(sound))]
        paths = sorted(path for path in (self.place / "segments" / uuid).rglob("*") if path.is_file())
        paths += [self.place / "manifests" / f"{uuid}.{kind}" for kind in ("json", "keys")]
        if kind != "any":
            paths = [
                path for path in paths if kind in path.relative_to(self.place).as_posix() and path.suffix != ".json"
            ]
        # No assumption: names of segments are random, so whether there is such a file is not the same in every try.
        if not paths:
            return
        path = paths[int(which * len(paths))]
        if how == "flip":
            flip_bit(path, at=at, bit=bit)
        elif how == "delete":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1] if how == "cut" else b"")
        self.segments[uuid].hurt = True

    # What is tidied.

    @rule(death=deaths([*FAILPOINTS, *REWRITE_FAILPOINTS]))
    def compact(self, death: str) -> None:
        sure, possible = self.sure(), self.possible()
        with killed_at(death):
            compact(self.storage, identity=DIGEST)
        self.after(death)
        assert sure.within(self.sure()), "compaction changed an answer"
        assert self.possible().within(possible)

    @rule(merge_first=st.booleans(), unpin_first=st.booleans())
    def collect_garbage(self, merge_first: bool, unpin_first: bool) -> None:
        if merge_first:
            self.compact(death="")
        if unpin_first:
            remove_pins(self.storage, [view.digest for view, _ in self.views])
            self.views = []
        sure = self.sure()
        collect_garbage(self.storage, identity=DIGEST, dry_run=False, grace_s=0.0, silent_s=0.0)
        self.learn()
        assert sure.within(self.sure())
        assert self.storage.names("staging") == []
        assert set(self.storage.names("segments")) <= self.names("manifests")

    @rule(grace_s=st.sampled_from([0.0, 3600.0]), death=deaths(REWRITE_FAILPOINTS))
    def enforce_rollout_quota(self, grace_s: float, death: str) -> None:
        sound = {uuid: facts for uuid, facts in self.live().items() if not facts.hurt}
        pins = read_pins(self.storage)
        stays = {uuid for uuid, facts in sound.items() if not facts.rollout or keepers(pins, uuid)}
        assert {uuid for view, _ in self.views for uuid in view.segments} & sound.keys() <= stays
        asked = Union.of(facts for facts in sound.values() if not facts.rollout)
        report = None
        with killed_at(death):
            report = enforce_rollout_quota(self.storage, identity=DIGEST, max_bytes=0, grace_s=grace_s)
        self.after(death)
        assert stays <= self.live().keys()
        assert asked.within(self.sure()), "a quota of rollouts took what a fill asked for"
        left = {uuid for uuid, facts in self.live().items() if not facts.hurt}
        assert report is None or left == stays

    @rule(
        key=st.sampled_from([*TEXTS, *SIGNALS]),
        break_pins=st.booleans(),
        death=deaths([*FAILPOINTS, *REWRITE_FAILPOINTS]),
    )
    def forget(self, key: bytes, break_pins: bool, death: str) -> None:
        sure, possible = self.sure(without=key), self.possible()
        report = None
        with killed_at(death):
            report = forget(self.storage, identity=DIGEST, keys=[key], break_pins=break_pins)
        self.after(death)
        assert sure.within(self.sure()) and self.possible().within(possible)
        if report is None:
            self.views = [] if break_pins else self.views
            return
        assert key not in self.sure().rows
        window = open_cache(self.root)
        assert (window.signals.get_many([key]) if key in SIGNALS else window.get_many([key])) == [None]
        assert not (break_pins and report.kept)
        left = {uuid for uuid, facts in self.segments.items() if key in facts.rows}
        assert left <= {*report.kept, *report.unreadable}, "what was forgotten is still on the disk"
        self.views = [(view, keys) for view, keys in self.views if view.digest not in report.unpinned]

    # What is asked.

    @rule(prompt=PROMPTS, which=PARTS)
    def reopen(self, prompt: int, which: float) -> None:
        """Windows are exchanged; claims come and go meanwhile, and a newcomer reads an old view."""
        self.cache, self.other = self.other, open_cache(self.root)
        with Claims(self.storage).claim([GENERATIONS[prompt]], k=0) as claim:
            assert claim.mine.tolist() == [True]
            assert Claims(self.storage).held(GENERATIONS, k=0).tolist() == [at == prompt for at in range(2)]
        assert self.storage.names("claims") == []
        if self.views:
            view, keys = self.views[int(which * len(self.views))]
            self.read_view(view, keys, window=open_cache(self.root))

    @invariant()
    def what_is_answered_is_right_and_what_must_be_is_answered(self) -> None:
        self.cache.refresh()
        sure, possible = self.sure(), self.possible()
        for key, found in zip(TEXTS, self.cache.get_many(list(TEXTS)), strict=True):
            if found is None:
                assert key not in sure.rows
                continue
            prompt, length = TEXTS[key]
            longer = {key_of(prompt, length=other) for other in (2, 5) if other >= length}
            assert longer & possible.rows.keys(), "it was forgotten, or never written"
            self.is_right(found, prompt, length=length)
            k, finish = sure.rows.get(key, (0, len(FINISHES)))
            assert found.k >= k and FINISHES.index(found.finish) <= finish
        for key, signal in zip(SIGNALS, self.cache.signals.get_many(list(SIGNALS)), strict=True):
            if signal is None:
                assert key not in sure.rows
                continue
            assert key in possible.rows, "it was forgotten, or never written"
            self.is_right_signal(signal, SIGNALS[key])
        # Reading may have found damage.
        sure, stats = self.sure(), self.cache.stats()
        assert sure.count(signals=False) <= stats.records <= possible.count(signals=False)
        assert sure.count(signals=True) <= stats.signals <= possible.count(signals=True)

    def is_right_signal(self, found: SignalRecord, request: SignalRequest) -> None:
        wanted = respond(request)
        assert (found.key, found.signal, found.split) == (wanted.key, wanted.signal, wanted.split)
        assert tuple(found.token_ids.tolist()) == request.token_ids
        # In whatever way it was kept.
        np.testing.assert_allclose(found.values, wanted.values, atol=np.ptp(wanted.values) / 254)

    def is_right(self, found: TeacherRecord, prompt: int, *, length: int) -> None:
        _, tokens, finish = completion(prompt, length=length)
        assert found.token_ids.tolist() == tokens
        assert found.finish in (finish, "given")
        if found.k:
            # The best entries of a row are the same whatever its k.
            original = self.record(prompt, length=5, k=4, finish="stop")
            if length == 5:
                assert found.topk_ids is not None and original.topk_ids is not None
                np.testing.assert_array_equal(found.topk_ids, original.topk_ids[:, : found.k])
                np.testing.assert_array_equal(found.target_logprobs, original.target_logprobs)

    @rule(prompt=PROMPTS)
    def ask(self, prompt: int) -> None:
        for length, k in itertools.product((2, 5), (0, 2, 4)):
            self.ask_one(prompt, length=length, k=k)

    def ask_one(self, prompt: int, *, length: int, k: int) -> None:
        self.cache.refresh()
        # Damage is noticed when rows are read, and is then known to all that follows.
        self.cache.get_many(list(TEXTS))
        sure, possible = self.sure(), self.possible()
        request, tokens, finish = completion(prompt, length=length)
        missing, (key,) = self.cache.missing([request], k=k), self.cache.lookup([request])
        if key is None:
            assert missing.generate == (0,)
            assert sure.reach.get(GENERATIONS[prompt], 0) < length
            return
        assert missing.generate == ()
        assert possible.reach.get(GENERATIONS[prompt], 0) >= length
        (found,) = self.cache.get_many([key])
        assert found is not None
        assert found.token_ids.tolist() == tokens
        assert found.finish == finish
        assert found.k >= sure.rows.get(key, (0, 0))[0]
        assert (missing.score == ()) == (found.k >= k)
        if missing.score:
            assert missing.score == ((0, ScoreRequest(tuple(tokens), 3)),)
            return
        view = self.cache.view([key], dataset=f"{prompt}-{length}", k=k)
        # One view a request: the newest, which replaces the others in the run directory as well.
        self.views = [(other, keys) for other, keys in self.views if other.dataset != view.dataset]
        self.views.append((view, [key]))
        self.read_view(view, [key], window=self.cache)

    @rule(keys=st.permutations([*SIGNALS]))
    def ask_signals(self, keys: list[bytes]) -> None:
        self.cache.refresh()
        found = self.cache.signals.get_many(keys)
        held = [key for key, signal in zip(keys, found, strict=True) if signal is not None]
        missing = self.cache.signals.missing([SIGNALS[key] for key in keys])
        assert [keys[at] for at in missing] == [key for key in keys if key not in held]
        assert set(self.sure().rows) & SIGNALS.keys() <= set(held)
        if held:
            view = self.cache.signals.view(held, dataset="signals")
            self.views = [(other, keys) for other, keys in self.views if other.dataset != view.dataset]
            self.views.append((view, held))

    @invariant()
    def pinned_views_are_read(self) -> None:
        for view, keys in self.views:
            self.read_view(view, keys, window=self.cache)

    def read_view(self, view: CacheView, keys: list[bytes], *, window: TeacherCache) -> None:
        whole = all(uuid in self.segments and not self.segments[uuid].hurt for uuid in view.segments)
        whole_view = [np.arange(len(view))]
        try:
            if keys[0] in SIGNALS:
                (signals,) = window.signals.iter_batches(view, whole_view, with_tokens=True)
                for signal, key in zip(signals.records(), keys, strict=True):
                    self.is_right_signal(signal, SIGNALS[key])
                return
            (block,) = window.iter_blocks(view, whole_view)
        except CacheError as error:
            assert "lost rows" in str(error)
            assert not whole, "a pinned view lost a sound row"
            return
        for found, key in zip(block, keys, strict=True):
            prompt, length = TEXTS[key]
            self.is_right(found, prompt, length=length)
            assert found.k == view.k
