from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from farcast.node.blocks.s3fifo import GHOST_LIMIT, Evicted, Place, Queue, S3Fifo

KEYS = st.integers(0, 12)
SIZES = st.integers(1, 40)


def test_a_thing_used_once_leaves_from_small_and_its_key_stays() -> None:
    cache = S3Fifo[str](100)
    for name in "abcdefghij":
        assert cache.insert(name, 10) == []
    assert cache.insert("k", 10) == [Evicted("a", 10, Queue.SMALL)]
    assert "a" not in cache
    assert cache.wanted("a")


def test_a_thing_that_comes_back_goes_to_main() -> None:
    cache = S3Fifo[str](30)
    for name in "abcd":
        cache.insert(name, 10)
    assert cache.wanted("a")
    cache.insert("a", 10)
    assert cache.place("a") == Place(Queue.MAIN, 10, 0)
    assert not cache.wanted("a")


def test_two_uses_in_small_move_a_thing_to_main_one_does_not() -> None:
    cache = S3Fifo[str](30)
    for name in "abc":
        cache.insert(name, 10)
    cache.hit("a")
    cache.hit("a")
    cache.hit("b")
    assert [gone.key for gone in cache.insert("d", 10)] == ["b"]
    assert cache.place("a") == Place(Queue.MAIN, 10, 0)


def test_main_gives_what_was_used_another_round() -> None:
    cache = S3Fifo[str](30)
    for name in "ab":
        cache.restore(name, Place(Queue.MAIN, 10, 0))
    cache.hit("a")
    assert [gone.key for gone in cache.evict(1)] == ["b"]
    assert cache.place("a") == Place(Queue.MAIN, 10, 0)
    assert cache.evict(1) == [Evicted("a", 10, Queue.MAIN)]


def test_a_thing_over_the_quota_pushes_nothing_out() -> None:
    cache = S3Fifo[str](30)
    cache.insert("a", 30)
    assert cache.insert("b", 31) == []
    assert "b" not in cache
    assert "a" in cache


def test_pinned_things_count_and_never_leave() -> None:
    cache = S3Fifo[str](30)
    cache.insert("a", 20)
    assert cache.pin("a")
    assert not cache.pin("b")
    assert cache.insert("b", 11) == []
    assert "b" not in cache
    assert cache.evict(100) == []
    assert cache.unpin("a")
    assert not cache.unpin("a")
    assert cache.evict(1) == [Evicted("a", 20, Queue.MAIN)]


def test_a_smaller_quota_lets_the_coldest_go() -> None:
    cache = S3Fifo[int](100)
    for key in range(10):
        cache.insert(key, 10)
    assert [gone.key for gone in cache.resize(50)] == [0, 1, 2, 3, 4]
    assert cache.held_bytes == 50
    assert cache.ghosts == 4  # nine tenths of the new quota


def test_what_was_taken_down_is_forgotten_with_its_ghost() -> None:
    cache = S3Fifo[str](20)
    for name in "abc":
        cache.insert(name, 10)
    assert not cache.discard("a")
    assert not cache.wanted("a")
    assert cache.discard("b")
    assert cache.held_bytes == 10


def test_no_more_keys_are_remembered_than_the_limit() -> None:
    cache = S3Fifo[int](GHOST_LIMIT * 100, ghost_limit=5)
    for key in range(20):
        cache.insert(key, GHOST_LIMIT * 100)
    assert cache.ghosts <= 5
    many = S3Fifo[int](1_000, ghost_limit=5)
    for key in range(2_000):
        many.insert(key, 1)
    assert many.ghosts == 5


@pytest.mark.parametrize("seed", range(5))
def test_one_pass_over_a_long_film_does_not_push_out_the_hot_set(seed: int) -> None:
    random = Random(seed)
    cache = S3Fifo[tuple[str, int]](100)
    for _ in range(2_000):
        hot = ("hot", random.randrange(60))
        if not cache.hit(hot):
            cache.insert(hot, 1)
    for at in range(5_000):
        if not cache.hit(("film", at)):
            cache.insert(("film", at), 1)
    assert sum(("hot", at) in cache for at in range(60)) >= 55


def test_it_misses_less_than_first_in_first_out_and_least_recently_used_on_skewed_requests() -> None:
    random = Random(7)
    trace = [min(int(random.paretovariate(0.7)), 100_000) for _ in range(60_000)]
    cache, recent = S3Fifo[int](200), dict[int, None]()
    misses = recent_misses = 0
    for key in trace:
        if not cache.hit(key):
            misses += 1
            cache.insert(key, 1)
        if key in recent:
            del recent[key]
        else:
            recent_misses += 1
            if len(recent) == 200:
                del recent[next(iter(recent))]
        recent[key] = None
    assert misses < recent_misses


@dataclass
class Model:
    """The paper's algorithm over plain lists, newest last: [key, size, frequency]."""

    quota: int
    small: list[list[int]] = field(default_factory=list[list[int]])
    main: list[list[int]] = field(default_factory=list[list[int]])
    ghosts: list[list[int]] = field(default_factory=list[list[int]])
    pinned: list[list[int]] = field(default_factory=list[list[int]])

    def total(self) -> int:
        """Bytes held."""
        return sum(each[1] for each in self.small + self.main + self.pinned)

    def find(self, key: int) -> list[int] | None:
        """Return the held thing."""
        return next((each for each in self.small + self.main + self.pinned if each[0] == key), None)

    def insert(self, key: int, size: int) -> list[int]:
        """Take in, return the keys that left."""
        found = self.find(key)
        if found is not None:
            found[2] = min(3, found[2] + 1)
            return []
        if size > self.quota - sum(each[1] for each in self.pinned):
            return []
        ghost = any(each[0] == key for each in self.ghosts)
        left: list[int] = []
        while self.total() + size > self.quota:
            left.append(self.evict())
        self.ghosts = [each for each in self.ghosts if each[0] != key]
        (self.main if ghost else self.small).append([key, size, 0])
        return left

    def evict(self) -> int:
        """Let one go."""
        while True:
            if self.small and (sum(each[1] for each in self.small) > self.quota * 10 // 100 or not self.main):
                thing = self.small.pop(0)
                if thing[2] >= 2:
                    thing[2] = 0
                    self.main.append(thing)
                    continue
                self.ghosts.append(thing)
                while sum(each[1] for each in self.ghosts) > self.quota * 90 // 100:
                    self.ghosts.pop(0)
                return thing[0]
            thing = self.main.pop(0)
            if not thing[2]:
                return thing[0]
            thing[2] -= 1
            self.main.append(thing)


class Compared(RuleBasedStateMachine):
    """The two must never disagree."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = S3Fifo[int](100)
        self.model = Model(100)
        self.sizes: dict[int, int] = {}

    @rule(key=KEYS, size=SIZES)
    def insert(self, key: int, size: int) -> None:
        """Both let the same go."""
        size = self.sizes.setdefault(key, size)
        assert [gone.key for gone in self.cache.insert(key, size)] == self.model.insert(key, size)

    @rule(key=KEYS)
    def hit(self, key: int) -> None:
        """Both know what is here."""
        found = self.model.find(key)
        if found is not None:
            found[2] = min(3, found[2] + 1)
        assert self.cache.hit(key) == (found is not None)

    @rule(key=KEYS, uses=st.integers(1, 5))
    def count(self, key: int, uses: int) -> None:
        """Both count several uses, and see whether that made a difference."""
        found = self.model.find(key)
        before = None if found is None else found[2]
        if found is not None:
            found[2] = min(3, found[2] + uses)
        assert self.cache.count(key, uses) == (found is not None and found[2] != before)

    @rule(key=KEYS)
    def discard(self, key: int) -> None:
        """Both forget."""
        assert self.cache.discard(key) == (self.model.find(key) is not None)
        for queue in (self.model.small, self.model.main, self.model.ghosts, self.model.pinned):
            queue[:] = [each for each in queue if each[0] != key]

    @rule(key=KEYS)
    def pin(self, key: int) -> None:
        """Both keep."""
        found = self.model.find(key)
        assert self.cache.pin(key) == (found is not None)
        for queue in (self.model.small, self.model.main):
            if found in queue:
                queue.remove(found)
                self.model.pinned.append(found)

    @rule(key=KEYS)
    def unpin(self, key: int) -> None:
        """Both let it be evicted again."""
        found = next((each for each in self.model.pinned if each[0] == key), None)
        assert self.cache.unpin(key) == (found is not None)
        if found:
            self.model.pinned.remove(found)
            self.model.main.append(found)

    @invariant()
    def agree(self) -> None:
        """Queues, order and sums are the same."""
        cache, model = self.cache, self.model
        assert cache.held_bytes == model.total() <= cache.quota_bytes
        assert cache.keys(Queue.SMALL) == [each[0] for each in model.small]
        assert cache.keys(Queue.MAIN) == [each[0] for each in model.main]
        assert sorted(cache.keys(Queue.PINNED)) == sorted(each[0] for each in model.pinned)
        assert cache.ghosts == len(model.ghosts)
        assert len(cache) == sum(len(cache.keys(queue)) for queue in Queue)
        for queue, things in ((Queue.SMALL, model.small), (Queue.MAIN, model.main)):
            assert cache.bytes_in(queue) == sum(each[1] for each in things)


TestCompared = Compared.TestCase


@given(st.lists(st.tuples(KEYS, SIZES, st.integers(0, 9), st.sampled_from(Queue)), max_size=30))
def test_a_restored_cache_is_the_one_that_was_written_down(things: list[tuple[int, int, int, Queue]]) -> None:
    cache = S3Fifo[int](200)
    for key, size, frequency, queue in things:
        cache.restore(key, Place(queue, size, frequency))
    other = S3Fifo[int](200)
    for queue in Queue:
        for key in cache.keys(queue):
            place = cache.place(key)
            assert place is not None
            other.restore(key, place)
    assert other.held_bytes == cache.held_bytes
    assert other.evict(1_000) == cache.evict(1_000)
    assert cache.held_bytes == cache.bytes_in(Queue.PINNED)
