"""What reaches the server past the page's own controls, and whatever goes wrong: answered in one sentence."""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from gradio.route_utils import FnIndexInferError
from gradio.utils import get_upload_folder
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from components.readouts import LATE
from playground.errors import PlaygroundError

log = logging.getLogger(__name__)


class Hosts(TrustedHostMiddleware):
    """Answers only under known names; the list may change while the server runs."""

    def __init__(self, app: ASGIApp, names: list[str]):
        super().__init__(app, names)
        self.names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.allow_any = "*" in self.names
        self.allowed_hosts = [name.lower() for name in self.names]
        await super().__call__(scope, receive, send)


def in_a_sentence(error: Exception) -> gr.Error:
    """What a visitor is told of an error. One that nobody foresaw is logged, without what the visitor sent."""
    if isinstance(error, gr.Error) and not error.print_exception:
        return error
    if isinstance(error, PlaygroundError):
        return gr.Error(str(error), print_exception=False)
    if isinstance(error, TimeoutError):
        return gr.Error(LATE, print_exception=False)
    note(error)
    return gr.Error(unforeseen(error), print_exception=False)


def unforeseen(error: BaseException) -> str:
    return f"Something inside went wrong ({type(error).__name__}); the page goes on working."


def note(error: BaseException) -> None:
    """Log where an error happened: its message may quote what a visitor typed, which belongs in no log."""
    place = "".join(traceback.format_tb(error.__traceback__))
    log.error("an event failed with %s\n%s", type(error).__name__, place)


class Page(gr.Blocks):
    """Gradio's Blocks, whose events can be called without the page and with any values: each ends in a sentence."""

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        wanted = len(block_fn.inputs)
        if len(inputs) < wanted:
            values = f"{wanted} value{'' if wanted == 1 else 's'}"
            raise gr.Error(f"This call takes {values}; {len(inputs)} came.", print_exception=False)

    async def preprocess_data(self, *given: Any, **options: Any) -> Any:
        try:
            return await super().preprocess_data(*given, **options)
        except gr.Error as problem:
            # Of Gradio's own checks, a number past a slider's end for one; or of ours above.
            said = str(problem.message).splitlines()[0][:300].rstrip(". ")
            raise gr.Error(f"{said}.", print_exception=False) from None
        except Exception:
            raise gr.Error("A value came that this control cannot have.", print_exception=False) from None

    async def process_api(self, *given: Any, **options: Any) -> dict[str, Any]:
        try:
            return await super().process_api(*given, **options)
        except Exception as error:
            raise in_a_sentence(error) from None


UNUSED = ("/dev/reload", "/gradio_api/deep_link", "/gradio_api/vibe-", "/gradio_api/process_recording")
"""Gradio's routes that this page has no use for: endless streams, files of a visitor's state, an editor."""


MOST_BYTES = 32 * 2**20
"""Of one request: a file of 20 MB, as an event of the page carries it."""
LARGE = f"A request of more than {MOST_BYTES // 2**20} MB is not taken."
MOST_UPLOADED = 512 * 2**20
"""Bytes of visitors' files that lie here at a time, whoever brought them; old ones are deleted (`page.UPLOADS`)."""
MOST_FILES = 2000


def room(folder: str) -> bool:
    """Whether one more file may be brought."""
    files = [Path(where, name) for where, _, names in os.walk(folder) for name in names]
    held = 0
    for file in files:
        with contextlib.suppress(OSError):  # deleted meanwhile
            held += file.stat().st_size
    return len(files) < MOST_FILES and held < MOST_UPLOADED


class TooLargeError(Exception):
    """A request goes on and on."""


class Guard:
    """The same for the web server around the page, and a bound on what it takes in: an ASGI middleware.

    Args:
        names: under which the server answers; "*" for any, as behind a tunnel that changes them.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str] = ("*",)):
        self.app, self.names = app, names

    def foreign(self, scope: Scope) -> bool:
        """Whether another site's page asks, in the browser of somebody who may also be here."""
        headers = Headers(scope=scope)
        if headers.get("sec-fetch-site") == "cross-site":
            return True
        origin = headers.get("origin")
        if origin is None or "*" in self.names:
            return False
        # A proxy may name the machine behind it; a page elsewhere cannot set either without asking first.
        own = (headers.get("host", ""), headers.get("x-forwarded-host", ""))
        return urlsplit(origin).hostname not in [urlsplit(f"//{name}").hostname for name in own if name]

    def refusal(self, scope: Scope) -> JSONResponse | None:
        """What a request is answered at once that must not come further."""
        path = scope.get("path", "")
        if any(route in path for route in UNUSED):
            return JSONResponse({"detail": "There is nothing here."}, 404)
        if scope["type"] != "http":
            return None
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and self.foreign(scope):
            return JSONResponse({"detail": "Another site's page may not call this one."}, 403)
        if int(Headers(scope=scope).get("content-length", "0")) > MOST_BYTES:  # a number, says the server before us
            return JSONResponse({"detail": LARGE}, 413)
        if scope["method"] == "POST" and path.endswith("/upload") and not room(get_upload_folder()):
            return JSONResponse({"detail": "Too many files have been brought here; try again in ten minutes."}, 503)
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if refused := self.refusal(scope):
            await refused(scope, receive, send)
            return
        begun, taken = False, 0

        async def receiving() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BYTES:
                raise TooLargeError
            return message

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receiving, sending)
        except TooLargeError:
            if begun:
                raise
            await JSONResponse({"detail": LARGE}, 413)(scope, receive, send)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            known = not isinstance(error, FnIndexInferError)
            if known:
                note(error)
            said = unforeseen(error) if known else "There is no such call here."
            await JSONResponse({"detail": said}, 500 if known else 404)(scope, receive, send)
