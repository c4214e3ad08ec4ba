"""Items shared among processes: in order, and what ends it is one line."""

import functools
import os
import signal

import pytest

from src.runtime.workers import mapped


def fate(item, *, of, number):
    """The item doubled, but for one that ends its process or raises."""
    if item == of:
        if number is None:
            raise KeyError(item)
        os.kill(os.getpid(), number)
    return 2 * item


@pytest.mark.parametrize("workers", [0, 1, 3, 50])
def test_results_are_those_of_map(workers):
    items = list(range(100))
    results = mapped(functools.partial(fate, of=-1, number=None), items, workers=workers, chunk=7, remedy="")
    assert list(results) == [2 * item for item in items]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_ends_it_in_one_line(number):
    results = mapped(functools.partial(fate, of=60, number=number), range(100), workers=2, chunk=5, remedy="try again")
    with pytest.raises(ValueError, match=r"was killed \(out of memory\?\); try again$") as raised:
        list(results)
    assert "\n" not in str(raised.value)


def test_a_bug_in_a_worker_is_raised_here_and_says_where_it_was():
    with pytest.raises(KeyError) as raised:
        list(mapped(functools.partial(fate, of=60, number=None), range(100), workers=2, remedy=""))
    assert "in fate" in "".join(raised.value.__notes__)
