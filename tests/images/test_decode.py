"""Image files of every kind."""

import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from src.images.decode import AccessError, ImageError, read_image, resized
from tests.trees import ROOT, picture

RAMP = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))  # 0 .. 252 from left to right


def save(path, image, **options):
    image.save(path, **options)
    return path


def save_16_bit_png(path, pixels):
    """Write pixels [H, W, channels] in big-endian uint16, which Pillow can for one channel only."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = pixels.shape
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_gray_in_any_mode_reads_the_same(tmp_path, mode):
    path = save(tmp_path / "a.png", Image.fromarray(RAMP).convert(mode))
    image = read_image(path, size=64)
    assert image.dtype == torch.uint8 and image.shape == (1, 64, 64)
    np.testing.assert_array_equal(image[0], RAMP)


@pytest.mark.filterwarnings("error")
def test_a_palette_is_read_in_color_and_without_its_transparency(tmp_path):
    colors = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).quantize(64)
    path = save(tmp_path / "a.png", colors, transparency=bytes(range(64)))
    np.testing.assert_array_equal(read_image(path, size=8)[0], colors.convert("RGB").convert("L"))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_is_scaled_by_its_own_range_not_clipped(tmp_path, channels):
    deep = np.repeat(RAMP.astype(np.uint16)[..., None] * 10 + 1000, channels, axis=2)
    if channels in (2, 4):
        deep[..., -1] = 65535
    path = save_16_bit_png(tmp_path / "a.png", deep)
    expected = np.rint(RAMP * (255 / 252)).astype(np.uint8)
    np.testing.assert_array_equal(read_image(path, size=64)[0], expected)
    flat = save_16_bit_png(tmp_path / "b.png", np.full((8, 8, channels), 3000))
    with pytest.raises(ValueError, match="b.png cannot be read .all of its pixels have the same value"):
        read_image(flat, size=8)


def test_16_bit_color_is_weighted_as_8_bit_color_is(tmp_path):
    colors = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    colors[:8] = np.arange(256).reshape(8, 32, 1)  # so that its own range is the whole one, without gaps
    expected = np.asarray(Image.fromarray(colors).convert("L")).astype(int)
    image = read_image(save_16_bit_png(tmp_path / "a.png", colors.astype(np.uint16) * 257), size=32)
    assert np.abs(image[0].numpy() - expected).max() <= 1


@pytest.mark.parametrize("size", [32, 33, 64, 90, 200])
@pytest.mark.parametrize("shape", [(96, 64), (97, 70), (99, 103)])
def test_the_resize_is_pillows_antialiased_bilinear_one(tmp_path, shape, size):
    image = picture(*shape)
    expected = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read_image(save(tmp_path / "a.png", image), size=size)[0].numpy() - expected).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_not_much_larger_than_asked_for_is_decoded_whole(tmp_path, mode, progressive):
    path = save(tmp_path / "a.jpg", picture(150, 120).convert(mode), quality=92, progressive=progressive)
    with Image.open(path) as whole:
        expected = np.asarray(whole.convert("L").resize((128, 128), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(read_image(path, size=128)[0].numpy() - expected).max() <= 1


@pytest.mark.parametrize(("side", "scale"), [(641, 8), (700, 8), (1024, 8), (450, 4), (260, 2)])
def test_a_large_jpeg_decoded_at_reduced_scale_looks_the_same(tmp_path, side, scale, monkeypatch):
    path = save(tmp_path / "a.jpg", picture(side, side), quality=92)
    with Image.open(path) as whole:
        expected = np.asarray(whole.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    decoded, decode = [], simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *a, **b: decoded.append(decode(*a, **b)) or decoded[-1])
    difference = np.abs(read_image(path, size=64)[0].numpy() - expected)
    assert decoded[0].shape == (-(-side // scale), -(-side // scale), 1)
    assert difference.mean() < 1.5 and difference.max() <= 12 and difference[48:, 48:].mean() < 1.5


@pytest.mark.parametrize("shape", [(80, 80), (163, 201), (645, 801)])
@pytest.mark.parametrize("options", [{"subsampling": "4:2:0"}, {"keep_rgb": True}, {"progressive": True}])
def test_a_jpegs_pixels_are_those_of_pillows_draft(tmp_path, shape, options):
    colors = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    path = save(tmp_path / "a.jpg", Image.fromarray(colors).resize(shape[::-1], Image.Resampling.BICUBIC), **options)
    with Image.open(path) as image:
        mode, box = image.draft("L", (80, 80))
        gray = np.asarray(image if box[2:] == image.size else image.resize((64, 64), Image.Resampling.BILINEAR, box))
    assert mode == "L"
    expected = resized(torch.from_numpy(gray.copy()), 64)
    assert torch.equal(read_image(path, size=64)[0], expected)


def test_unreadable_files_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    empty = save(tmp_path / "empty.png", Image.fromarray(noise))
    parts = empty.read_bytes().partition(b"IDAT")
    empty.write_bytes(parts[0][:-4] + parts[2][parts[2].index(b"IEND") - 4 :])
    cases = [(text, "not an image"), (empty, "cannot be read")]
    for whole in (
        save(tmp_path / "whole.png", Image.fromarray(noise)),
        save(tmp_path / "small.jpg", Image.fromarray(noise)),
        save(tmp_path / "large.jpg", Image.fromarray(noise).resize((900, 900)), quality=95),
    ):
        truncated = whole.with_stem(f"truncated_{whole.stem}")
        truncated.write_bytes(whole.read_bytes()[:-1000])
        cases.append((truncated, "cannot be read"))
    for path, message in cases:
        with pytest.raises(ValueError, match=f"{path.name}.*{message}") as caught:
            read_image(path, size=64)
        assert not isinstance(caught.value, AccessError) and "\n" not in str(caught.value)
        again = pickle.loads(pickle.dumps(caught.value))  # as it comes from a reader's process
        assert str(again) == f"{again.reason}; {again.args[1]}" == str(caught.value)
        assert "check_split" in str(again) and "check_split" not in again.reason


def damaged(data, *, at, count):
    """A file's bytes with `count` zeros over what stood there."""
    return data[:at] + bytes(count) + data[at + count :]


def test_a_jpeg_that_lost_pixels_is_refused_though_pillow_makes_them_up(tmp_path):
    save(tmp_path / "a.jpg", picture(600, 500), quality=90)
    data = (tmp_path / "a.jpg").read_bytes()
    for at in (len(data) // 3, len(data) // 2):
        (tmp_path / "b.jpg").write_bytes(damaged(data, at=at, count=len(data) // 8))
        with Image.open(tmp_path / "b.jpg") as image:
            image.load()  # without a word
        with pytest.raises(ImageError, match=r"b\.jpg cannot be read \(.*Corrupt JPEG data"):
            read_image(tmp_path / "b.jpg", size=64)


def test_a_jpeg_with_bytes_too_many_between_its_segments_is_read(tmp_path):
    save(tmp_path / "a.jpg", picture(80, 60), quality=90)
    data = (tmp_path / "a.jpg").read_bytes()
    scan = data.index(b"\xff\xda")
    (tmp_path / "b.jpg").write_bytes(data[:scan] + b"\0\0\0" + data[scan:])
    assert torch.equal(read_image(tmp_path / "a.jpg", size=32), read_image(tmp_path / "b.jpg", size=32))


@pytest.mark.parametrize("error", [RuntimeError("a decoder's own"), NotImplementedError(), TypeError("tags")])
def test_whatever_a_decoder_raises_is_of_one_image(tmp_path, monkeypatch, error):
    save(tmp_path / "a.png", picture(40, 40))

    def fails(*_):
        raise error

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(ImageError, match=r"a\.png cannot be read"):
        read_image(tmp_path / "a.png", size=32)


def test_what_the_system_does_not_open_is_told_from_what_is_no_image(tmp_path):
    with pytest.raises(AccessError, match="gone.png does not exist"):
        read_image(tmp_path / "gone.png", size=64)
    with pytest.raises(AccessError, match=f"{tmp_path.name} cannot be read .it is a folder"):
        read_image(tmp_path, size=64)


def test_a_very_large_image_is_read_without_a_warning_and_one_beyond_reason_is_an_error(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(RAMP))  # 4,096 pixels
    code = (
        "import sys; from pathlib import Path; from PIL import Image; from src.images.decode import read_image\n"
        "for limit in (3000, 2000):\n"
        "    Image.MAX_IMAGE_PIXELS = limit\n"
        "    try: read_image(Path(sys.argv[1]), size=8)\n"
        "    except ValueError as error: print(limit, error)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.startswith("2000 ") and done.stdout.count("\n") == 1
    assert "has more than 4,000 pixels" in done.stdout
