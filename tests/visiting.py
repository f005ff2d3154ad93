"""What a visitor of the tab Text to image does and sees."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from playground.recipes import TextToImage

PATIENCE = 60
"""Seconds to wait for what must happen; the machine may be busy."""

SLIDERS = ("w", "steps", "low", "high", "pictures")
BOXES = ("prompt", "negative")
LISTS = ("solver", "grid", "variable", "rule", "model")


def wait_up_to(seconds: float) -> None:
    """How long whatever is expected may take, from now on."""
    global PATIENCE
    PATIENCE = seconds
    expect.set_options(timeout=1000 * seconds)


def until(condition: Callable[[], Any], message: str = "it did not happen in time") -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, message
        time.sleep(0.05)
    return value


class Tab:
    """A page with the tab open."""

    kind: type[TextToImage] = TextToImage

    def __init__(self, page: Page):
        self.page = page
        self.picture = page.locator("#t2i-stage .picture img")
        self.status = page.locator("#t2i-status .prose")
        self.told = page.locator("#t2i-link-notes .prose")
        self.error = page.locator("#t2i-error .prose")
        self.notes = page.locator("#t2i-notes .prose")
        self.sweep = page.locator("#t2i-sweep .tile")
        self.film = page.locator("#t2i-film")
        self.prompt = self.control("prompt").locator("textarea")

    def control(self, name: str) -> Locator:
        return self.page.locator(f"#text-to-image-{name}")

    def slider(self, name: str) -> Locator:
        return self.control(name).locator("input[type=range]")

    def number(self, name: str) -> Locator:
        return self.control(name).locator("input[type=number]")

    def more(self) -> None:
        """Unfold the settings that are folded at first."""
        self.page.get_by_role("button", name="More:").click()
        expect(self.slider("low")).to_be_visible()

    # What is on show

    def source(self) -> str:
        """The address of the finished picture, or "" while there is none."""
        if self.picture.count() == 0:
            return ""
        source = self.picture.first.get_attribute("src") or ""
        return source if source.startswith("media/") else ""

    def wait_for_result(self, after: str = "") -> str:
        """Until a finished picture other than `after` is on show, and its cost."""
        new = until(lambda: self.source() not in ("", after) and self.source(), "no new picture came")
        expect(self.status).to_contain_text("NFE")
        return new

    def png(self, source: str = "") -> bytes:
        """The bytes of the picture on show, or of another one."""
        root = urlsplit(self.page.url)._replace(path="/", query="").geturl()
        answer = self.page.request.get(root + (source or self.wait_for_result()))
        assert answer.status == 200
        return answer.body()

    def recipe(self) -> dict[str, Any]:
        """The recipe of the picture on show, as its file tells it."""
        return json.loads(Image.open(io.BytesIO(self.png())).text["diffusion-playground"])

    def wait_for_recipe(self, **values: Any) -> dict[str, Any]:
        """Until the finished picture on show is one made with these values."""

        def made() -> dict[str, Any] | None:
            recipe = self.recipe()
            return recipe if all(recipe[k] == v for k, v in values.items()) else None

        return until(made, f"no picture with {values} came")

    def cost(self) -> tuple[int, int]:
        """Model calls and sample-forwards."""
        words = self.status.inner_text().split()
        return int(words[words.index("model") - 1]), int(words[words.index("sample-forwards") - 1])

    def counted(self, widget: str, what: str = "loads") -> int:
        return self.page.evaluate(f"window.__dp[{widget!r}].{what}")

    def link(self) -> dict[str, str]:
        """The query of the address bar."""
        # Asked of the page itself: what playwright remembers of it is renewed only when something is asked.
        return dict(parse_qsl(self.page.evaluate("location.search").removeprefix("?"), keep_blank_values=True))

    def values(self) -> dict[str, str]:
        """What all controls show, folded ones included."""
        if not self.slider("low").is_visible():
            self.more()
        shown = {n: self.control(n).locator("textarea, input[type=text]").first.input_value() for n in BOXES}
        shown |= {n: self.number(n).first.input_value() for n in (*SLIDERS, "seed")}
        return shown | {n: self.control(n).locator("input").first.input_value() for n in LISTS}

    # What a visitor does

    def watch(self) -> None:
        """Note, from now on, every address that the picture has."""
        self.page.evaluate(
            """() => {
                window.seen = [];
                const note = () => {
                    const source = document.querySelector('#t2i-stage .picture img')?.getAttribute('src');
                    if (source && source !== window.seen.at(-1)) window.seen.push(source);
                };
                new MutationObserver(note).observe(document.querySelector('#t2i-stage'),
                    { subtree: true, childList: true, attributes: true, attributeFilter: ['src'] });
            }"""
        )

    def seen(self, start: str) -> list[str]:
        """The different addresses seen that begin like this."""
        return list(dict.fromkeys(s for s in self.page.evaluate("window.seen") if s.startswith(start)))

    def write(self, prompt: str) -> None:
        """Type a prompt in place of the one that is there."""
        self.prompt.press("Control+A")
        self.prompt.press_sequentially(prompt)

    def set(self, name: str, value: float) -> None:
        """Type a number into a control's box; again, if the box had only just appeared and forgot it."""
        default = self.kind.model_fields[name].default
        wanted = None if value == default else f"{value:g}"

        def taken() -> bool:
            self.number(name).first.fill(f"{value:g}")
            self.number(name).first.press("Enter")
            deadline = time.monotonic() + 3
            while self.link().get(name) != wanted and time.monotonic() < deadline:
                self.page.wait_for_timeout(50)
            return self.link().get(name) == wanted

        until(taken, f"{name} did not take {value}")


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
