"""Before stage 3: try learning rates, weight decays, unfreezing, losses and sampling, and print the best command.

Reads manifest.csv and the images it names. Needs Optuna (requirements-tune.txt).
Writes tuning/ in the run folder: the study, and a run folder for each trial, which tuning_log.py reads.

Example: python tune.py --arch resnet50 --trials 20 --run-dir runs/tune
"""

from src.config import TuneConfig, parse
from src.runtime.script import run

DEFAULTS = TuneConfig()


def main(argv: list[str] | None = None) -> None:
    """Tune as the arguments say."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.stages.tune import tune

    tune(config)


if __name__ == "__main__":
    run(main)
