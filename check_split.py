"""Stage 1: read a data set's labels, split it by patient, and check that the split is sound.

Reads a data set: CheXpert, CheXpert Plus, MIMIC-CXR-JPG, NIH ChestX-ray14, PadChest, BRAX, VinDr-CXR, or a CSV of your
own.
Writes manifest.csv, manifest.json and context.csv in the run folder. Exits with status 1 if a check fails.

Example: python check_split.py --data data/demo --run-dir runs/default
"""

from src.config import SplitConfig, parse
from src.runtime.script import run

DEFAULTS = SplitConfig()


def main(argv: list[str] | None = None) -> int:
    """Check the split the arguments describe."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.stages.split import check_split

    return check_split(config)


if __name__ == "__main__":
    run(main)
