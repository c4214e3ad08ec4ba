"""After the stages: what the ensemble says about new radiographs, with the findings it flags.

Reads a run folder that has gone through stage 6, and images: JPEG, PNG (8 or 16 bit) and, with requirements-dicom.txt
installed, DICOM. Folders are searched recursively; hidden files are skipped.
Writes predictions.csv, or --out: per image and finding the probability and whether it is flagged; if the thresholds are
for studies, predictions_studies.csv: the same per study, on which the thresholds decide (--study says which images form
a study); predictions.csv.json: how both were made; with --heatmaps, a picture per flagged finding and model.
Exits with status 1 if some images could not be read; their rows say why. Not for clinical use.

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
