"""How much a few bright pixels change the probabilities of a radiograph of 12 bits.

    python benchmarks/bright_pixels.py --run-dir runs/demo --images FOLDER

Each image of 8 bits becomes a 16-bit PNG of 12 bits. In its corner, a square is K times as bright as its brightest
pixel: one hot pixel, or a burnt-in marker of a share of the pixels, sharp or blurred (a Gaussian of 1 px). Printed is
the largest difference in the probability of any finding, over all images, from that of the same image with K = 1.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from awkward_files import predicted
from PIL import Image
from scipy.ndimage import gaussian_filter

TIMES = (1.05, 1.2, 1.3, 1.5, 2, 4, 16)
MARKS = {"one pixel": (0, 0), "0.1%": (0.001, 0), "1%": (0.01, 0), "3%": (0.03, 0), "1%, blurred": (0.01, 1)}


def deep(path):
    """An image as uint16 [H, W] of 12 bits, with noise in the bits that 8 bits do not have."""
    gray = np.asarray(Image.open(path).convert("L"), np.uint16)
    return gray * 16 + np.random.default_rng(0).integers(0, 16, gray.shape, dtype=np.uint16)


def write(folder, path, share, blur):
    """Save an image with a square of a share of its pixels at each brightness; returns the names, of K = 1 first."""
    values = deep(path)
    side = max(1, round((share * values.size) ** 0.5))
    mark = np.zeros(values.shape)
    mark[20 : 20 + side, 20 : 20 + side] = 1
    mark = gaussian_filter(mark, blur)
    names = [f"{path.stem}_{times}.png" for times in (1, *TIMES)]
    for times, name in zip((1, *TIMES), names, strict=True):
        bright = (1 - mark) * values + mark * min(65535, times * int(values.max()))
        Image.fromarray(np.rint(bright).astype(np.uint16)).save(folder / name, compress_level=1)
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True, help="a finished run, whose models predict")
    parser.add_argument("--images", type=Path, required=True, help="a folder of radiographs as 8-bit PNG")
    options = parser.parse_args()
    print("| bright | " + " | ".join(f"K = {times:g}" for times in TIMES) + " |\n|---|" + "---|" * len(TIMES))
    for what, (share, blur) in MARKS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "files")
            folder.mkdir()
            groups = [write(folder, path, share, blur) for path in sorted(options.images.glob("*.png"))]
            names = [name for group in groups for name in group]
            probs = predicted(folder, names, options.run_dir.resolve(), Path(temporary))
        table = np.array([[probs[name] for name in group] for group in groups])  # [images, K, C]
        moved = np.abs(table[:, 1:] - table[:, :1]).max((0, 2))
        print(f"| {what} | " + " | ".join(f"{value:.3f}" for value in moved) + " |", flush=True)


if __name__ == "__main__":
    main()
