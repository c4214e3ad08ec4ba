"""Do the heat maps lie where the lesions are? The pointing game on the demo radiographs, whose lesions are known.

For each image of the demo data's valid folder that shows a finding, the heat of that finding, brought to the size of
the radiograph; by the two methods that predict.py uses, one per model, and by LayerCAM, which it does not use. Prints a
table, one row per model, method, fewest cells of the map and finding:

AUROC    how well the model tells the images that show it: heat of a model that cannot tell has nothing to lie on
images   radiographs that show it
peak     share of them whose hottest pixel lies in the drawn region or within --tolerance of it (Zhang et al. 2018)
chance   mean share of the image that is as near: what a random pixel hits
times    peak over chance
other    the same peaks against the region in the next patient who shows the finding: what anatomy alone hits (a
         patient's next radiograph would not do: a finding stays where it is)
energy   mean share of the heat that lies in the region itself
share    mean share of the image that the region itself has: the energy of heat that is the same everywhere

Example: python benchmarks/pointing_game.py --run-dir runs/demo --data data/demo
"""

import argparse
import itertools
import re
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.checkpoint import load_best  # noqa: E402
from src.demo.dataset import draw_view  # noqa: E402
from src.demo.patients import simulate_patient  # noqa: E402
from src.images import heatmaps  # noqa: E402
from src.images.decode import read_image  # noqa: E402
from src.models import ARCHITECTURES  # noqa: E402
from src.runtime.tables import format_table  # noqa: E402
from src.transforms import prepare  # noqa: E402

FINDINGS = ("Lung Lesion", "Pleural Effusion", "Pneumothorax", "Support Devices", "Cardiomegaly")
HEADERS = ("Model", "Method", "Cells", "Finding", "AUROC", "Images", "Peak", "Chance", "Times", "Other", "Energy")
HEADERS += ("Share",)
METHODS = {**heatmaps.METHODS, "layer-cam": torch.relu}  # the last: Jiang et al. 2021


def main() -> None:
    """Play the game and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=ROOT / "runs/demo")
    parser.add_argument("--data", type=Path, default=ROOT / "data/demo")
    parser.add_argument("--arch", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--images", type=int, default=1000, help="most images to look at")
    parser.add_argument("--seed", type=int, default=0, help="seed of the demo data")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--cells", type=int, nargs="+", help="fewest cells on a side of a heat map (default: its own)")
    parser.add_argument("--tolerance", type=float, default=15, help="distance from the region that still counts [px]")
    arguments = parser.parse_args()
    paths = sorted(arguments.data.glob("valid/*/*/*.jpg"))[: arguments.images]
    drawn = [regions_of(path, seed=arguments.seed) for path in paths]
    rows = []
    for arch in arguments.arch:
        model, checkpoint = load_best(arguments.run_dir / arch, arch=arch)
        columns = {name: checkpoint["classes"].index(name) for name in FINDINGS}
        layers, side = model.folded().layers, checkpoint["image_size"]
        images = [prepare(read_image(path, size=side)[None], draws=None) for path in paths]
        with torch.no_grad():
            logits = torch.cat([layers(image.clone()) for image in tqdm(images, desc=arch, leave=False)]).numpy()
        least = arguments.cells or [heatmaps.best_heat(arch, side)[1]]
        for method, cells in itertools.product(arguments.methods, least):
            heats = heats_of(layers, images, drawn, columns, weigh=METHODS[method], cells=cells)
            for name, column in columns.items():
                shown = np.array([name in regions for regions in drawn])
                ability = roc_auc_score(shown, logits[:, column])
                regions = [places[name] for places in drawn if name in places]
                patients = [path.parts[-3] for path, places in zip(paths, drawn, strict=True) if name in places]
                found = score(heats[name], regions, patients, side=side, tolerance=arguments.tolerance)
                rows.append((arch, method, len(heats[name][0]), name, ability, len(regions), *found))
    print(format_table(HEADERS, rows))


def heats_of(
    layers: torch.nn.Sequential, images: list[torch.Tensor], drawn: list[dict], columns: dict[str, int], **options
) -> dict[str, list[torch.Tensor]]:
    """The heat of each finding in each image that shows it, [h, w], in the order of the images."""
    heats = {name: [] for name in columns}
    for image, regions in zip(tqdm(images, leave=False), drawn, strict=True):
        shown = [name for name in columns if name in regions]
        maps = heatmaps.class_heat(layers, image, logits=[columns[name] for name in shown], **options)
        for name, heat in zip(shown, maps, strict=True):
            heats[name].append(heat)
    return heats


def regions_of(path: Path, *, seed: int) -> dict[str, np.ndarray]:
    """Where each finding of a demo image was drawn, bool [H, W]; checks that it is the image of that drawing."""
    patient, study, view = map(int, re.search(r"patient(\d+)/study(\d+)/view(\d+)_", path.as_posix()).groups())
    image, regions = draw_view(simulate_patient(patient, seed=seed), study, view)
    saved = np.asarray(Image.open(path), np.float32)
    if saved.shape != image.shape or np.abs(saved - image).mean() > 4:  # gray values; JPEG changes about 1
        raise SystemExit(f"{path} is not the drawing of seed {seed}; pass the --seed of the demo data")
    return {name: region for name, region in regions.items() if name in FINDINGS and region.any()}


def score(
    heats: list[torch.Tensor], regions: list[np.ndarray], patients: list[str], *, side: int, tolerance: float
) -> tuple[float, float, float, float, float, float]:
    """Peaks inside, chance, their ratio, peaks inside the next patient's region, energy inside, the region's share."""
    near = [distance_transform_edt(~region) <= tolerance for region in regions]
    inside, other, energy = [], [], []
    for at, (heat, region) in enumerate(zip(heats, regions, strict=True)):
        full = heatmaps.enlarged(heat, region.shape, side=side)
        peak = np.divide(np.unravel_index(full.argmax(), full.shape), full.shape)
        later = (*range(at + 1, len(near)), *range(at))
        next_patient = next(i for i in later if patients[i] != patients[at])
        inside.append(full.max() > 0 and hits(peak, near[at]))
        other.append(full.max() > 0 and hits(peak, near[next_patient]))
        energy.append(full[region].sum() / full.sum() if full.max() > 0 else 0.0)
    chance, share = (float(np.mean([area.mean() for area in areas])) for areas in (near, regions))
    peaks = float(np.mean(inside))
    return peaks, chance, peaks / chance, float(np.mean(other)), float(np.mean(energy)), share


def hits(peak: np.ndarray, region: np.ndarray) -> bool:
    """Whether a place, as shares of height and width, lies in a region."""
    row, column = (peak * region.shape).astype(int)
    return bool(region[row, column])


if __name__ == "__main__":
    main()
