"""Stage 4: the probabilities and metrics of the best EfficientNet-B1 on val and test.

Reads manifest.csv, the images it names, and efficientnet_b1/best.pt.
Writes efficientnet_b1/ in the run folder: probs_val.csv, probs_test.csv, probs.json, metrics and reliability diagrams.

Example: python test_efficientnet.py --run-dir runs/default
"""

from src.config import ScoreConfig, parse
from src.runtime.script import run

DEFAULTS = ScoreConfig(arch="efficientnet_b1")


def main(argv: list[str] | None = None) -> None:
    """Test as the arguments say."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.stages.test import score

    score(config)


if __name__ == "__main__":
    run(main)
