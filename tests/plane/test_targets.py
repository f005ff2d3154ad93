import io
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from playground.errors import RecipeError
from playground.plane.pictures import picture_as_points
from playground.plane.targets import (
    EDGE,
    LINES,
    MAX_COMPONENTS,
    TARGETS,
    TITLES,
    decode_mixture,
    decode_points,
    edited_mixture,
    encode_mixture,
    encode_points,
    picture_points,
    picture_target,
    point_target,
    word_target,
)


@pytest.mark.parametrize("name", TARGETS | LINES)
def test_named_targets_fit_the_view_and_have_unit_size(name):
    mixture = (TARGETS | LINES)[name]
    x = mixture.sample(4000, torch.Generator().manual_seed(0))
    assert name in TITLES
    assert mixture.dim == (2 if name in TARGETS else 1)
    assert len(mixture.means) <= MAX_COMPONENTS
    assert float((x.abs() < 3.2).float().mean()) > 0.998
    assert 0.5 < float(x.std(0).max()) < 2.2
    assert float(x.mean(0).abs().max()) < 0.4
    assert mixture.classes == list(range(len(mixture.classes)))


def test_the_checkerboard_is_one():
    # The colour of the cell that a point lies in, for nearly all points.
    x = TARGETS["checkerboard"].sample(4000, torch.Generator().manual_seed(0))
    assert float(((x.floor().long().sum(-1) % 2) == 1).float().mean()) > 0.85


def test_pinwheel_needs_full_covariances_and_the_others_do_not():
    assert {name for name, m in TARGETS.items() if not m.is_isotropic} == {"pinwheel"}


# Points


def test_points_are_a_kernel_mixture():
    points = torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    mixture = point_target(points, [0, 3], 0.2)
    assert mixture.means.tolist() == points.tolist() and mixture.labels.tolist() == [0, 3]
    assert torch.allclose(mixture.covariances, 0.04 * torch.eye(2, dtype=torch.float64))


def test_points_and_classes_come_back_from_their_text():
    x = (torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1) * 3
    labels = [i % 3 for i in range(300)]
    text = encode_points(x, labels)
    back, classes = decode_points(text)
    assert float((back - x).abs().max()) <= 0.0005 + 1e-6 and classes == labels
    assert len(encode_points(torch.rand(100_000, 2))) <= 8000


def test_a_hundred_thousand_points_keep_their_law():
    mixture = TARGETS["rings"]
    x = mixture.sample(100_000, torch.Generator().manual_seed(0))
    labels = mixture.classified(x)
    few = point_target(x.clamp(-EDGE, EDGE), labels, 0.05)
    assert len(few.means) == MAX_COMPONENTS
    for c in mixture.classes:
        share = float(mixture.weights[mixture.labels == c].sum())
        assert float((few.labels == c).float().mean()) == pytest.approx(share, abs=0.01)
    radius = few.means.norm(dim=-1)
    assert float((radius - torch.tensor([0.8, 1.6, 2.4])[few.labels]).abs().max()) < 0.4


def test_equal_points_are_one_place():
    mixture = point_target(torch.ones(100_000, 2), None, 0.1)
    x = mixture.sample(100, torch.Generator().manual_seed(0))
    assert float((x - 1).abs().max()) < 0.5
    one = torch.tensor([[1.0, 1.0]])
    assert float(mixture.log_density(one)) == pytest.approx(-math.log(2 * math.pi * 0.01), rel=1e-5)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        ([], "There are no points yet"),
        ([[math.nan, 0]], "finite"),
        ([[math.inf, 0]], "finite"),
        ([[1e6, 0]], "between"),
        ([[0, 0, 0]], "pairs"),
        (["a"], "pairs"),
    ],
)
def test_points_that_cannot_be_used_are_one_sentence(points, sentence):
    with pytest.raises(RecipeError, match=sentence) as error:
        point_target(points)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


@pytest.mark.parametrize("labels", [[-1], [8], [0, 1]])
def test_classes_that_cannot_be_used(labels):
    with pytest.raises(RecipeError, match="class"):
        point_target([[0, 0]], labels)


@pytest.mark.parametrize("text", ["!!!", "AAAA", "é", "A" * 7])
def test_texts_that_are_no_points(text):
    with pytest.raises(RecipeError, match="cannot be read"):
        decode_points(text)


# The mixture editor


def test_an_edited_mixture_is_what_was_edited():
    component = (0.5, -1.0, 0.8, 0.2, 0.7, 2.0, 1)
    text = encode_mixture([component, (1, 1, 0.3, 0.3, 0.4, 1.0, 0)])
    assert decode_mixture(text)[0] == pytest.approx(component)
    mixture = edited_mixture(text)
    assert mixture.weights.tolist() == pytest.approx([2 / 3, 1 / 3]) and mixture.labels.tolist() == [1, 0]
    along = torch.tensor([math.cos(0.7), math.sin(0.7)], dtype=torch.float64)
    across = torch.tensor([-math.sin(0.7), math.cos(0.7)], dtype=torch.float64)
    assert float(along @ mixture.covariances[0] @ along) == pytest.approx(0.64)
    assert float(across @ mixture.covariances[0] @ across) == pytest.approx(0.04)
    assert edited_mixture(encode_mixture([(1, 1, 0.3, 0.3, 0.4, 1.0, 0)])).is_isotropic


@pytest.mark.parametrize(
    "component",
    [
        (0, 0, 0, 1, 0, 1, 0),
        (0, 0, 1, 1, 0, 0, 0),
        (9, 0, 1, 1, 0, 1, 0),
        (math.nan, 0, 1, 1, 0, 1, 0),
        (0, 0, 1, 1, 0, 1, 9),
        (0, 0, 100, 1, 0, 1, 0),
        (0, 0, 20, 1, 0, 1, 0),
        ("a", 0, 1, 1, 0, 1, 0),
    ],
)
def test_components_that_cannot_be_used_are_one_sentence(component):
    with pytest.raises(RecipeError) as error:
        encode_mixture([component])
    assert str(error.value).endswith(".")


def test_a_mixture_without_components():
    with pytest.raises(RecipeError, match="no components"):
        edited_mixture("")


# Words and pictures


def test_a_word_looks_like_itself():
    mixture = word_target("I", 0.03)
    x = mixture.means
    assert len(x) <= MAX_COMPONENTS
    # A capital I is one upright stroke: taller than wide, and full.
    assert float(x[:, 1].max() - x[:, 1].min()) > 3 * float(x[:, 0].max() - x[:, 0].min())
    wide = word_target("WWWW", 0.03).means
    assert float(wide[:, 0].max() - wide[:, 0].min()) == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize("word", ["", "   ", "\U0001f600", "日本", "Ü", "a\x00b"])
def test_words_that_cannot_be_drawn_are_one_sentence(word):
    with pytest.raises(RecipeError) as error:
        word_target(word)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("word", ["A", "abc!", "0123456789", "M" * 12, "."])
def test_words_that_can_be_drawn(word):
    assert 1 <= len(word_target(word).means) <= MAX_COMPONENTS


def test_the_dark_pixels_of_a_picture_are_its_points():
    image = Image.new("RGB", (400, 200), "white")
    ImageDraw.Draw(image).rectangle((0, 0, 99, 199), fill="black")  # the left quarter
    x = picture_points(image)
    assert 500 < len(x) <= MAX_COMPONENTS
    assert float(x[:, 0].max()) == pytest.approx(-1.25, abs=0.1) and float(x[:, 0].min()) == pytest.approx(
        -2.5, abs=0.1
    )
    assert float(x[:, 1].abs().max()) == pytest.approx(1.25, abs=0.1)


def test_up_stays_up():
    image = Image.new("L", (50, 50), 255)
    image.putpixel((10, 5), 0)
    (point,) = picture_points(image)
    assert point[0] < 0 < point[1]


def test_pictures_without_dark_pixels_and_transparent_ones():
    clear = Image.new("RGBA", (30, 30), (0, 0, 0, 0))
    with pytest.raises(RecipeError, match="no dark pixels"):
        picture_target(clear)
    with pytest.raises(RecipeError, match="no dark pixels"):
        picture_target(Image.new("L", (1, 1), 255))
    assert len(picture_target(Image.new("L", (1, 1), 0)).means) == 1
    assert len(picture_target(Image.new("L", (3000, 2000), 0)).means) <= MAX_COMPONENTS


def test_a_picture_file_is_opened_as_the_eye_sees_it():
    """Turned as its camera noted, 16 bits reduced, transparent on white, and only what can be opened."""
    picture = Image.new("L", (60, 30), 255)
    picture.paste(0, (0, 0, 15, 30))  # its left quarter is dark
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: left is up

    def points(image, form, **options):
        file = io.BytesIO()
        image.save(file, form, **options)
        text, notes = picture_as_points(file.getvalue())
        return decode_points(text)[0], notes

    upright, notes = points(picture, "JPEG", exif=exif)
    assert float(upright[:, 1].min()) > 1 and "upright" in notes[0]
    deep = Image.fromarray((np.asarray(picture).astype(np.uint16)) * 257)
    for image, form in ((deep, "PNG"), (picture.convert("CMYK"), "JPEG"), (picture, "GIF")):
        assert float(points(image, form)[0][:, 0].max()) < -1
    clear = Image.new("RGBA", (60, 30), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (0, 0, 15, 30))
    assert float(points(clear, "PNG")[0][:, 0].max()) < -1
    for nothing in (b"", b"<svg></svg>", b"\x89PNG nothing"):
        with pytest.raises(RecipeError, match="not a picture"):
            picture_as_points(nothing)
