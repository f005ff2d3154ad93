"""Pictures from outside: every kind becomes RGB of the model's shape, or a sentence."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from playground.errors import RecipeError
from playground.images.guides import (
    coarse,
    content_name,
    fit_both,
    mask_tensor,
    prepare,
    to_tensor,
)
from playground.uploads import flat, open_picture


def file(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def png(head: bytes, lines: bytes) -> bytes:
    """A PNG file of a header and uncompressed lines."""

    def chunk(name, body):
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


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


def test_a_dark_picture_of_sixteen_bits_stays_dark():
    values = np.array([[0, 200, 255]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        picture, _ = open_picture(file(Image.fromarray(values), kind))
        assert np.array(picture)[0, :, 0].tolist() == [0, 1, 1]


def deep_png(values: np.ndarray) -> bytes:
    """16 bits for each colour [H, W, 3 or 4], which Pillow reads and does not write."""
    high, wide, colours = values.shape
    head = wide.to_bytes(4, "big") + high.to_bytes(4, "big") + bytes([16, 2 if colours == 3 else 6, 0, 0, 0])
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    return png(head, lines)


@pytest.mark.parametrize("colours", [3, 4])
def test_sixteen_bits_per_colour_are_reduced_and_it_is_said(colours):
    values = np.full((1, 3, colours), 65535)
    values[0, :, 0] = [200, 32768, 65535]
    picture, notes = open_picture(deep_png(values))
    assert np.array(picture)[0].tolist() == [[0, 255, 255], [128, 255, 255], [255, 255, 255]]
    assert notes == ["Its 16 bits per colour were reduced to 8."]


@pytest.mark.parametrize(
    ("values", "kind", "white", "grey"),
    [
        ([0.0, 0.5, 1.0], np.float32, "1", 128),
        ([0.0, 51.0, 100.0], np.float32, "255", 51),
        ([0, 257 * 60, 65535], np.int32, "65535", 60),
        ([0, 50_000, 100_000], np.int32, "100000", 128),
    ],
)
def test_pictures_of_plain_numbers_say_what_was_taken_for_white(values, kind, white, grey):
    picture, notes = open_picture(file(Image.fromarray(np.array([values], dtype=kind)), "TIFF"))
    assert np.array(picture)[0, 1].tolist() == [grey] * 3 and f"to {white}, white" in notes[0]


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

    return png(width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00", b"")


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


def test_guide_and_mask_are_fitted_alike():
    guide, mask = Image.new("RGB", (40, 20), "blue"), Image.new("L", (40, 20), 0)
    guide.paste("red", (20, 0, 40, 20))
    mask.paste(255, (20, 0, 40, 20))
    fitted, marked, told = fit_both(guide, mask, (10, 10))
    assert fitted.size == marked.size == (10, 10) and "cut to its middle 20 × 20" in told
    red = np.asarray(fitted)[..., 0] > 127
    assert np.array_equal(red, np.asarray(marked) > 127) and 0.4 < red.mean() < 0.6
    assert fit_both(guide, None, (10, 10))[1] is None
    with pytest.raises(RecipeError, match="must agree"):
        fit_both(guide, Image.new("L", (20, 40), 255), (10, 10))
    speck = Image.new("L", (400, 400), 0)
    speck.putpixel((200, 200), 255)
    with pytest.raises(RecipeError, match="too small"):
        fit_both(Image.new("RGB", (400, 400)), speck, (10, 10))


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_a_camera_turned_says_so(orientation):
    """Also where turning changes no size: a square, half a turn, a mirror."""
    picture, exif = gradient(), Image.Exif()
    exif[274] = orientation
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    _, notes = open_picture(buffer.getvalue())
    assert notes == (["The picture was turned upright, as its camera noted."] if orientation > 1 else [])
