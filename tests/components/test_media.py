"""Pictures by URL: bounded, private, and gone when their visitor is."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from components.media import Media, data_url
from playground.errors import OutOfMemory


class Album:
    """Pictures of a stated size, one of them made of the name it was asked by."""

    def __init__(self, nbytes: int = 10):
        self.nbytes, self.asked = nbytes, []

    def png(self, name: str) -> bytes:
        self.asked.append(name)
        if name == "full.png":
            raise OutOfMemory("The device has too little free memory.")
        if name == "slow.png":
            raise TimeoutError
        if name != "picture-0.png":
            raise KeyError(name)
        return b"a picture"


def fetch(media: Media, path: str):
    return TestClient(Starlette(routes=media.routes())).get(path)


def test_a_picture_is_served_under_its_token():
    media = Media()
    token = media.add("ann", Album())
    answer = fetch(media, "/" + media.url(token, "picture-0.png"))
    assert (answer.status_code, answer.content) == (200, b"a picture")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "private" in answer.headers["cache-control"]


def test_tokens_cannot_be_guessed():
    media = Media()
    tokens = {media.add("ann", Album()) for _ in range(100)}
    assert len(tokens) == 100 and min(map(len, tokens)) >= 20


@pytest.mark.parametrize("path", ["/media/unknown/picture-0.png", "/media//picture-0.png", "/media/unknown/"])
def test_an_unknown_token_is_not_found(path):
    assert fetch(Media(), path).status_code == 404


@pytest.mark.parametrize("name", ["picture-1.png", "%2e%2e%2fsecret", "..%2f..%2fetc%2fpasswd", "a%00b", "é.png"])
def test_an_unknown_name_is_not_found(name):
    media = Media()
    assert fetch(media, media.url("/" + media.add("ann", Album()), name).replace("//", "/")).status_code == 404


def test_a_path_below_a_picture_is_not_found():
    media, album = Media(), Album()
    assert fetch(media, f"/media/{media.add('ann', album)}/picture-0.png/more").status_code == 404
    assert album.asked == []


@pytest.mark.parametrize(("name", "said"), [("full.png", "too little free memory"), ("slow.png", "too slow")])
def test_what_cannot_be_made_now_is_said(name, said):
    media = Media()
    answer = fetch(media, "/" + media.url(media.add("ann", Album()), name))
    assert answer.status_code == 503 and said in answer.text


def test_the_addresses_are_relative():
    assert not Media.url("token", "a.png").startswith("/")


def test_a_visitor_keeps_the_last_few():
    media = Media(per_visitor=3)
    first = media.add("bob", Album())
    tokens = [media.add("ann", Album()) for _ in range(5)]
    assert [media.get(t) is not None for t in tokens] == [False, False, True, True, True]
    assert media.get(first) is not None


def test_the_bytes_of_all_are_bounded():
    media = Media(limit=100)
    tokens = [media.add(f"visitor {i}", Album(40)) for i in range(4)]
    assert [media.get(t) is not None for t in tokens] == [False, False, True, True]


def test_what_is_looked_at_stays():
    media = Media(limit=100)
    old, unseen = media.add("ann", Album(40)), media.add("bob", Album(40))
    assert media.get(old) is not None
    media.add("carl", Album(40))
    assert media.get(old) is not None and media.get(unseen) is None


def test_one_that_is_larger_than_everything_is_still_shown():
    media = Media(limit=100)
    small, large = media.add("ann", Album(40)), media.add("ann", Album(1000))
    assert media.get(large) is not None and media.get(small) is None


def test_forgetting_a_visitor_leaves_the_others():
    media = Media()
    ann, bob = media.add("ann", Album()), media.add("bob", Album())
    media.forget("ann")
    media.forget("nobody")
    assert media.get(ann) is None and media.get(bob) is not None


def test_a_data_url_holds_the_picture():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    head, _, body = data_url(pixels).partition(",")
    assert head == "data:image/png;base64"
    import base64

    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))), pixels)


def test_the_newest_of_what_is_wanted():
    media = Media()
    first, second = Album(), Album()
    media.add("ann", first)
    media.add("ann", second)
    assert media.newest("ann") is second and media.newest("bob") is None
    assert media.newest("ann", lambda kept: kept is not second) is first
    assert media.newest("ann", lambda kept: False) is None
