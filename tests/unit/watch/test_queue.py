"""The queue of guests: each once, no guest to two workers, the round is over when each was looked at."""

from __future__ import annotations

from nwfilter_hook.watch.queue import Queue, Round


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_guest_is_there_once() -> None:
    """However often something happened to it."""
    queue = Queue()
    for uuid in ("a", "b", "a", "a"):
        queue.put(uuid)
    assert [queue.get(0), queue.get(0), queue.get(0)] == ["a", "b", None]


def test_no_guest_is_two_workers() -> None:
    """What happens to a guest while it is looked at is looked at afterwards, by whoever is free then."""
    queue = Queue()
    queue.put("a")
    assert queue.get(0) == "a"
    queue.put("a")
    queue.put("b")
    assert [queue.get(0), queue.get(0)] == ["b", None]
    queue.done("a")
    assert queue.get(0) == "a"
    queue.done("a")
    assert queue.get(0) is None


def test_later() -> None:
    """One that failed waits; what happens to it meanwhile doesn't."""
    clock = Clock()
    queue = Queue(clock)
    queue.put("a", 5.0)
    assert queue.get(0) is None
    clock.now += 5
    assert queue.get(0) == "a"
    queue.done("a")
    queue.put("a", 5.0)
    queue.put("a")
    assert queue.get(0) == "a"


def test_a_round() -> None:
    """It ends with the last of its guests, and counts those that failed; what was begun before it doesn't count."""
    ended: list[tuple[int, int]] = []
    queue = Queue()
    queue.put("a")
    assert queue.get(0) == "a"
    queue.put_round(Round(["a", "b"], lambda each: ended.append((each.guests, each.failed))))
    queue.done("a")
    assert {queue.get(0), queue.get(0)} == {"a", "b"}
    queue.put("b", 60.0)  # to try again
    queue.done("b", failed=True)
    assert ended == []
    queue.done("a")
    assert ended == [(2, 1)]
    queue.put_round(Round([], lambda each: ended.append((each.guests, each.failed))))
    assert ended[1:] == [(0, 0)]
