"""Stage 2: what the labels say, per class, split, view, sex, age and study.

Reads manifest.csv and context.csv of the run.
Writes eda/ in the run folder: a CSV per table, and PNGs, of which overview.png shows all on one page.

Example: python eda_labels.py --run-dir runs/chexpert
"""

from src.config import EdaConfig, parse
from src.runtime.script import run

DEFAULTS = EdaConfig()


def main(argv: list[str] | None = None) -> None:
    """Describe the labels of the run the arguments name."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.stages.eda import describe

    describe(config)


if __name__ == "__main__":
    run(main)
