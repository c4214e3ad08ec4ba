"""Image files of every kind, augmentation and normalization."""

import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image

from src.images.decode import AccessError, ImageError, read_image, resized
from src.transforms import IMAGENET_MEAN, IMAGENET_STD, draw_augmentation, prepare

ROOT = Path(__file__).resolve().parent.parent
RAMP = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))  # 0 .. 252 from left to right


def save(path, image, **options):
    image.save(path, **options)
    return path


def picture(width, height, *, seed=0):
    """Gray with coarse and fine detail."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (n, n), dtype=np.uint8)).resize((width, height), 3) for n in (4, 16, 32)
    ]
    return Image.fromarray(np.mean([np.asarray(layer) for layer in layers], axis=0).astype(np.uint8))


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


def in_0_1(out):
    """The first channel of prepared images before it was normalized, [B, S, S]."""
    return out[:, 0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]


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


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_is_scaled_by_its_own_range_not_clipped(tmp_path, channels):
    deep = np.repeat(RAMP.astype(np.uint16)[..., None] * 10 + 1000, channels, axis=2)
    if channels == 4:
        deep[..., 3] = 65535
    path = save_16_bit_png(tmp_path / "a.png", deep)
    expected = np.rint(RAMP * (255 / 252)).astype(np.uint8)
    np.testing.assert_array_equal(read_image(path, size=64)[0], expected)
    flat = save_16_bit_png(tmp_path / "b.png", np.full((8, 8, channels), 3000))
    assert not read_image(flat, size=8).any()


def test_16_bit_color_is_weighted_as_8_bit_color_is(tmp_path):
    colors = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    colors[0, :2] = [[0] * 3, [255] * 3]  # so that its own range is the whole one
    expected = np.asarray(Image.fromarray(colors).convert("L")).astype(int)
    image = read_image(save_16_bit_png(tmp_path / "a.png", colors.astype(np.uint16) * 257), size=8)
    assert np.abs(image[0].numpy() - expected).max() <= 1


def test_16_bit_gray_with_transparency_is_an_error_and_not_read_at_8_bits(tmp_path):
    path = save_16_bit_png(tmp_path / "a.png", np.full((8, 8, 2), 3000))
    with pytest.raises(ValueError, match="a.png cannot be read .16-bit gray with transparency"):
        read_image(path, size=8)


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
    with pytest.raises(AccessError, match=f"{tmp_path.name} cannot be read .Is a directory"):
        read_image(tmp_path, size=64)


def test_a_very_large_image_is_read_without_a_warning_and_one_beyond_reason_is_an_error(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(RAMP))  # 4,096 pixels
    code = (
        "import sys; from pathlib import Path; from PIL import Image; from src.images.decode import read_image\n"
        "Image.MAX_IMAGE_PIXELS = int(sys.argv[2])\n"
        "try: read_image(Path(sys.argv[1]), size=8)\n"
        "except ValueError as error: print(error)"
    )
    for limit, out in ((3000, ""), (2000, "decompression bomb")):
        done = subprocess.run(
            [sys.executable, "-c", code, path, str(limit)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stderr == "" and out in done.stdout and done.stdout.count("\n") == bool(out)


def test_normalization_is_imagenets_with_channels_last():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(11, 1, 1, 1)
    out = prepare(images, draws=None)
    assert out.shape == (11, 3, 16, 16) and out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    for channel in range(3):
        expected = (images[:, 0].double() / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        torch.testing.assert_close(out[:, channel].double(), expected, atol=5e-7, rtol=0)


def test_draws_are_repeatable_and_uniform():
    draws = draw_augmentation(4000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(draws, draw_augmentation(4000, generator=torch.Generator().manual_seed(1)))
    assert draws.shape == (4000, 7) and draws.device.type == "cpu"
    assert draws.abs().max() <= 1
    torch.testing.assert_close(draws.mean(dim=0), torch.zeros(7), atol=0.04, rtol=0)
    torch.testing.assert_close(draws.std(dim=0), torch.full((7,), 3**-0.5), atol=0.02, rtol=0)


def test_augmentation_is_the_affine_map_and_the_change_of_contrast_that_it_says():
    images = torch.from_numpy(np.stack([np.asarray(picture(48, 48, seed=n)) for n in range(20)])).unsqueeze(1)
    draws = draw_augmentation(20, generator=torch.Generator().manual_seed(0))
    flip, angle, scale, right, down, brightness, contrast = draws.T
    flip, angle, scale = torch.sign(flip), angle * 10 * torch.pi / 180, 1 + 0.1 * scale
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    matrix = torch.stack([flip * cos, -sin, 0.1 * right, flip * sin, cos, 0.1 * down], dim=1).view(20, 2, 3)
    grid = F.affine_grid(matrix, [20, 1, 48, 48], align_corners=False)
    moved = F.grid_sample(images / 255, grid, padding_mode="zeros", align_corners=False)[:, 0]
    expected = (moved - 0.5) * (1 + 0.2 * contrast).view(-1, 1, 1) + 0.5 + 0.1 * brightness.view(-1, 1, 1)
    out = prepare(images, draws=draws)
    assert out.shape == (20, 3, 48, 48) and out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(in_0_1(out), expected.clamp(0, 1), atol=1e-4, rtol=0)


def test_draws_of_zero_change_nothing():
    images = torch.from_numpy(RAMP).view(1, 1, 64, 64)
    torch.testing.assert_close(prepare(images, draws=torch.zeros(1, 7)), prepare(images, draws=None), atol=1e-4, rtol=0)


def test_a_part_of_a_batch_is_augmented_as_in_the_whole():
    images = torch.randint(0, 256, (21, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    draws = draw_augmentation(21, generator=torch.Generator().manual_seed(0))
    whole = prepare(images, draws=draws)
    parts = [prepare(images[rows], draws=draws[rows]) for rows in (slice(0, 5), slice(5, 6), slice(6, 21))]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert prepare(images[:0], draws=draws[:0]).shape == (0, 3, 32, 32)


def test_each_image_of_a_batch_is_augmented_its_own_way():
    batch = torch.from_numpy(RAMP).expand(6, 1, 64, 64)
    out = in_0_1(prepare(batch, draws=draw_augmentation(6, generator=torch.Generator().manual_seed(1))))
    assert out.min() >= -1e-6 and out.max() <= 1 + 1e-6
    differences = [(out[i] - out[j]).abs().max() for i in range(6) for j in range(i)]
    assert min(differences) > 0.01


def test_augmentation_moves_an_image_only_a_little_and_flips_about_half():
    batch = torch.from_numpy(RAMP).expand(200, 1, 64, 64)
    out = in_0_1(prepare(batch, draws=draw_augmentation(200, generator=torch.Generator().manual_seed(0))))
    rises = out[:, 24:40, 48].mean(dim=1) - out[:, 24:40, 16].mean(dim=1)  # +0.5 unflipped, -0.5 flipped
    assert 70 < int((rises < 0).sum()) < 130
    assert (rises.abs() - 0.5).abs().max() < 0.2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_prepares_as_the_cpu_does():
    images = torch.randint(0, 256, (20, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for draws in (None, draw_augmentation(20, generator=torch.Generator().manual_seed(0))):
        out = prepare(images.cuda(), draws=draws)
        assert out.is_cuda and out.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(out.cpu(), prepare(images, draws=draws), atol=1e-3, rtol=0)
