"""The whole page: header, tabs, and how it is served."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr
from starlette.middleware import Middleware

from components import saving, theme
from components.controls import link_script
from components.guard import Guard, Hosts, Page
from components.media import Media, read_data
from components.pictures import FAST
from components.tabs import flow, prompt_to_prompt, samplers, sdedit, text_to_image
from components.widgets import Opener
from playground.backend import Backend
from playground.errors import PlaygroundError
from playground.images.comparison import Comparison
from playground.images.prompt_to_prompt import PromptToPrompt
from playground.images.sdedit import SDEdit
from playground.plane.recipe import PlaneFlow
from playground.recipes import Recipe, TextToImage
from playground.sharing.records import from_file

TITLE = "Diffusion Playground"
TABS: tuple[tuple[type[Recipe], Any], ...] = (
    (TextToImage, text_to_image),
    (SDEdit, sdedit),
    (PromptToPrompt, prompt_to_prompt),
    (Comparison, samplers),
    (PlaneFlow, flow),
)

# A tab is opened once: when it is first on show, and not with the page, whose start would cost five times as much.
# The one that a link names is on show first. Gradio puts the first one there while it mounts, at a moment that
# nobody tells: the wanted one is chosen until it stays, or until the visitor does something.
OPEN_TAB = """() => {
    // Loaded again: what was too long for the link (see `link_script`) is still here.
    const whole = history.state?.dpWhole;
    if (whole && new URLSearchParams(location.search).has("left")) {
        history.replaceState(history.state, "", location.pathname + whole + location.hash);
    }
    const opened = new Set();
    window.__dpOpen = id => {
        const button = document.getElementById(id + "-open");
        if (opened.has(id)) return;
        if (button === null) setTimeout(() => window.__dpOpen(id), 50);  // the tab is still being put together
        else {
            opened.add(id);
            button.click();
        }
    };
    for (const touch of ["pointerdown", "keydown"]) {
        addEventListener(touch, () => { window.__dpTouched = true; }, { capture: true, once: true });
    }
    // A list that is longer than its box is a stop of Tab in Chromium; but it closes when its control is left, and
    // the focus would be nowhere.
    addEventListener("keydown", event => {
        if (event.key !== "Tab") return;
        for (const list of document.querySelectorAll("[role=listbox]")) list.tabIndex = -1;
    }, { capture: true });
    // Arrows go along the tabs, as in every row of tabs; Gradio leaves that out.
    addEventListener("keydown", event => {
        const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key], tab = event.target.closest?.("[role=tab]");
        if (!by || !tab) return;
        const row = [...tab.parentElement.querySelectorAll("[role=tab]")];
        row[(row.indexOf(tab) + by + row.length) % row.length].focus();
        event.preventDefault();
    });
    const titles = TITLES;
    const named = new URLSearchParams(location.search).get("tab");
    const wanted = titles[named];
    window.__dpOpen(wanted ? named : Object.keys(titles)[0]);
    let stayed = 0;
    const choose = () => {
        if (!wanted || stayed === 100 || window.__dpTouched) return;
        // On a narrow page the last tabs are in a menu.
        const tabs = [...document.querySelectorAll("[role=tab], .overflow-dropdown button")];
        const tab = tabs.find(t => t.textContent.trim() === wanted);
        if (tab?.ariaSelected === "true" || tab?.classList.contains("selected")) stayed += 1;
        else tab?.click();
        setTimeout(choose, 50);
    };
    choose();
}"""

NUMBERS = Path(__file__).with_name("numbers.js")


def build(backend: Backend, media: Media) -> gr.Blocks:
    """All tabs on one page."""
    with Page(title=TITLE, analytics_enabled=False, delete_cache=(UPLOADS, UPLOADS)) as page:
        gr.Markdown(f"# {TITLE}\nUnderstand diffusion and flow matching by touching it.", elem_id="dp-header")
        saved = Opener(elem_id="dp-opener")

        def open_file(event: gr.EventData, request: gr.Request) -> dict[str, str]:
            """The link of the experiment in a file; pictures that it brings are kept for it."""
            try:
                recipe, notes, pictures = from_file(read_data(event._data.get("data")))
            except PlaygroundError as problem:
                return {"link": "", "said": str(problem)}
            for picture in pictures.values():
                backend.guides.put(picture, request.session_hash or "")
            return {"link": "?" + urlencode(recipe.to_query()), "said": " ".join(notes)}

        saved.dropped(open_file, None, saved, trigger_mode="multiple", **FAST)
        with gr.Tabs():
            for recipe, part in TABS:
                with gr.Tab(part.TITLE, id=recipe.tab) as tab:
                    opener = gr.Button(visible="hidden", elem_id=f"{recipe.tab}-open")
                    controls = part.build(page, opener.click, backend, media)
                # The address is that of the tab on show; what opens before a visitor touches anything has its own.
                write = link_script(recipe, part.NAMES)
                script = f"""(...values) => {{
                    if (!window.__dpTouched) return;
                    ({write})(...values);
                    window.__dpOpen({json.dumps(recipe.tab)});
                }}"""
                tab.select(None, controls, None, js=script, queue=False)
        titles = {recipe.tab: part.TITLE for recipe, part in TABS}

        def gone(request: gr.Request) -> None:
            forget(page, request.session_hash or "")

        page.unload(gone)  # after the tabs' own, each of which makes Gradio remember the visitor anew
        page.load(None, None, None, js=OPEN_TAB.replace("TITLES", json.dumps(titles)), queue=False)
        page.load(None, None, None, js=NUMBERS.read_text(encoding="utf-8"), queue=False)
    return page


UPLOADS = 600
"""Seconds after which files that visitors have uploaded are deleted; each is read when it arrives."""


def forget(page: gr.Blocks, visitor: str) -> None:
    """Gradio keeps the settings of all components, a megabyte, for everyone who has ever been here: let it go with
    the page, as what the tabs keep does."""
    page.state_holder.session_data.pop(visitor, None)
    page.state_holder.time_last_used.pop(visitor, None)


WARM_UP = 20.0
"""Seconds after which nothing more is computed before the page opens."""


def warm_up(backend: Backend) -> threading.Thread:
    """Compute what the page opens with, so that the first visitor finds it there.

    With a large model on a slow device that would take longer than anyone waits: then the rest is left until it is
    asked for.
    """
    began = time.monotonic()

    def work() -> None:
        default = TextToImage(model=next(iter(backend.models)))
        pictures = [kind(model=default.model) for kind in (SDEdit, PromptToPrompt)]
        for recipe in (PlaneFlow(), default, default.but(sweep=text_to_image.SWEEP), *pictures):
            if time.monotonic() - began > WARM_UP:
                return
            for _ in backend.run(recipe, visitor="", slot="warm-up"):
                pass

    thread = threading.Thread(target=work, name="warm-up", daemon=True)
    thread.start()
    return thread


def launch(
    backend: Backend,
    host: str = "127.0.0.1",
    port: int = 7860,
    hosts: tuple[str, ...] = (),
    wait: bool = True,
    **options: Any,
) -> tuple[gr.Blocks, str]:
    """Serve the page.

    Args:
        backend: who computes.
        host, port: where to listen.
        hosts: further names under which the page may be reached (a proxy's, say). Where none are given, a page
            that listens on all addresses, or is shared, takes any.
        wait: block until the server ends.
        options: passed on to `gr.Blocks.launch`.

    Returns:
        The page and its local address.
    """
    media = Media()
    page = build(backend, media)
    # Visitors wait in the backend's queue, which is fair and says how long; Gradio's only has to be larger.
    page.queue(default_concurrency_limit=None, max_size=4 * backend.max_queue)
    local = list(dict.fromkeys(["127.0.0.1", "localhost", "testserver", *hosts, host]))
    allowed = ["127.0.0.1", "localhost", "testserver", *hosts]
    if options.get("share") or (host in ("0.0.0.0", "::") and not hosts):
        allowed = ["*"]
    elif host not in allowed:
        allowed.append(host)
    shared = bool(options.get("share"))
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        theme=theme.theme(),
        css=theme.css(),
        max_threads=200,
        # Of visitors whose leaving nobody has told, the latest.
        state_session_capacity=10 * backend.max_queue,
        run_history=False,
        enable_monitoring=False,
        strict_cors=True,
        show_error=True,
        max_file_size="20mb",
        footer_links=[],
        prevent_thread_lock=not wait,
        app_kwargs={
            "routes": [*media.routes(), *saving.routes(media, backend, {r: part.sheet for r, part in TABS})],
            "middleware": [Middleware(Guard, names=allowed), Middleware(Hosts, names=allowed)],
        },
        **options,
    )
    if shared and page.share_url is None and host not in ("0.0.0.0", "::"):
        # No tunnel: the page is as local as one that was never to be shared. The middleware reads this very list.
        allowed[:] = local
    return page, url
