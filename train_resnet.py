"""Stage 3: fine-tune ResNet50 on the training split, by masked BCE.

Reads manifest.csv and the images it names.
Writes resnet50/: config.json, best.pt, last.pt, history.csv, and curves.

Example: python train_resnet.py --unfreeze-from layer4
"""

from src.config import ResNetConfig, parse
from src.runtime.script import run

DEFAULTS = ResNetConfig()


def main(argv: list[str] | None = None) -> None:
    """Train as the arguments say."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.stages.train import train

    train(config)


if __name__ == "__main__":
    run(main)
