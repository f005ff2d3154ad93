"""Many at once, and those who do not wait politely: the queue is bounded, fair, and nobody holds up the rest."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from faults import KEPT
from pages import Page
from serving import answer, ask, is_a_sentence

QUEUE = 40
"""Runs that may wait, by default."""


def recipe(seed: int, **more) -> dict:
    return {"prompt": "a red car", "steps": 1, "seed": seed} | more


@pytest.mark.slow
def test_a_full_queue_refuses_in_a_sentence_and_everybody_else_is_served(server, faults):
    faults("hold")
    before = faults.calls
    with ThreadPoolExecutor(QUEUE + 5) as pool:
        first = pool.submit(answer, server, "text_to_image", recipe(50_000))
        faults.wait_for_call(before)
        others = [pool.submit(answer, server, "text_to_image", recipe(50_001 + k)) for k in range(QUEUE + 3)]
        deadline = time.monotonic() + 120
        while sum(other.done() for other in others) < 3:
            assert time.monotonic() < deadline, "nobody was refused"
            time.sleep(0.1)
        refused = [other.result() for other in others if other.done()]
        assert len(refused) == 3 and not first.done()
        assert all(said == f"{QUEUE} runs are waiting already; try again in a moment." for said in refused)
        faults.end()
        served = [made for made in (first.result(), *(other.result() for other in others)) if made not in refused]
    assert len(served) == QUEUE + 1
    # Everybody got their own.
    assert {f"seed={50_000 + k}" in str([made["link"] for made in served]) for k in (0,)} == {True}
    assert len({made["link"] for made in served}) == QUEUE + 1


def raw(server) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def test_clients_that_say_nothing_or_never_read_hold_up_nobody(server):
    """A request that never ends, an answer that is never read, a stream that is left open."""
    idle = [raw(server) for _ in range(40)]
    for k, client in enumerate(idle):
        if k % 3 == 0:
            client.sendall(b"POST /gradio_api/call/text_to_image HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le")
        elif k % 3 == 1:
            client.sendall(b"GET /config HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        else:
            client.sendall(f"GET /gradio_api/heartbeat/idle{k} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    began = time.monotonic()
    made = answer(server, "text_to_image", recipe(51_000))
    assert len(made["pictures"]) == 1
    assert time.monotonic() - began < 60
    for client in idle:
        client.close()


def test_who_hangs_up_does_not_disturb_who_stays(server, faults):
    """Half of eight close their connection while they wait; the other half get theirs."""
    faults("hold")
    before = faults.calls
    kind = {"Content-Type": "application/json"}
    path = "/gradio_api/call/text_to_image"

    def join(seed: int) -> str:
        return json.loads(ask(server, "POST", path, json.dumps({"data": [recipe(seed)]}), **kind)[1])["event_id"]

    ids = [join(52_000 + k) for k in range(8)]
    faults.wait_for_call(before)
    for event in ids[::2]:
        with raw(server) as client:
            client.sendall(f"GET {path}/{event} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            client.recv(16)
    faults.end()
    for k, event in enumerate(ids):
        if k % 2:
            told = ask(server, "GET", f"{path}/{event}")[1]
            assert "event: complete" in told and f"seed={52_000 + k}" in told


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("cancel", {"session_hash": "x", "fn_index": 0, "event_id": "0" * 32}),
        ("reset", {"event_id": "0" * 32}),
        ("cancel", {"session_hash": "", "fn_index": -1, "event_id": ""}),
    ],
)
def test_nobody_cancels_the_run_of_another(server, faults, path, body):
    faults("hold")
    before = faults.calls
    with ThreadPoolExecutor(1) as pool:
        mine = pool.submit(answer, server, "text_to_image", recipe(53_000 + before, steps=2))
        faults.wait_for_call(before)
        text = ask(server, "POST", f"/gradio_api/{path}", json.dumps(body), **{"Content-Type": "application/json"})[
            1
        ]
        assert "Traceback" not in text
        faults.end()
        assert len(mine.result()["pictures"]) == 1


def test_a_waiting_run_is_refused_nothing_by_a_busy_neighbour(server, faults):
    """Turns are fair: a short run that comes during a long one does not wait for its end."""
    faults("slow")
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(answer, server, "text_to_image", recipe(54_000, steps=60))
        before = faults.calls
        faults.wait_for_call(before)
        short = answer(server, "text_to_image", recipe(54_001))
        assert len(short["pictures"]) == 1 and not long.done()
        faults.end()
        assert long.result()["evaluations"] == 60
    assert is_a_sentence(answer(server, "text_to_image", recipe(1, steps=-1)))


@pytest.fixture
def pages(server) -> Iterator:
    """`pages(name, seed=7)`: a page that is open until the end of the test."""
    opened: list[Page] = []

    def open_page(name: str, **settings) -> Page:
        opened.append(Page(server, name, **settings))
        return opened[-1]

    yield open_page
    for page in opened:
        page.close()


@pytest.mark.slow
def test_forty_open_pages_wait_their_turn_and_each_gets_its_own(pages, faults):
    """The defaults hold them; whoever waits is told how many come first."""
    before = faults.calls
    class_ = [pages(f"pupil-{k}", prompt="a red car", steps=2, seed=60_000 + k) for k in range(40)]
    faults("hold")
    class_[0].start()
    faults.wait_for_call(before)
    for page in class_[1:]:
        page.start()
    deadline = time.monotonic() + 120
    while not all("ahead of yours" in page.said for page in class_[1:]):
        assert time.monotonic() < deadline, "not everybody was told"
        time.sleep(0.1)
    assert "1 run is ahead of yours" in class_[1].said
    assert any("30 runs are ahead of yours" in page.said for page in class_)
    faults.end()
    for k, page in enumerate(class_):
        assert page.picture()["seed"] == 60_000 + k
    # Nobody was sent what is another's: every address of a picture went to one page.
    own = [set(addresses(page.said)) for page in class_]
    assert sum(map(len, own)) == len(set().union(*own))


def addresses(said: str) -> list[str]:
    return [part.split("/")[1] for part in said.split('"') if part.startswith("media/")]


def memory(server) -> float:
    """Megabytes that the server's process holds."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_is_bounded_over_two_hundred_pages(server, pages, record_property):
    """Every page brings its own run. What is kept of them is bounded: results, steps, and what pages show.

    The first pages fill the caches and warm what is made once. After that the bound is what the three kept kinds
    may still grow by, and as much again for what the allocator cannot give back.
    """

    def visit(first: int, count: int) -> None:
        for k in range(first, first + count):
            page = pages(f"visitor-{k}", prompt="a red car", steps=8, seed=70_000 + k)
            page.start()
            assert page.picture()["seed"] == 70_000 + k
            if k % 10:
                page.close()  # the others stay open, and so does what Gradio remembers of each

    visit(0, 40)
    before = memory(server)
    visit(40, 160)
    grown = memory(server) - before
    record_property("megabytes", round(grown))
    print(f"200 pages: {before:.0f} MB after 40, {grown:+.0f} MB in the 160 after them")
    assert grown < 2 * 3 * KEPT, f"{grown:.0f} MB more after 160 more pages"
