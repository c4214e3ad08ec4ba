"""After the stages: one row per run and model, what changed from the previous run, and the best scores.

Reads config.json and history.csv of each model in the run folders. Writes nothing.

Example: python tuning_log.py runs/layer4 runs/layer3
"""

from src.config import LogConfig, parse
from src.runtime.script import run

DEFAULTS = LogConfig()


def main(argv: list[str] | None = None) -> None:
    """Print the log of the run folders in the arguments."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.stages.tuning_log import tuning_log

    print(tuning_log(config.runs))


if __name__ == "__main__":
    run(main)
