"""Pictures from outside: every kind becomes RGB of the model's shape, or a sentence."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from playground.errors import RecipeError
from playground.images.guides import coarse, content_name, flat, mask_tensor, open_picture, prepare, to_tensor


def file(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def gradient(width=12, height=8, mode="RGB") -> Image.Image:
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype(np.uint8)
    return Image.fromarray(ramp).convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "PNG"), ("L", "PNG"), ("1", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("RGB", "WEBP"), ("LAB", "TIFF")],
)
def test_every_mode_becomes_rgb(mode, kind):
    picture, _ = open_picture(file(gradient(mode=mode), kind))
    assert picture.mode == "RGB" and picture.size == (12, 8)


def test_colours_are_kept():
    picture, notes = open_picture(file(gradient()))
    assert np.array_equal(np.array(picture), np.array(gradient())) and notes == []


def test_sixteen_bits_are_scaled_and_not_cut():
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    picture, notes = open_picture(file(Image.fromarray(values)))
    assert np.array(picture)[0, :, 0].tolist() == [0, 128, 255]
    assert "16 bits" in notes[0]


def test_print_colours_are_converted_and_it_is_said():
    picture, notes = open_picture(file(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = picture.getpixel((1, 1))
    assert red > 200 and green < 60 and blue < 60
    assert notes == ["Its CMYK colours were turned into RGB, without a colour profile."]


def test_transparent_parts_are_white_and_it_is_said():
    layer = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    layer.putpixel((1, 0), (0, 0, 0, 0))
    picture, notes = open_picture(file(layer))
    assert picture.getpixel((0, 0)) == (255, 0, 0) and picture.getpixel((1, 0)) == (255, 255, 255)
    assert "white" in notes[0]
    assert open_picture(file(Image.new("RGBA", (2, 2), "red")))[1] == []


def test_a_turned_photograph_stands_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    picture, notes = open_picture(file(gradient(12, 8), "JPEG", exif=exif))
    assert picture.size == (8, 12) and "upright" in notes[0]


def test_an_animation_gives_its_first_frame_and_says_so():
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    data = file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    picture, notes = open_picture(data)
    assert picture.getpixel((0, 0)) == (255, 0, 0) and "first frame" in notes[0]


def huge_png(width, height) -> bytes:
    """A header that claims this size, with next to nothing behind it."""

    def chunk(name, body):
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"%!PS-Adobe-3.0 EPSF-3.0",
        huge_png(20_000, 20_000),
        huge_png(200_000, 200_000),
        file(gradient())[:60],
        file(gradient(200, 200), "JPEG")[:-400],
    ],
)
def test_what_is_no_picture_is_one_sentence(data):
    with pytest.raises(RecipeError) as caught:
        open_picture(data)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(7_000, 6_000), (20_000, 20_000), (200_000, 200_000)])
def test_what_is_too_large_is_called_so(size):
    with pytest.raises(RecipeError, match="40 million are the most"):
        open_picture(huge_png(*size))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((16, 16), ""),
        ((32, 32), "32 × 32 scaled to 16 × 16."),
        ((64, 32), "cut to its middle 32 × 32 and scaled"),
        ((1, 1), "blurred"),
        ((3, 500), "cut to its middle 3 × 3"),
    ],
)
def test_what_is_done_to_fit_is_said(size, words):
    made, told = prepare(gradient(*size), (16, 16))
    assert made.size == (16, 16) and words in told
    assert bool(told) == bool(words)


def test_the_middle_is_kept():
    picture = Image.new("RGB", (30, 10), "blue")
    picture.paste("red", (10, 0, 20, 10))
    assert np.array(prepare(picture, (8, 8))[0])[:, 2:6].reshape(-1, 3).tolist() == [[255, 0, 0]] * 32


def test_tensor_is_in_the_range_of_the_models():
    tensor = to_tensor(Image.new("RGB", (3, 2), (0, 255, 255)))
    assert tensor.shape == (1, 3, 2, 3) and tensor[0, :, 0, 0].tolist() == [-1.0, 1.0, 1.0]


def test_a_mask_must_fit_and_mark_something():
    with pytest.raises(RecipeError, match="must agree"):
        mask_tensor(Image.new("L", (4, 4), 255), (5, 4))
    with pytest.raises(RecipeError, match="empty"):
        mask_tensor(Image.new("L", (4, 4), 0), (4, 4))
    assert mask_tensor(Image.new("L", (4, 3), 255), (4, 3)).shape == (1, 1, 3, 4)


def test_a_cell_is_edited_if_any_of_its_pixels_is():
    mask = torch.zeros(1, 1, 16, 16)
    mask[0, 0, 5, 9] = 1
    cells = coarse(mask, (4, 4))
    assert cells.sum() == 1 and cells[0, 0, 1, 2] == 1


def test_names_tell_pictures_apart():
    assert content_name(gradient(4, 6)) == content_name(gradient(4, 6))
    assert content_name(gradient(4, 6)) != content_name(gradient(6, 4))
    assert content_name(Image.new("RGB", (2, 2), "red")) != content_name(Image.new("RGB", (2, 2), "blue"))


def test_flat_leaves_rgb_as_it_is():
    assert np.array_equal(np.array(flat(gradient())), np.array(gradient()))
