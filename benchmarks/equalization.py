"""How much equalized histograms matter: a model trained on plain images and one on equalized, each asked about both.

MIMIC-CXR-JPG's images are histogram-equalized, DICOM files are not. --write FOLDER makes, of a run's manifest, the run
folder FOLDER whose images are equalized as MIMIC-CXR-JPG's are, at full size and as JPEG of quality 95. Train a model
there by the script and flags of the run, then pass both runs. Prints a table, one row per run and kind of image asked:

AUROC, AUPRC     macro, on the test images one by one
flags            share of the flags (images times findings), at the thresholds that reach recall 0.85 on the validation
                 images of the run's own kind
changed          share of the flags that are other than those of the run's own kind of image
recall           of the positives of test, mean over findings
marked           share of the images that are marked as unlike the training images

Example: python benchmarks/equalization.py --run-dir runs/demo --write runs/demo_equalized
         python train_resnet.py --run-dir runs/demo_equalized ...
         python benchmarks/equalization.py --run-dir runs/demo runs/demo_equalized
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.artifacts.manifest import Manifest, read_manifest  # noqa: E402
from src.checkpoint import load_best  # noqa: E402
from src.evaluate import masked_metrics  # noqa: E402
from src.images.decode import read_image  # noqa: E402
from src.images.pixels import equalized, gray_pixels  # noqa: E402
from src.models import ARCHITECTURES  # noqa: E402
from src.runtime.tables import format_table  # noqa: E402
from src.stats.likeness import Likeness  # noqa: E402
from src.transforms import prepare  # noqa: E402

FULL = 10**6  # [px] larger than any image, so that none is decoded at a reduced scale
RECALL = 0.85
HEADERS = ("Trained on", "Asked about", "AUROC", "AUPRC", "Flags", "Changed", "Recall", "Marked")


def main() -> None:
    """Write a run folder of equalized images, or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, nargs="+", required=True, help="the run; to measure, and the equalized")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="run folder to make")
    parser.add_argument("--arch", choices=ARCHITECTURES, default="resnet50")
    arguments = parser.parse_args()
    if arguments.write:
        write_equalized(arguments.run_dir[0], arguments.write)
        return
    plain, other = map(read_manifest, arguments.run_dir)
    rows = []
    for run_dir, trained_on in zip(arguments.run_dir, ("plain", "equalized"), strict=True):
        model, checkpoint = load_best(run_dir / arguments.arch, arch=arguments.arch)
        rows += measure(model, trained_on, {"plain": plain, "equalized": other}, side=checkpoint["image_size"])
    print(format_table(HEADERS, rows))


def write_equalized(run_dir: Path, folder: Path) -> None:
    """A run folder with the manifest of another and equalized images."""
    manifest = read_manifest(run_dir)
    for name, path in zip(tqdm(manifest.table["image_id"]), manifest.image_paths(), strict=True):
        target = folder / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        gray = equalized(gray_pixels(path, path.read_bytes(), size=FULL))
        Image.fromarray(gray).save(target, format="JPEG", quality=95)
    for name in ("manifest.csv", "context.csv"):
        (folder / name).write_bytes((run_dir / name).read_bytes())
    meta = json.loads((run_dir / "manifest.json").read_text()) | {"image_root": str((folder / "images").resolve())}
    (folder / "manifest.json").write_text(json.dumps(meta, indent=2))


def measure(model: torch.nn.Module, own: str, manifests: dict[str, Manifest], *, side: int) -> list[tuple]:
    """The rows of a model that was trained on its own kind of image."""
    train, val = (outputs(model.describing(), manifests[own].part(split), side) for split in ("train", "val"))
    likeness = Likeness.fit(train, val=val)
    labels = manifests[own].part("val").labels()
    thresholds = thresholds_of(outputs(model.folded(), manifests[own].part("val"), side), labels)
    asked = {kind: (manifest.part("test"), False) for kind, manifest in manifests.items()}
    asked["plain, --equalize"] = (manifests["plain"].part("test"), True)
    asked = {own: asked.pop(own)} | asked
    rows, before = [], None
    for kind, (part, equalize) in asked.items():
        logits = outputs(model.folded(), part, side, equalize=equalize)
        marked = likeness.unlike(outputs(model.describing(), part, side, equalize=equalize)).mean()
        labels, flags = part.labels(), logits >= thresholds
        before = flags if before is None else before
        mask = np.isin(labels, (0, 1))
        probs = 1 / (1 + np.exp(-logits.astype(np.float64)))
        macro = masked_metrics(probs, targets=np.where(mask, labels, 0), mask=mask, classes=part.classes)["macro"]
        recall = np.mean([flags[labels[:, c] == 1, c].mean() for c in range(labels.shape[1])])
        changed = (flags != before).mean()
        rows.append((own, kind, macro["auroc"], macro["auprc"], flags.mean(), changed, recall, marked))
    return rows


@torch.no_grad()
def outputs(network: torch.nn.Module, part: Manifest, side: int, *, equalize: bool = False) -> np.ndarray:
    """What a network makes of the images of a split: [N, K]."""
    paths, found = part.image_paths(), []
    for start in tqdm(range(0, len(paths), 32), leave=False):
        images = [read_image(path, size=side, equalize=equalize) for path in paths[start : start + 32]]
        found.append(network(prepare(torch.stack(images), draws=None)))
    return torch.cat(found).numpy()


def thresholds_of(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The highest threshold per finding that reaches the recall: [C]."""
    positives = (logits[labels[:, c] == 1, c] for c in range(labels.shape[1]))
    return np.array([np.quantile(scores, 1 - RECALL, method="lower") for scores in positives])


if __name__ == "__main__":
    main()
