"""After the stages: what the ensemble says of new radiographs, with the findings it flags.

Reads a run folder as stage 6 left it and images: JPEG, PNG (8 or 16 bit) and, with requirements-dicom.txt installed,
DICOM. Of a folder, all images in it and below are taken, except hidden ones.
Writes predictions.csv, or --out: per image and finding the probability and whether it is flagged; where the thresholds
are of studies, predictions_studies.csv: the same per study, which is what the thresholds decide on (--study says which
images are one); predictions.csv.json, what made them; with --heatmaps, a picture per flagged finding and model.
Exit status 1 says that some images could not be read; their rows say why. Not for clinical use.

Example: python predict.py --run-dir runs/default --recall 0.85 --study folder data/demo/valid --out predictions.csv
"""

from src.config import PredictConfig, parse
from src.runtime.script import run

DEFAULTS = PredictConfig()


def main(argv: list[str] | None = None) -> int:
    """Predict as the arguments say; returns the exit status."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.stages.predict import predict_images

    return predict_images(config)


if __name__ == "__main__":
    run(main)
