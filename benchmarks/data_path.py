"""What it takes to get radiographs from disk to a normalized batch, float32 [B, 3, 224, 224], against a plain loop.

plain loop     Pillow's convert("RGB"); per image torchvision's Resize, RandomHorizontalFlip, RandomAffine, ColorJitter,
               ToTensor, Normalize; stacked
first pass     src/images/decode.py: read_image of every file, then prepare on the batch
from cache     src/images/cache.py: read of a filled cache, then prepare on the batch

Makes gray JPEGs of CheXpert-small's and of MIMIC-CXR-JPG's size from the radiographs in --images, in a temporary
folder, and loads them on one core: one thread, no workers, files in the system's cache. The plain loop and ours take
turns in every repeat; the table has the medians over the repeats, of the times and of the ratios within a repeat.

Example: python benchmarks/data_path.py --images data/nih/images
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as tv
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.images.cache import open_cache
from src.images.decode import read_image
from src.transforms import IMAGENET_MEAN, IMAGENET_STD, draw_augmentation, prepare

SIDE = 224
SIZES = {"CheXpert-small": (390, 320), "MIMIC-CXR-JPG": (2544, 3056)}  # width, height


def make_jpegs(images, folder, *, size, quality):
    """The images at another size, as gray JPEGs."""
    folder.mkdir()
    paths = []
    for number, path in enumerate(images):
        paths.append(folder / f"{number}.jpg")
        with Image.open(path) as image:
            image.convert("L").resize(size, Image.Resampling.LANCZOS).save(paths[-1], quality=quality)
    return paths


def plain_loop(*, augmented):
    """A function from paths to a batch, as training scripts of this field have it."""
    moves = [
        tv.RandomHorizontalFlip(),
        tv.RandomAffine(10, translate=(0.05, 0.05), scale=(0.9, 1.1)),
        tv.ColorJitter(brightness=0.1, contrast=0.2),
    ]
    steps = [tv.Resize((SIDE, SIDE)), *(moves if augmented else []), tv.ToTensor()]
    transform = tv.Compose([*steps, tv.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    return lambda paths: torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])


def first_pass(*, augmented):
    generator = torch.Generator().manual_seed(0)

    def load(paths):
        images = torch.empty(len(paths), 1, SIDE, SIDE, dtype=torch.uint8)
        for row, path in enumerate(paths):
            images[row] = read_image(path, size=SIDE)
        return prepare(images, draws=draw_augmentation(len(paths), generator=generator) if augmented else None)

    return load


def from_cache(cached, *, augmented):
    generator = torch.Generator().manual_seed(0)

    def load(paths):
        images, _ = cached.read(range(len(paths)))
        draws = draw_augmentation(len(paths), generator=generator) if augmented else None
        return prepare(torch.from_numpy(images), draws=draws)

    return load


def measure(loaders, paths, *, repeats):
    """Milliseconds per image of each loader, [repeats]; they take turns."""
    times = {name: [] for name in loaders}
    for name, load in loaders.items():
        out = load(paths)
        assert out.shape == (len(paths), 3, SIDE, SIDE) and out.dtype == torch.float32, name
    for _ in tqdm(range(repeats), leave=False):
        for name, load in loaders.items():
            start = time.perf_counter()
            load(paths)
            times[name].append((time.perf_counter() - start) * 1e3 / len(paths))
    return {name: np.array(each) for name, each in times.items()}


def difference(paths):
    """Mean absolute difference of read_image from Pillow's full decode and antialiased bilinear resize, of 255."""
    means = []
    for path in paths:
        with Image.open(path) as image:
            full = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float64)
        means.append(np.abs(read_image(path, size=SIDE)[0].numpy() - full).mean())
    return statistics.mean(means)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder of radiographs, PNG or JPEG")
    parser.add_argument("--count", type=int, default=24, help="radiographs taken from it: a batch")
    parser.add_argument("--quality", type=int, default=92, help="of the JPEGs made from them")
    parser.add_argument("--repeats", type=int, default=30, help="batches of small images; of large, a third")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not images:
        parser.error(f"no PNG or JPEG in {options.images}")
    print("| images | augmentation | ours | plain loop, ms | ours, ms | times faster |\n|---|---|---|---|---|---|")
    notes = []
    with tempfile.TemporaryDirectory() as temporary:
        for name, size in SIZES.items():
            paths = make_jpegs(images[: options.count], Path(temporary) / name, size=size, quality=options.quality)
            cached = open_cache(Path(temporary) / "cache", paths, size=SIDE, workers=1)
            for augmented in (False, True):
                plain = plain_loop(augmented=augmented)
                ours = {
                    "first pass": first_pass(augmented=augmented),
                    "from cache": from_cache(cached, augmented=augmented),
                }
                repeats = options.repeats if max(size) < 1000 else max(options.repeats // 3, 3)
                times = measure({"plain": plain, **ours}, paths, repeats=repeats)
                for way in ours:
                    plain_ms, ours_ms = np.median(times["plain"]), np.median(times[way])
                    cells = f"{name} | {'yes' if augmented else 'no'} | {way} | {plain_ms:.2f} | {ours_ms:.3f}"
                    print(f"| {cells} | {np.median(times['plain'] / times[way]):.2f} |", flush=True)
            kilobytes = statistics.mean(path.stat().st_size for path in paths) / 1e3
            notes.append(
                f"{name}: {len(paths)} JPEGs of {size[0]} x {size[1]}, quality {options.quality}, {kilobytes:.0f} kB; "
                f"read_image differs from the full decode by {difference(paths):.2f} of 255 on average"
            )
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
