"""Pictures that visitors bring: kept in memory by their content, bounded in number and bytes.

A name is the hash of the pixels (`content_name`): equal pictures are kept once, a link can say which picture it
means, and whoever has no such picture cannot ask for it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from PIL import Image

from playground.images.guides import content_name


class Guides:
    """Guides and masks by name. Where there are too many, the visitor who holds the most bytes loses the ones not
    used for longest.

    Args:
        most: pictures kept.
        limit: bytes of pixels kept.
        per_visitor: pictures that one visitor can bring before their own oldest is dropped.
    """

    def __init__(self, most: int = 2000, limit: int = 128 * 2**20, per_visitor: int = 60):
        self._most, self._limit, self._per_visitor = most, limit, per_visitor
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[str, Image.Image]] = OrderedDict()
        self._held = 0

    def put(self, picture: Image.Image, visitor: str = "") -> str:
        """Keep a picture (RGB, or L for a mask); returns its name."""
        name = content_name(picture)
        with self._lock:
            if name not in self._kept:
                self._kept[name] = (visitor, picture.copy())
                self._held += _bytes(picture)
            self._kept.move_to_end(name)
            own = [key for key, (owner, _) in self._kept.items() if owner == visitor]
            for key in own[: -self._per_visitor]:
                self._drop(key)
            while len(self._kept) > 1 and (len(self._kept) > self._most or self._held > self._limit):
                self._drop(self._least_missed())
        return name

    def get(self, name: str) -> Image.Image | None:
        """A picture, or None when it is not kept."""
        with self._lock:
            if name not in self._kept:
                return None
            self._kept.move_to_end(name)
            return self._kept[name][1]

    @property
    def held(self) -> tuple[int, int]:
        """Pictures and bytes."""
        with self._lock:
            return len(self._kept), self._held

    def _least_missed(self) -> str:
        """The oldest picture of whoever holds the most bytes: who paints for an hour costs nobody else a guide."""
        held: dict[str, int] = {}
        for owner, picture in self._kept.values():
            held[owner] = held.get(owner, 0) + _bytes(picture)
        most = max(held, key=lambda owner: held[owner])
        return next(name for name, (owner, _) in self._kept.items() if owner == most)

    def _drop(self, name: str) -> None:
        self._held -= _bytes(self._kept.pop(name)[1])


def _bytes(picture: Image.Image) -> int:
    return picture.width * picture.height * len(picture.getbands())
