"""The whole page without a network: the server's process is denied it, and the browser asks nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from serving import ROOT, Server
from tour import SMALL, open_tab
from visiting import Tab, until

pytestmark = pytest.mark.browser
OFFLINE = ROOT / "tests" / "offline"


@pytest.fixture(scope="module")
def denied(tmp_path_factory) -> Path:
    """Where it is noted what the server wanted of the network."""
    file = tmp_path_factory.mktemp("offline") / "denied.txt"
    file.touch()
    return file


def without_network(denied: Path) -> dict[str, str]:
    paths = [str(OFFLINE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "DENIED": str(denied)}


@pytest.fixture(scope="module")
def server(denied) -> Iterator[Server]:
    made = Server(denied.with_name("log.txt"), **without_network(denied))
    yield made
    made.close()


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)",
        "import socket; socket.create_connection(('example.org', 443), timeout=5)",
        "import socket; socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "import urllib.request; urllib.request.urlopen('http://example.org/', timeout=5)",
        "import asyncio; asyncio.run(asyncio.open_connection('192.0.2.1', 80))",
    ],
)
def test_a_process_without_network_reaches_nothing(tmp_path, attempt):
    """What the tests below rest on."""
    denied = tmp_path / "denied.txt"
    listens = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname());"
    )
    environment = os.environ | without_network(denied)
    done = subprocess.run(
        [sys.executable, "-c", f"{listens} print('listens'); {attempt}; print('reached')"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "listens\n" and "out of reach" in done.stderr
    assert len(denied.read_text().splitlines()) >= 1


def use_text_to_image(tab: Tab) -> None:
    tab.set("w", 7)
    tab.wait_for_recipe(w=7.0)
    tab.page.locator("#t2i-sweep-run").click()
    expect(tab.sweep.locator("img")).to_have_count(8)


def use_sdedit(tab: Tab) -> None:
    tab.page.locator("#sdedit-examples .tile").nth(1).click()
    tab.page.wait_for_url(lambda url: "guide=" in url)
    expect(tab.page.locator("#sdedit-status .prose")).to_contain_text("NFE")


def use_prompt_to_prompt(tab: Tab) -> None:
    tab.page.locator("#p2p-attention .word").nth(1).focus()
    until(lambda: tab.page.evaluate("window.__dp['p2p-attention'].loads") > 0)


def use_samplers(tab: Tab) -> None:
    tab.page.locator("#samplers-race .cell").first.click()
    expect(tab.page.locator("#samplers-film .column")).not_to_have_count(0)


def use_flow(tab: Tab) -> None:
    tab.page.locator("#flow-plane .play").click()
    until(lambda: tab.page.evaluate("window.__dp['flow-plane'].draws") > 5)
    tab.page.locator("#flow-plane canvas.over").click(position={"x": 120, "y": 100})
    expect(tab.page.locator("#flow-point .prose")).to_contain_text("in closed form")


USES = {
    "text-to-image": use_text_to_image,
    "sdedit": use_sdedit,
    "prompt-to-prompt": use_prompt_to_prompt,
    "samplers": use_samplers,
    "flow": use_flow,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_tab_works_without_network(visit, denied, name):
    """`visit` asserts that the browser asked the server and nobody else."""
    tab = open_tab(visit, name)
    USES[name](tab)
    for note in tab.page.locator(".dp-error:visible").all():
        expect(note).to_have_text("")
    assert denied.read_text() == "", "the server wanted the network"


@pytest.mark.slow
def test_the_addresses_on_the_page_are_its_own(server, visit):
    """Nothing waits to be fetched from elsewhere when it is shown: styles, fonts, scripts, pictures."""
    tab = visit(steps=2)
    found = tab.page.evaluate(
        """() => {
            const own = location.origin, found = [];
            for (const node of document.querySelectorAll("[src], link[href]")) {
                const url = new URL(node.getAttribute("src") ?? node.getAttribute("href"), location.href);
                if (/^(https?|wss?):$/.test(url.protocol) && url.origin !== own) found.push(url.href);
            }
            for (const entry of performance.getEntriesByType("resource")) {
                if (!entry.name.startsWith(own) && !entry.name.startsWith("data:")) found.push(entry.name);
            }
            return found;
        }"""
    )
    assert json.dumps([url for url in found if not url.startswith("blob:")]) == "[]"
