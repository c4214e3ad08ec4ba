"""Stage 6: per finding, the threshold that keeps recall on the next study above a target, and what it costs.

Reads manifest.csv and ensemble/probs_val.csv and probs_test.csv, or files from another program
(--val-probs, --val-labels).
Writes ensemble/ in the run folder: a table and two pictures per recall target, and thresholds.json; with --subgroups
and --readers, their tables and pictures.

Example: python ensemble_threshold_search.py --run-dir runs/default --recall 0.85 0.90
"""

from src.config import ThresholdConfig, parse
from src.runtime.script import run

DEFAULTS = ThresholdConfig()


def main(argv: list[str] | None = None) -> None:
    """Choose thresholds as the arguments say."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.stages.thresholds import search_thresholds

    search_thresholds(config)


if __name__ == "__main__":
    run(main)
