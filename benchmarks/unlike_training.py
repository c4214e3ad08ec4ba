"""What is marked as unlike the training images: the share of each kind of picture that a run's models mark.

The run must have gone through the test scripts, with the images of its manifest where they were. Prints a table, one
row per kind of picture:

test         the run's own test images: false alarms
mirrored ..  the same, changed
lateral      drawn laterals of the chest; of no interest for a run that was trained on laterals
bones        drawn hands, knees, and teeth
photographs  parts of scikit-learn's and Matplotlib's sample photographs, as gray
noise        fine: of independent pixels at the size that a model sees; coarse: at 512 px, which averaging flattens
black, white faults before any model, shown here as a model would see them
--other      NAME=PATH: further pictures, each a file or a folder, a row per NAME; tags of DICOM that speak against a
             chest radiograph are overlooked

and the share that each model marks, that either does (what predict.py marks) and that both do. --compare prints, below,
what other features and distances find: the mean over places (or over each quarter) of each stage's last maps, with the
Mahalanobis distance or that to the fifth-nearest training image.

Example: python benchmarks/unlike_training.py --run-dir runs/demo --compare
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import matplotlib.cbook
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_sample_images
from sklearn.neighbors import NearestNeighbors
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.artifacts.io import sha256  # noqa: E402
from src.artifacts.likeness_file import read_likeness  # noqa: E402
from src.artifacts.manifest import read_manifest  # noqa: E402
from src.checkpoint import load_best  # noqa: E402
from src.images import dicom  # noqa: E402
from src.images.decode import read_image, resized  # noqa: E402
from src.images.files import find_images  # noqa: E402
from src.models import ARCHITECTURES, ChestNet, FusedInference  # noqa: E402
from src.runtime.tables import format_table  # noqa: E402
from src.stats.likeness import SHARE, Likeness  # noqa: E402
from src.transforms import prepare  # noqa: E402

DRAWN = 100  # pictures of each kind that is made
CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mirrored": lambda images: images.flip(3),
    "inverted": lambda images: 255 - images,
    "turned left": lambda images: images.rot90(1, (2, 3)),
    "turned right": lambda images: images.rot90(-1, (2, 3)),
    "upside down": lambda images: images.flip(2),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=ROOT / "runs/demo")
    parser.add_argument("--images", type=int, default=1000, help="most test images to look at")
    parser.add_argument("--other", nargs="*", default=[], metavar="NAME=PATH")
    parser.add_argument("--compare", action="store_true", help="also try other features and distances")
    arguments = parser.parse_args()
    manifest = read_manifest(arguments.run_dir)
    tests = manifest.part("test").image_paths()[: arguments.images]
    marked: dict[str, dict[str, np.ndarray]] = {}
    compared: dict[str, dict[str, float]] = {}
    for arch in ARCHITECTURES:
        folder = arguments.run_dir / arch
        model, checkpoint = load_best(folder, arch=arch, manifest=manifest)
        side = checkpoint["image_size"]
        likeness = read_likeness(folder, checkpoint_sha256=sha256(folder / "best.pt"))
        if likeness is None:
            raise SystemExit(f"{folder} has no training_features.npz; run its test script with --overwrite")
        kinds = dict(pictures(tests, arguments.other, side=side))
        features = {kind: outputs(model.describing(), images) for kind, images in kinds.items()}
        marked[arch] = {kind: likeness.unlike(found) for kind, found in features.items()}
        if arguments.compare:
            for split in ("train", "val"):
                kinds[split] = read(manifest.part(split).image_paths(), side=side)
            compared |= {f"{arch}, {way}": found for way, found in compare(model, kinds)}
    rows = []
    for kind in marked[arch]:
        each = np.stack([marked[arch][kind] for arch in ARCHITECTURES])
        rows.append((kind, each.shape[1], *each.mean(axis=1), each.any(axis=0).mean(), each.all(axis=0).mean()))
    print(format_table(("Pictures", "Count", *ARCHITECTURES, "either", "both"), rows))
    if compared:
        rows = [(way, *found.values()) for way, found in compared.items()]
        print("\n" + format_table(("Features and distance", *marked[arch]), rows, digits=2))


def pictures(tests: list[Path], other: list[str], *, side: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Each kind of picture and its images, uint8 [N, 1, S, S]."""
    images = read(tests, side=side)
    yield "test", images
    for kind, change in CHANGES.items():
        yield kind, change(images)
    rng = np.random.default_rng(0)
    for kind, draw in (("lateral", lateral), ("bones", bones), ("photographs", photograph)):
        yield kind, torch.stack([resized(torch.from_numpy(draw(rng)), side)[None] for _ in range(DRAWN)])
    for kind, size in (("noise, fine", side), ("noise, coarse", 512)):
        noise = torch.from_numpy(rng.integers(0, 256, (DRAWN, size, size), np.uint8))
        yield kind, torch.stack([resized(one, side)[None] for one in noise])
    for kind, gray in (("black", 0), ("white", 255)):
        yield kind, torch.full((1, 1, side, side), gray, dtype=torch.uint8)
    for name, _, path in (text.partition("=") for text in other):
        with mock.patch.object(dicom, "_why_not_chest", lambda file: ""):
            yield name, read(find_images([Path(path)]), side=side)


def read(paths: list[Path], *, side: int) -> torch.Tensor:
    """Images of files: uint8 [N, 1, S, S]."""
    return torch.stack([read_image(path, size=side) for path in tqdm(list(paths), leave=False)])


@torch.no_grad()
def outputs(network: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    """What a network makes of images: [N, K]."""
    return torch.cat([network(prepare(part, draws=None)) for part in images.split(32)]).numpy()


def compare(model: ChestNet, kinds: dict[str, torch.Tensor]) -> Iterator[tuple[str, dict[str, float]]]:
    """Other features and distances, and the share of each kind that they mark."""
    found = {kind: stage_means(model, images) for kind, images in kinds.items()}
    for stage, means in enumerate(zip(*found.values(), strict=True)):
        features = dict(zip(found, means, strict=True))
        train, val = features.pop("train"), features.pop("val")
        likeness = Likeness.fit(train, val=val)
        name = f"stage {stage // 2 + 1}{', quarters' * (stage % 2)}"
        yield f"{name}, Mahalanobis", {kind: likeness.unlike(values).mean() for kind, values in features.items()}
        neighbors = NearestNeighbors(n_neighbors=5).fit((train - likeness.mean) / likeness.scale)

        def distances(values: np.ndarray, neighbors=neighbors, likeness=likeness) -> np.ndarray:
            return neighbors.kneighbors((values - likeness.mean) / likeness.scale)[0][:, -1]

        limit = np.quantile(distances(val), SHARE, method="higher")
        yield f"{name}, nearest", {kind: (distances(values) > limit).mean() for kind, values in features.items()}


@torch.no_grad()
def stage_means(model: ChestNet, images: torch.Tensor) -> list[np.ndarray]:
    """Per stage, the mean of each map over the image [N, K], and over each quarter of it [N, 4 * K]."""
    stages = [FusedInference([stage]) for stage in model._stages[:-1]]
    parts: list[list[torch.Tensor]] = []
    for part in tqdm(images.split(32), leave=False):
        maps, means = prepare(part, draws=None), []
        for stage in stages:
            maps = stage(maps)
            means += [maps.mean(dim=(2, 3)), F.adaptive_avg_pool2d(maps, 2).flatten(1)]
        parts.append(means)
    return [torch.cat(part).numpy() for part in zip(*parts, strict=True)]


def photograph(rng: np.random.Generator) -> np.ndarray:
    """A square part of a sample photograph, as gray uint8 [H, W]."""
    files = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    photos = [*map(Image.fromarray, load_sample_images().images), Image.open(files)]
    photo = photos[rng.integers(len(photos))].convert("L")
    size = int(rng.integers(min(photo.size) // 3, min(photo.size)))
    left, top = (int(rng.integers(length - size + 1)) for length in photo.size)
    return np.array(photo.crop((left, top, left + size, top + size)))


def lateral(rng: np.random.Generator) -> np.ndarray:
    """A chest from the side: dark lungs before a spine, the heart in front and below, uint8 [390, 320]."""
    x, y = np.meshgrid(np.linspace(-1, 1, 320), np.linspace(-1, 1, 390))
    shift, lean = rng.normal(0, 0.05, 2)
    x = x + shift + lean * y

    def inside(cx: float, cy: float, rx: float, ry: float, soft: float = 0.08) -> np.ndarray:
        distance = np.hypot((x - cx) / (rx * rng.normal(1, 0.06)), (y - cy) / (ry * rng.normal(1, 0.06)))
        return 1 / (1 + np.exp((distance - 1) / soft))

    image = 20 + 150 * inside(0.05, 0.1, 0.8, 1.3)
    image -= rng.normal(85, 8) * inside(0.05, -0.05, 0.55, 0.72)
    image += 60 * inside(-0.28, 0.3, 0.3, 0.3) + 90 * inside(0.05, 0.95, 0.75, 0.4)
    vertebrae = 0.75 + 0.25 * np.sign(np.sin(18 * y + rng.uniform(0, 6)))
    image += 55 * inside(0.62, 0.0, 0.13, 1.2) * vertebrae + 40 * inside(-0.55, -0.1, 0.04, 0.6)
    image += 12 * inside(0.05, -0.05, 0.6, 0.75) * np.sin(14 * y + 6 * x + rng.uniform(0, 6))
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def bones(rng: np.random.Generator) -> np.ndarray:
    """A hand, a knee, or a row of teeth, bright in gray soft tissue on a dark ground: uint8 [390, 320]."""
    flesh, bone = Image.new("L", (320, 390), 8), Image.new("L", (320, 390))
    soft, hard = ImageDraw.Draw(flesh), ImageDraw.Draw(bone)
    kind, jitter = rng.integers(3), lambda: rng.normal(0, 6)
    if kind == 0:
        soft.ellipse((90, 190, 240, 370), fill=70)
        for finger in range(5):
            foot, tip = (115 + 25 * finger, 260), (40 + 60 * finger + jitter(), 30 + 15 * abs(finger - 2) + jitter())
            soft.line((*foot, *tip), fill=70, width=34)
            for start, end in ((0, 0.4), (0.45, 0.7), (0.75, 0.95)):
                ends = [f + at * (t - f) for at in (start, end) for f, t in zip(foot, tip, strict=True)]
                hard.line(ends, fill=150, width=13)
    elif kind == 1:
        soft.rectangle((70 + jitter(), 0, 250 + jitter(), 390), fill=80)
        for top, bottom in ((-10, 180), (200, 400)):
            hard.rectangle((125 + jitter(), top, 195 + jitter(), bottom), fill=110)
        hard.ellipse((95, 130, 225, 190), fill=130)
        hard.ellipse((95, 198, 225, 250), fill=130)
    else:
        soft.rectangle((0, 60, 320, 330), fill=60)
        for tooth in range(9):
            for top in (100 + jitter(), 200 + jitter()):
                hard.rounded_rectangle((8 + 35 * tooth, top, 38 + 35 * tooth, top + 85), radius=12, fill=150)
    total = sum(np.asarray(layer.filter(ImageFilter.GaussianBlur(3)), float) for layer in (flesh, bone))
    return np.clip(total + rng.normal(0, 4, total.shape), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
