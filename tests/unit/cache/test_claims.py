"""Claims: of pipelines that want the same rows one asks, and the others know it."""

from __future__ import annotations

import dataclasses
import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from object_server import new_url, object_server
from store_builders import damage

from cache import claims as claims_module
from cache.claims import CLAIM_SILENT_S, Claim, Claims
from cache.disk.local_storage import LocalStorage
from cache.disk.object_storage import ObjectStorage
from cache.disk.owners import Owner
from cache.disk.storage import NOTE_BYTES
from cache.keys import KEY_BYTES
from configs.errors import CacheError


def names(*numbers: int) -> list[bytes]:
    """Names that end in zero bytes, as one in 256 keys does."""
    return [bytes([number]).ljust(KEY_BYTES, b"\0") for number in numbers]


def window(root: Path) -> Claims:
    return Claims(LocalStorage(root))


def files(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "claims").iterdir())


def rewrite_owner(root: Path, number: int, change: Callable[[Owner], Owner]) -> None:
    path = root / "claims" / f"{number:08d}.json"
    body = json.loads(path.read_text())
    owner = change(Owner(**body["owner"]))
    path.write_text(json.dumps(body | {"owner": dataclasses.asdict(owner)}))


def dead(owner: Owner) -> Owner:
    return dataclasses.replace(owner, start_ticks=owner.start_ticks + 1)


def elsewhere(owner: Owner, *, silent_s: float) -> Owner:
    return dataclasses.replace(owner, boot_id="another machine", heartbeat=time.time() - silent_s)


def test_who_comes_second_leaves_what_is_claimed(tmp_path: Path) -> None:
    one, other = window(tmp_path), window(tmp_path)
    with one.claim(names(1, 2, 3), k=0) as first:
        assert first.mine.tolist() == [True] * 3
        assert other.held(names(5, 3, 1), k=0).tolist() == [False, True, True]
        with other.claim(names(4, 3, 5), k=0) as second:
            assert second.mine.tolist() == [True, False, True]
            assert second.number > first.number
    assert other.held(names(1, 2, 3, 4, 5), k=0).tolist() == [False] * 5
    assert files(tmp_path) == []


def test_a_claim_of_nothing_and_a_name_that_stands_twice(tmp_path: Path) -> None:
    one, other = window(tmp_path), window(tmp_path)
    with one.claim([], k=0) as nothing, other.claim(names(1, 1, 2), k=0) as claim:
        assert nothing.mine.tolist() == []
        assert claim.mine.tolist() == [True, True, True]
        assert one.held([], k=0).tolist() == []


def test_a_score_with_fewer_log_probabilities_is_not_worth_waiting_for(tmp_path: Path) -> None:
    one, other = window(tmp_path), window(tmp_path)
    with one.claim(names(1), k=8):
        assert [other.held(names(1), k=k).tolist() for k in (4, 8, 9)] == [[True], [True], [False]]


def test_an_error_releases_a_claim(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), window(tmp_path).claim(names(1), k=0):
        raise KeyboardInterrupt
    assert files(tmp_path) == []


@pytest.mark.parametrize("change", [dead, lambda owner: elsewhere(owner, silent_s=CLAIM_SILENT_S + 1)])
def test_what_a_dead_owner_claimed_is_free_and_goes(tmp_path: Path, change: Callable[[Owner], Owner]) -> None:
    with window(tmp_path).claim(names(1, 2), k=0) as lost:
        rewrite_owner(tmp_path, lost.number, change)
        other = window(tmp_path)
        assert other.held(names(1), k=0).tolist() == [False]
        with other.claim(names(1), k=0) as claim:
            assert claim.mine.tolist() == [True]
            assert files(tmp_path) == [f"{claim.number:08d}.json", f"{claim.number:08d}.keys"]
    assert files(tmp_path) == []


def test_an_owner_on_another_machine_is_believed_while_it_is_heard_of(tmp_path: Path) -> None:
    with window(tmp_path).claim(names(1), k=0) as claim:
        rewrite_owner(tmp_path, claim.number, lambda owner: elsewhere(owner, silent_s=CLAIM_SILENT_S / 2))
        assert window(tmp_path).held(names(1), k=0).tolist() == [True]


def test_the_heart_beats_until_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "HEARTBEAT_S", 0.01)
    with window(tmp_path).claim(names(1), k=0) as claim:
        path = tmp_path / "claims" / f"{claim.number:08d}.json"
        first = json.loads(path.read_text())["owner"]["heartbeat"]
        deadline = time.monotonic() + 60
        while json.loads(path.read_text())["owner"]["heartbeat"] == first:
            assert time.monotonic() < deadline, "no heartbeat"
            time.sleep(0.01)
        assert window(tmp_path).held(names(1), k=0).tolist() == [True]
    assert files(tmp_path) == []


def test_who_lost_its_number_leaves_it_to_the_new_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "HEARTBEAT_S", 0.01)
    with window(tmp_path).claim(names(1), k=0) as claim:
        path = tmp_path / "claims" / f"{claim.number:08d}.json"
        theirs = json.dumps(json.loads(path.read_text()) | {"claim": "another"})
        path.write_text(theirs)
        time.sleep(0.1)
        # A heartbeat that was under way may have come later; what it wrote is then again what stands there.
        path.write_text(theirs)
    assert path.read_text() == theirs


class Interrupted(LocalStorage):
    """A place where something happens just before a number is taken."""

    def __init__(self, root: Path, *, before: Callable[[], None]) -> None:
        super().__init__(root)
        self.before: Callable[[], None] | None = before

    def create(self, name: str, data: bytes) -> None:
        before, self.before = self.before, None
        if before is not None:
            before()
        super().create(name, data)


def test_a_lower_number_that_comes_later_gives_way(tmp_path: Path) -> None:
    fast = window(tmp_path)
    low, high = fast.claim(names(9), k=0), window(tmp_path).claim(names(1, 2), k=0)

    def overtake() -> None:
        # The slow one saw no claim and is about to take number 1; meanwhile 1 and 2 are taken and 1 is released.
        assert low.__enter__().number == 1
        assert high.__enter__().number == 2
        low.__exit__(None, None, None)

    slow = Claims(Interrupted(tmp_path, before=overtake))
    with slow.claim(names(2, 3), k=0) as claim:
        assert claim.number == 3
        assert claim.mine.tolist() == [False, True]
    high.__exit__(None, None, None)
    assert files(tmp_path) == []


def test_a_number_that_was_just_taken_is_not_taken_twice(tmp_path: Path) -> None:
    first = window(tmp_path).claim(names(1), k=0)
    slow = Claims(Interrupted(tmp_path, before=lambda: setattr(first, "entered", first.__enter__())))
    with slow.claim(names(1, 2), k=0) as claim:
        assert claim.mine.tolist() == [False, True]
    first.__exit__(None, None, None)


def test_keys_that_a_crash_left_alone_hold_nothing_and_go(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "00000007.keys").write_bytes(b"".join(names(1)))
    claims = window(tmp_path)
    assert claims.held(names(1), k=0).tolist() == [False]
    with claims.claim(names(1), k=0) as claim:
        assert claim.number == 8
        assert files(tmp_path) == ["00000008.json", "00000008.keys"]


@pytest.mark.parametrize("how", ["0.0", "0.1", "0.3", "0.5", "0.7", "0.9", "cut", "emptied", "deleted"])
@pytest.mark.parametrize("kind", ["json", "keys"])
def test_a_damaged_claim_costs_a_row_and_nothing_else(tmp_path: Path, kind: str, how: str) -> None:
    asked = names(1, 2, 3, 4)
    with window(tmp_path).claim(asked, k=0) as claim:
        path = tmp_path / "claims" / f"{claim.number:08d}.{kind}"
        damage(path, how)
        other = window(tmp_path)
        held = other.held([*asked, *names(200)], k=0).tolist()
        assert held[-1] is False, "nothing is waited for that nobody claimed"
        with other.claim(asked, k=0) as second:
            assert second.mine.tolist() == [not at for at in held[:-1]]
    assert [name for name in files(tmp_path) if not name.startswith(f"{claim.number:08d}")] == []
    # Whatever is left is no obstacle to the next one.
    with window(tmp_path).claim(asked, k=0) as third:
        assert third.number >= 1


def test_other_files_are_let_alone(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "notes.txt").write_text("not ours")
    with window(tmp_path).claim(names(1), k=0):
        pass
    assert files(tmp_path) == ["notes.txt"]


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("a file in the place of the folder")
    with pytest.raises(CacheError, match=r"claims: cannot be used"), window(tmp_path).claim(names(1), k=0):
        pass


def race(window: Callable[[], Claims], *, rounds: int) -> None:
    """Threads that claim and release at random; a name that is taken by two at once is what must not be."""
    taken: set[bytes] = set()
    lock = threading.Lock()
    wrong: list[bytes] = []
    claimed = [0]

    def pipeline(seed: int) -> None:
        choose, claims = random.Random(seed), window()
        for _ in range(rounds):
            asked = names(*choose.sample(range(24), 6))
            with claims.claim(asked, k=0) as claim:
                mine = [name for name, free in zip(asked, claim.mine, strict=True) if free]
                with lock:
                    wrong.extend(name for name in mine if name in taken)
                    taken.update(mine)
                    claimed[0] += len(mine)
                time.sleep(choose.uniform(0, 0.002))
                with lock:
                    taken.difference_update(mine)

    threads = [threading.Thread(target=pipeline, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert claimed[0] > rounds


class Overtaken(LocalStorage):
    """The first keys that are written are swept at once, and another claims the same names under their number."""

    def __init__(self, root: Path, *, by: ExitStack) -> None:
        super().__init__(root)
        self.taken: list[Claim] = []
        self._by = by

    def create(self, name: str, data: bytes) -> None:
        super().create(name, data)
        if name.endswith(".keys") and not self.taken:
            self.delete(name)
            self.taken.append(self._by.enter_context(window(self.root).claim(names(1, 2), k=0)))


def test_who_loses_a_number_before_its_owner_is_noted_takes_another(tmp_path: Path) -> None:
    with ExitStack() as others:
        storage = Overtaken(tmp_path, by=others)
        with Claims(storage).claim(names(2, 3), k=0) as late:
            (early,) = storage.taken
            assert (early.number, late.number) == (1, 2)
            assert early.mine.tolist() == [True, True]
            assert late.mine.tolist() == [False, True]
    assert files(tmp_path) == []


class Followed(LocalStorage):
    """Another makes a claim when the first one counts already, but has not yet looked at those of others."""

    def __init__(self, root: Path, *, by: ExitStack, k: int) -> None:
        super().__init__(root)
        self.second: list[Claim] = []
        self._by, self._k = by, k

    def read(self, name: str, *, at_most: int = NOTE_BYTES) -> bytes:
        if name.endswith(".json") and not self.second:
            self.second.append(self._by.enter_context(window(self.root).claim(names(2, 3, 1), k=self._k)))
        return super().read(name, at_most=at_most)


@pytest.mark.parametrize(("first_k", "second_k", "asker"), [(0, 0, "first"), (6, 2, "first"), (2, 6, "second")])
def test_of_two_claims_at_one_instant_exactly_one_asks(tmp_path: Path, first_k: int, second_k: int, asker: str) -> None:
    with ExitStack() as others:
        storage = Followed(tmp_path, by=others, k=second_k)
        with Claims(storage).claim(names(1, 2), k=first_k) as first:
            (second,) = storage.second
            assert (first.number, second.number) == (1, 2)
            assert first.mine.tolist() == [asker == "first"] * 2
            assert second.mine.tolist() == [asker == "second", True, asker == "second"]
    assert files(tmp_path) == []


def test_names_that_were_gone_for_a_moment_are_looked_up_again(tmp_path: Path) -> None:
    looking = window(tmp_path)
    with window(tmp_path).claim(names(1), k=0) as claim:
        keys = tmp_path / "claims" / f"{claim.number:08d}.keys"
        data = keys.read_bytes()
        keys.unlink()
        assert looking.held(names(1), k=0).tolist() == [False]
        keys.write_bytes(data)
        assert looking.held(names(1), k=0).tolist() == [True]


def test_no_name_is_ever_claimed_twice(tmp_path: Path) -> None:
    race(lambda: window(tmp_path), rounds=40)
    assert files(tmp_path) == []


def test_claims_below_a_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with object_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("STILLROOM_COPIES", str(tmp_path))
        storage = ObjectStorage(new_url())
        with Claims(storage).claim(names(1, 2), k=0) as claim:
            assert claim.mine.tolist() == [True, True]
            assert Claims(storage).held(names(2, 3), k=0).tolist() == [True, False]
        race(lambda: Claims(storage), rounds=4)
        assert storage.names("claims") == []
