"""Image files of every kind, augmentation and normalization."""

import numpy as np
import pytest
import torch
from PIL import Image

from src.transforms import IMAGENET_MEAN, IMAGENET_STD, augment, normalize, read_image

RAMP = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))  # 0 .. 252 from left to right


def save(path, image):
    image.save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_gray_in_any_mode_reads_the_same(tmp_path, mode):
    path = save(tmp_path / "a.png", Image.fromarray(RAMP).convert(mode))
    image = read_image(path, size=64)
    assert image.dtype == torch.uint8 and image.shape == (1, 64, 64)
    np.testing.assert_array_equal(image[0], RAMP)


def test_16_bit_is_scaled_by_its_own_range_not_clipped(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(RAMP.astype(np.uint16) * 10 + 1000))
    expected = np.rint(RAMP * (255 / 252)).astype(np.uint8)
    np.testing.assert_array_equal(read_image(path, size=64)[0], expected)
    flat = save(tmp_path / "b.png", Image.fromarray(np.full((8, 8), 3000, np.uint16)))
    assert not read_image(flat, size=8).any()


def test_a_large_jpeg_decoded_at_reduced_scale_looks_the_same(tmp_path):
    large = Image.fromarray(RAMP).resize((1024, 768), Image.Resampling.BICUBIC)
    path = save(tmp_path / "a.jpg", large)
    image = read_image(path, size=64)[0].numpy().astype(int)
    expected = np.asarray(large.resize((64, 64), Image.Resampling.BOX)).astype(int)
    assert np.abs(image - expected).max() <= 4


def test_unreadable_files_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    whole = save(tmp_path / "whole.png", Image.fromarray(noise))
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(whole.read_bytes()[:-1000])
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    for path, message in [(truncated, "cannot be read"), (text, "not an image"), (tmp_path / "gone.png", "not there")]:
        with pytest.raises(ValueError, match=f"{path.name}.*{message}"):
            read_image(path, size=64)


def test_normalization_is_imagenets_with_channels_last():
    images = torch.rand(2, 1, 8, 8)
    out = normalize(images)
    assert out.shape == (2, 3, 8, 8) and out.is_contiguous(memory_format=torch.channels_last)
    for channel in range(3):
        expected = (images[:, 0] - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        torch.testing.assert_close(out[:, channel], expected)


def test_each_image_of_a_batch_is_augmented_its_own_way_and_repeatably():
    batch = torch.from_numpy(RAMP / 255).float().expand(6, 1, 64, 64)
    first = augment(batch, generator=torch.Generator().manual_seed(1))
    again = augment(batch, generator=torch.Generator().manual_seed(1))
    other = augment(batch, generator=torch.Generator().manual_seed(2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == batch.shape and first.min() >= 0 and first.max() <= 1
    differences = [(first[i] - first[j]).abs().max() for i in range(6) for j in range(i)]
    assert min(differences) > 0.01


def test_augmentation_moves_an_image_only_a_little_and_flips_about_half():
    batch = torch.from_numpy(RAMP / 255).float().expand(200, 1, 64, 64)
    out = augment(batch, generator=torch.Generator().manual_seed(0))
    rises = out[:, 0, 24:40, 48].mean(dim=1) - out[:, 0, 24:40, 16].mean(dim=1)  # +0.5 unflipped, -0.5 flipped
    assert 70 < int((rises < 0).sum()) < 130
    assert (rises.abs() - 0.5).abs().max() < 0.2
