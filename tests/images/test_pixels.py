"""One bright pixel, orientations, and pictures that are none, in every kind of file."""

import io
import os
import struct
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.images.pixels import check_contrast, equalized, gray_pixels, read_bytes, stretched, why_unreadable
from tests.images.test_decode import save_16_bit_png

RNG = np.random.default_rng(0)


def radiograph(height=300, width=240):
    """12 bits: a bright oval of tissue with noise on a black background."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    tissue = np.clip(1.2 - x**2 - y**2, 0, 1)
    return np.rint(3500 * tissue + 100 * RNG.random((height, width)) * (tissue > 0)).astype(np.uint16)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("times", [1.1, 1.3, 2, 16])
@pytest.mark.parametrize("height", [1, 36])  # a few hot pixels, or a burnt-in marker of 2%
def test_what_is_brighter_than_the_picture_does_not_darken_it(times, height):
    values = radiograph()
    hot = values.copy()
    hot[10 : 10 + height, 10:50] = values.max() * times
    expected = stretched(values)
    expected[10 : 10 + height, 10:50] = 255
    np.testing.assert_array_equal(stretched(hot), expected)


def test_a_few_dark_pixels_do_not_brighten_the_rest():
    values = radiograph().astype(np.int32) + 1000
    cold = values.copy()
    cold[150, 100:120] = -30000
    shown = stretched(cold)
    assert not shown[150, 100:120].any()
    assert np.abs(np.delete(shown, 150, 0).astype(int) - np.delete(stretched(values), 150, 0)).max() <= 1


def test_an_image_without_outliers_is_stretched_over_its_whole_range():
    values = radiograph().astype(np.float64)
    whole = np.rint((values - values.min()) * 255 / (values.max() - values.min()))
    np.testing.assert_array_equal(stretched(values), whole.astype(np.uint8))
    assert (stretched(values).min(), stretched(values).max()) == (0, 255)


def test_a_picture_is_the_same_in_8_bits_in_12_of_16_and_as_numbers():
    values = radiograph()
    low, high = int(values.min()), int(values.max())
    eight = np.rint((values - float(low)) * 255 / (high - low)).astype(np.uint8)
    for data in (encoded(Image.fromarray(eight), "PNG"), encoded(Image.fromarray(values), "PNG"),
                 encoded(Image.fromarray(values.astype(np.float32)), "TIFF")):  # fmt: skip
        np.testing.assert_array_equal(gray_pixels(Path("a.png"), data, size=64), eight)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((50, 50), 7), "all of its pixels have the same value"),
        (np.where(np.arange(2500) == 9, 60000, np.arange(2500) % 3).reshape(50, 50), "lie within 1% of its range"),
        (np.array([[0.0, np.nan]]), "not finite"),
    ],
)
def test_numbers_that_are_no_picture_are_refused(values, reason):
    with pytest.raises(ValueError, match=reason):
        stretched(values)


def test_a_picture_needs_more_than_one_gray_value():
    black = np.zeros((400, 400), np.uint8)
    black[200, 200] = 255
    for picture in (black, black + RNG.integers(0, 3, black.shape, dtype=np.uint8)):
        with pytest.raises(ValueError, match="nearly all of its pixels have the same gray value"):
            check_contrast(picture)
        with pytest.raises(ValueError, match="nearly all of its pixels"):
            gray_pixels(Path("a.png"), encoded(Image.fromarray(picture), "JPEG"), size=64)
    check_contrast(stretched(radiograph()))
    black[:30, :30] = RNG.integers(0, 256, (30, 30))  # a small picture on a large black ground
    check_contrast(black)


def test_the_look_at_contrast_is_spared_only_where_its_count_would_pass():
    random, refused = np.random.default_rng(0), 0
    for _ in range(300):
        picture = np.full((63, 63), 7, np.uint8)  # of which every pixel counts
        places = random.choice([0, 15, 30, 45, 60]) * 63 + np.arange(
            random.integers(1, 42)
        )  # in a row that is looked at
        picture.flat[places] = random.integers(0, 256, len(places))
        counts = np.bincount(picture.ravel(), minlength=256)
        plain = max(counts[value : value + 3].sum() for value in range(254)) >= 0.995 * picture.size
        refused += plain
        with pytest.raises(ValueError, match="nearly all") if plain else nullcontext():
            check_contrast(picture)
    assert 50 < refused < 250


def sideways(image, orientation):
    """The stored image that EXIF orientation turns upright, by Pillow's own inverse."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # of Image.Transpose: flips undo themselves, 6 is stored by 90
    return image.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "16-bit PNG"])
def test_orientation_is_applied_in_every_format(kind, orientation):
    values = radiograph(96, 64)
    values[:20, :30] //= 2  # no symmetry
    upright = Image.fromarray(values if kind == "16-bit PNG" else stretched(values))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    data = encoded(sideways(upright, orientation), kind.split()[-1], exif=exif, **options)
    shown = gray_pixels(Path("a.png"), data, size=64)
    assert shown.shape == (96, 64)
    assert np.abs(shown.astype(int) - stretched(values)).mean() < (3 if kind == "JPEG" else 0.5)


def test_an_orientation_that_is_none_leaves_the_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 0
    upright = stretched(radiograph(96, 64))
    data = encoded(Image.fromarray(upright), "PNG", exif=exif)
    np.testing.assert_array_equal(gray_pixels(Path("a.png"), data, size=64), upright)


def white_is_zero(values):
    """A TIFF of 16 bits in which 0 is white."""
    height, width = values.shape
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: 0, 273: 8, 277: 1, 278: height, 279: 2 * width * height}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + tags[279])
    return head + (values.max() - values).astype("<u2").tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_a_16_bit_tiff_in_which_0_is_white_is_not_shown_inverted():
    values = radiograph(96, 64)
    np.testing.assert_array_equal(gray_pixels(Path("a.tif"), white_is_zero(values), size=64), stretched(values))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_a_file_of_several_frames_is_refused(kind):
    frames = [Image.fromarray(stretched(radiograph(40, 30))) for _ in range(2)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="it has 2 frames; expected one"):
        gray_pixels(Path("a.png"), data, size=64)


def sized(jpeg, side):
    """A JPEG with another size in its header."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", side, side) + jpeg[at + 4 :]


JPEG = encoded(Image.fromarray(stretched(radiograph(40, 30))), "JPEG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not an image"),
        (encoded(Image.new("RGB", (40, 30)), "EPS"), "is not an image"),  # Ghostscript is not started
        (JPEG.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc0\0\x0b\x0c"), "is a JPEG of an unsupported kind"),
        (sized(JPEG, 30_000), "has more than 178,956,970 pixels"),
        (encoded(Image.fromarray(stretched(radiograph(40, 7))), "PNG"), "it has 7 x 40 pixels; expected 8 or more"),
    ],
)
def test_a_reason_says_what_is_wrong_with_a_file(data, reason):
    with pytest.raises(Exception) as raised:  # noqa: B017  # each decoder raises its own
        gray_pixels(Path("a.png"), data, size=64)
    assert reason in why_unreadable(data, raised.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(OSError, match="not a regular file"):
        read_bytes(tmp_path / "a.png")


def test_16_bit_gray_with_transparency_is_read_at_16_bits(tmp_path):
    values = np.stack([radiograph(40, 30), np.full((40, 30), 65535)], axis=2)
    path = save_16_bit_png(tmp_path / "a.png", values)
    np.testing.assert_array_equal(gray_pixels(Path("a.png"), path.read_bytes(), size=8), stretched(values[..., 0]))


def test_equalized_values_are_the_share_of_the_pixels_up_to_them():
    """OpenCV's definition: without those of the darkest value, which becomes 0."""
    gray = np.random.default_rng(0).gamma(4, 15, (60, 50)).clip(3, 240).astype(np.uint8)
    found = equalized(gray)
    above = gray[gray > gray.min()]
    for value in np.unique(gray):
        assert set(found[gray == value]) == {round(255 * np.mean(above <= value))}
    assert np.abs(equalized(found).astype(int) - found).max() <= 1
    data = encoded(Image.fromarray(gray), "PNG")
    np.testing.assert_array_equal(gray_pixels(Path("a.png"), data, size=64, equalize=True), found)
    np.testing.assert_array_equal(gray_pixels(Path("a.png"), data, size=64), gray)
