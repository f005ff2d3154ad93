"""Messages that arrive in another order than they were sent in."""

from __future__ import annotations

from itertools import permutations

import pytest

from components.arrivals import MOST_VISITORS, Arrivals


@pytest.mark.parametrize("order", permutations((1, 2, 3)))
def test_what_counts_in_the_end_is_what_was_sent_last(order: tuple[int, ...]) -> None:
    arrivals, kept = Arrivals(), 0
    for number in order:
        if arrivals.note("ann", number):
            kept = number
        assert arrivals.current("ann", 3) and kept == max(order[: order.index(number) + 1])
    assert not arrivals.current("ann", 2)
    assert arrivals.note("bob", 1) and arrivals.current("bob", 1)  # counts for himself


def test_who_comes_again_begins_anew_and_what_is_no_number_is_first() -> None:
    arrivals = Arrivals()
    assert arrivals.note(None, 7) and not arrivals.note(None, "8") and not arrivals.current(None, None)
    arrivals.forget(None)
    assert arrivals.note(None, 1)


def test_visitors_who_never_leave_do_not_fill_the_memory() -> None:
    arrivals = Arrivals()
    for visitor in range(MOST_VISITORS):
        arrivals.note(str(visitor), 7)
    arrivals.note("0", 8)  # not silent
    arrivals.note("new", 1)
    assert not arrivals.current("0", 7) and not arrivals.current("2", 6)
    assert arrivals.current("1", 1)  # forgotten
