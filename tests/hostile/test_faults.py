"""What happens inside while a visitor waits: no memory, no numbers, a bug."""

from __future__ import annotations

import itertools

import pytest
from serving import answer, is_a_sentence

ENDPOINTS = {
    "text_to_image": (),
    "sdedit": ("", ""),
    "prompt_to_prompt": (),
    "compare_samplers": (),
}
seeds = itertools.count(1)


def ask_for(server, endpoint, **more):
    recipe = {"prompt": "a cat", "w": 4, "seed": next(seeds)}
    # Without guidance the reference has converged soonest.
    small = {"solvers": ["ddim"], "budgets": [1], "w": 1, "grid": "log_snr"}
    recipe |= small if endpoint == "compare_samplers" else {"steps": 2}
    return answer(server, endpoint, recipe | more, *ENDPOINTS[endpoint])


@pytest.mark.parametrize(
    "endpoint",
    # The next comparison that succeeds is refined until it agrees: hundreds of evaluations.
    [pytest.param(e, marks=pytest.mark.slow if e == "compare_samplers" else ()) for e in ENDPOINTS],
)
@pytest.mark.parametrize(
    ("fault", "told"),
    [("oom", "memory"), ("nan", "overflowed"), ("inf", "overflowed"), ("error", "Something inside")],
)
def test_a_fault_is_one_sentence(server, faults, endpoint, fault, told):
    faults(fault)
    said = ask_for(server, endpoint)
    assert isinstance(said, str), "a picture was made of nothing"
    assert is_a_sentence(said) and told in said, said
    assert "rabbit" not in said and "cat" not in said.split()
    faults.end()
    assert not isinstance(ask_for(server, endpoint), str)


def test_out_of_memory_means_smaller_batches(server, faults):
    before = faults.calls
    faults("oom above 2")
    made = ask_for(server, "text_to_image", pictures=3, steps=1)
    assert len(made["pictures"]) == 3 and len(set(made["pictures"])) == 3
    # Six rows do not fit, nor do three; one at a time then.
    assert faults.calls - before >= 2 + 6
    faults.end()
    # What works on all its rows together, or not at all, tries them again.
    assert not isinstance(ask_for(server, "prompt_to_prompt", edits=["a dog", "a red cat"]), str)


def test_what_was_typed_is_not_in_the_log(server, faults):
    typed = "".join(reversed("enohpolyx"))
    faults("error")
    assert is_a_sentence(ask_for(server, "text_to_image", prompt=f"a {typed}"))
    assert "a run failed with KeyError" in server.printed
    assert typed not in server.printed and "rabbit hole" not in server.printed
