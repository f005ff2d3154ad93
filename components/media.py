"""Pictures and arrays by URL: kept in memory, bounded, made when the browser asks for them.

A URL holds an unguessable token, so whoever has it was given it; nothing of it is a path.
"""

from __future__ import annotations

import base64
import binascii
import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from playground.errors import PlaygroundError, RecipeError
from playground.sharing.png import to_png

log = logging.getLogger(__name__)


class Pictures(Protocol):
    """Something that makes PNG files by name."""

    @property
    def nbytes(self) -> int: ...

    def png(self, name: str) -> bytes:
        """The file; KeyError if there is none of that name."""
        ...


class Arrays(Protocol):
    """Something that makes binary files by name (`playground.plane.packing` says how they are built)."""

    @property
    def nbytes(self) -> int: ...

    def binary(self, name: str) -> bytes:
        """The file; KeyError if there is none of that name."""
        ...


Kept = Pictures | Arrays


class Media:
    """What the pages of all visitors show, the newest first to stay.

    Args:
        limit: bytes held at most.
        per_visitor: collections one visitor can hold, so that nobody pushes out the others.
    """

    def __init__(self, limit: int = 512 * 2**20, per_visitor: int = 6):
        self._limit, self._per_visitor = limit, per_visitor
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[str, Kept]] = OrderedDict()

    def add(self, visitor: str, pictures: Kept) -> str:
        """Keep a collection; returns its token."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[token] = (visitor, pictures)
            own = [k for k, (owner, _) in self._kept.items() if owner == visitor]
            for old in own[: -self._per_visitor]:
                del self._kept[old]
            self._trim()
        return token

    def _trim(self) -> None:
        """Drop what was asked for longest ago, until all fits."""
        while len(self._kept) > 1 and sum(p.nbytes for _, p in self._kept.values()) > self._limit:
            self._kept.popitem(last=False)

    def grown(self) -> None:
        """A collection has made a file, which it keeps: it counts as well."""
        with self._lock:
            self._trim()

    def get(self, token: str) -> Kept | None:
        """A collection, or None when it is no longer kept."""
        with self._lock:
            if token in self._kept:
                self._kept.move_to_end(token)
                return self._kept[token][1]
        return None

    def newest(self, visitor: str, wanted: Callable[[Kept], bool] = lambda kept: True) -> Kept | None:
        """What a visitor has got last of what is wanted, or None."""
        with self._lock:
            own = [kept for owner, kept in self._kept.values() if owner == visitor and wanted(kept)]
            return own[-1] if own else None

    def forget(self, visitor: str) -> None:
        """Drop what a visitor who has left was looking at."""
        with self._lock:
            for token in [k for k, (owner, _) in self._kept.items() if owner == visitor]:
                del self._kept[token]

    def shelf(self, tab: str) -> Shelf:
        """The part of one tab: a visitor's results there are bounded and forgotten apart from other tabs'."""
        return Shelf(self, tab)

    @staticmethod
    def url(token: str, name: str = "") -> str:
        """The address of a file, relative to the page so that it works behind a proxy."""
        return f"media/{token}/{name}"

    def routes(self) -> list[Route]:
        """For the web server. The endpoint is a plain function: it runs off the event loop."""

        def serve(request: Request) -> Response:
            kept, name = self.get(request.path_params["token"]), request.path_params["name"]
            if kept is None:
                return Response("no longer kept", 404)
            binary = name.endswith(".bin")
            make = getattr(kept, "binary" if binary else "png", None)
            try:
                if make is None:
                    raise KeyError(name)
                content = make(name)
            except KeyError:
                return Response("no such picture", 404)
            except (PlaygroundError, TimeoutError) as error:
                return Response(str(error) or "too slow", 503)
            self.grown()
            headers = {"Cache-Control": "private, max-age=3600, immutable", "X-Content-Type-Options": "nosniff"}
            kind = "application/octet-stream" if binary else "image/png"
            return Response(content, media_type=kind, headers=headers)

        return [Route("/media/{token}/{name}", serve)]


class Shelf:
    """What one tab keeps of every visitor (`Media.shelf`)."""

    def __init__(self, media: Media, tab: str):
        self._media, self._tab = media, tab

    def _owner(self, visitor: str | None) -> str:
        return f"{visitor or ''}/{self._tab}"

    def add(self, visitor: str | None, pictures: Kept) -> str:
        """Keep a collection; returns its token."""
        return self._media.add(self._owner(visitor), pictures)

    def get(self, token: str) -> Kept | None:
        """A collection, or None when it is no longer kept."""
        return self._media.get(token)

    def newest(self, visitor: str | None, wanted: Callable[[Kept], bool] = lambda kept: True) -> Kept | None:
        """What a visitor has got last on this tab of what is wanted, or None."""
        return self._media.newest(self._owner(visitor), wanted)

    def forget(self, visitor: str | None) -> None:
        """Drop what a visitor who has left was looking at."""
        self._media.forget(self._owner(visitor))


def data_url(picture: np.ndarray) -> str:
    """A picture [H, W, 3] of bytes as a URL that holds it: for previews, which nobody fetches twice."""
    png = to_png(Image.fromarray(picture), compress=1)
    return "data:image/png;base64," + base64.b64encode(png).decode()


def read_data(data: Any) -> bytes:
    """The bytes of a `data:` URL, or of base64 alone.

    Raises:
        RecipeError: when it is neither.
    """
    text = str(data)
    try:
        return base64.b64decode(text[text.find(",") + 1 :], validate=True)
    except (binascii.Error, ValueError):
        raise RecipeError("The picture did not arrive whole; try again.") from None
