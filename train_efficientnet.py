"""Stage 3: fine-tune EfficientNet-B1 on the training split, by masked BCE.

Reads manifest.csv and the images it names.
Writes efficientnet_b1/: config.json, best.pt, last.pt, history.csv, and curves.

Example: python train_efficientnet.py --unfreeze-last-n-blocks 2
"""

from src.config import EfficientNetConfig, parse
from src.runtime.script import run

DEFAULTS = EfficientNetConfig()


def main(argv: list[str] | None = None) -> None:
    """Train as the arguments say."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.stages.train import train

    train(config)


if __name__ == "__main__":
    run(main)
