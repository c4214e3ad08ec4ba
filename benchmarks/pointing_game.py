"""Do the heat maps lie where the lesions are? The pointing game on the demo radiographs, whose lesions are known.

For each image of the demo data's valid folder that shows a finding, Grad-CAM of that finding, brought to the size of
the radiograph. Prints a table, one row per model, least cells of the map and finding:

images   radiographs that show it
peak     share of them whose hottest pixel lies in the drawn region or within --tolerance of it (Zhang et al. 2018)
chance   mean share of the image that is as near: what a random pixel hits
other    the same peaks against the region of the next radiograph that shows the finding: what anatomy alone hits
energy   mean share of the heat that lies in the region itself
share    mean share of the image that the region itself has: the energy of heat that is the same everywhere

Example: python benchmarks/pointing_game.py --run-dir runs/demo --data data/demo
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.checkpoint import load_best  # noqa: E402
from src.heatmaps import grad_cam  # noqa: E402
from src.models import ARCHITECTURES  # noqa: E402
from src.phantom import draw_view, simulate_patient  # noqa: E402
from src.tables import format_table  # noqa: E402
from src.transforms import prepare, read_image  # noqa: E402

FINDINGS = ("Lung Lesion", "Pleural Effusion", "Pneumothorax", "Support Devices", "Cardiomegaly")


def main() -> None:
    """Play the game and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=ROOT / "runs/demo")
    parser.add_argument("--data", type=Path, default=ROOT / "data/demo")
    parser.add_argument("--images", type=int, default=1000, help="most images to look at")
    parser.add_argument("--seed", type=int, default=0, help="seed of the demo data")
    parser.add_argument("--cells", type=int, nargs="+", default=[7, 2], help="least cells on a side of a heat map")
    parser.add_argument("--tolerance", type=float, default=15, help="distance from the region that still counts [px]")
    arguments = parser.parse_args()
    paths = sorted(arguments.data.glob("valid/*/*/*.jpg"))[: arguments.images]
    loaded = {arch: load_best(arguments.run_dir / arch, arch=arch) for arch in ARCHITECTURES}
    nets = {arch: (model.folded(), checkpoint) for arch, (model, checkpoint) in loaded.items()}
    heats, regions = {}, {name: [] for name in FINDINGS}
    for path in tqdm(paths, leave=False):
        drawn = regions_of(path, seed=arguments.seed)
        shown = [name for name in FINDINGS if name in drawn and drawn[name].any()]
        for name in shown:
            regions[name].append(drawn[name])
        for arch, (net, checkpoint) in nets.items():
            image = prepare(read_image(path, size=checkpoint["image_size"])[None], draws=None)
            logits = [checkpoint["classes"].index(name) for name in shown]
            for cells in arguments.cells:
                maps = grad_cam(net.layers, image, logits=logits, cells=cells)
                for name, heat in zip(shown, maps, strict=True):
                    heats.setdefault((arch, cells, name), []).append(heat)
    rows = [
        (*key, len(found), *score(found, regions[key[-1]], tolerance=arguments.tolerance))
        for key, found in sorted(heats.items())
    ]
    headers = ("Model", "Cells", "Finding", "Images", "Peak", "Chance", "Other", "Energy", "Share")
    print(format_table(headers, rows))


def regions_of(path: Path, *, seed: int) -> dict[str, np.ndarray]:
    """Where each finding of a demo image was drawn, bool [H, W]; checks that it is the image of that drawing."""
    patient, study, view = map(int, re.search(r"patient(\d+)/study(\d+)/view(\d+)_", path.as_posix()).groups())
    image, regions = draw_view(simulate_patient(patient, seed=seed), study, view)
    saved = np.asarray(Image.open(path), np.float32)
    if saved.shape != image.shape or np.abs(saved - image).mean() > 4:  # gray values; JPEG changes about 1
        raise SystemExit(f"{path} is not the drawing of seed {seed}; pass the --seed of the demo data")
    return regions


def score(heats: list[torch.Tensor], regions: list[np.ndarray], *, tolerance: float) -> tuple[float, ...]:
    """Peaks inside, chance, peaks inside the next image's region, energy inside, and the region's share: means."""
    near = [distance_transform_edt(~region) <= tolerance for region in regions]
    inside, other, energy = [], [], []
    for at, (heat, region) in enumerate(zip(heats, regions, strict=True)):
        full = torch.nn.functional.interpolate(heat[None, None], region.shape, mode="bilinear")[0, 0].numpy()
        peak = np.divide(np.unravel_index(full.argmax(), full.shape), full.shape)
        inside.append(full.max() > 0 and hits(peak, near[at]))
        other.append(full.max() > 0 and hits(peak, near[(at + 1) % len(near)]))
        energy.append(full[region].sum() / full.sum() if full.max() > 0 else 0.0)
    chance, share = ([area.mean() for area in areas] for areas in (near, regions))
    return tuple(float(np.mean(values)) for values in (inside, chance, other, energy, share))


def hits(peak: np.ndarray, region: np.ndarray) -> bool:
    """Whether a place, as shares of height and width, lies in a region."""
    row, column = (peak * region.shape).astype(int)
    return bool(region[row, column])


if __name__ == "__main__":
    main()
