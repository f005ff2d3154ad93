"""The whole page: header, tabs, and how it is served."""

from __future__ import annotations

import threading
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from components import theme
from components.media import Media
from components.tabs import text_to_image
from playground.backend import Backend
from playground.recipes import TextToImage

TITLE = "Diffusion Playground"


def build(backend: Backend, media: Media) -> gr.Blocks:
    """All tabs on one page."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(f"# {TITLE}\nUnderstand diffusion and flow matching by touching it.", elem_id="dp-header")
        with gr.Tabs(), gr.Tab(text_to_image.TITLE, id=TextToImage.tab):
            text_to_image.build(page, backend, media)
    return page


def warm_up(backend: Backend) -> threading.Thread:
    """Compute what the page opens with, so that the first visitor finds it there."""

    def work() -> None:
        default = TextToImage(model=next(iter(backend.models)))
        for recipe in (default, default.but(sweep=text_to_image.SWEEP)):
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
        hosts: further names under which the page may be reached (a proxy's, say).
        wait: block until the server ends.
        options: passed on to `gr.Blocks.launch`.

    Returns:
        The page and its local address.
    """
    media = Media()
    page = build(backend, media)
    # Visitors wait in the backend's queue, which is fair and says how long; Gradio's only has to be larger.
    page.queue(default_concurrency_limit=None, max_size=4 * backend.max_queue)
    allowed = ["127.0.0.1", "localhost", "testserver", *hosts]
    if host in ("0.0.0.0", "::") or options.get("share"):
        allowed = ["*"]
    elif host not in allowed:
        allowed.append(host)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        theme=theme.theme(),
        css=theme.css(),
        max_threads=200,
        run_history=False,
        enable_monitoring=False,
        strict_cors=True,
        show_error=True,
        max_file_size="20mb",
        footer_links=[],
        prevent_thread_lock=not wait,
        app_kwargs={
            "routes": media.routes(),
            "middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=allowed)],
        },
        **options,
    )
    return page, url
