"""The real page: `app.py` in a process of its own, Debian's chromium, and a context for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from serving import Server
from visiting import Tab, wait_up_to


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server") / "log.txt")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def patience(request) -> None:
    """Long waits for what must happen, short ones for what is known not to."""
    wait_up_to(6 if request.node.get_closest_marker("xfail") else 60)


@pytest.fixture
def visit(server, browser) -> Iterator[Callable[..., Tab]]:
    """`visit(steps=4, ...)`: the page opened by a link with these settings, in a context of its own.

    After the test: the page has asked nobody but its server for anything, and no script has failed.
    """
    contexts, requests, failures, servers = [], [], [], set()

    def open_page(
        screen: tuple[int, int] = (1400, 900),
        at: str = server.url,
        wait: bool = True,
        dark: bool = False,
        **query: Any,
    ) -> Tab:
        context = browser.new_context(viewport={"width": screen[0], "height": screen[1]}, accept_downloads=True)
        context.set_default_timeout(60_000)
        context.on("request", lambda request: requests.append(request.url))
        contexts.append(context)
        servers.add(urlsplit(at).netloc)
        page = context.new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(at + "?" + urlencode(query | ({"__theme": "dark"} if dark else {})))
        tab = Tab(page)
        if wait:
            tab.wait_for_result()
        return tab

    yield open_page
    for context in contexts:
        context.close()
    elsewhere = [u for u in requests if urlsplit(u).scheme in ("http", "https", "ws", "wss")]
    assert [u for u in elsewhere if urlsplit(u).netloc not in servers] == []
    assert all(name.startswith("127.0.0.1:") for name in servers)
    assert failures == []
