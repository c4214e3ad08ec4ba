"""Stage 4: the probabilities and metrics of the best ResNet50 on val and test.

Reads manifest.csv, the images it names, and resnet50/best.pt.
Writes resnet50/ in the run folder: probs_val.csv, probs_test.csv, probs.json, metrics and reliability diagrams.

Example: python test_resnet.py --run-dir runs/default
"""

from src.config import ScoreConfig, parse
from src.runtime.script import run

DEFAULTS = ScoreConfig(arch="resnet50")


def main(argv: list[str] | None = None) -> None:
    """Test as the arguments say."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.stages.test import score

    score(config)


if __name__ == "__main__":
    run(main)
