"""The run as one page: learning curves, metrics, calibration, and the thresholds to explore at any recall target.

Reads the files of the stages; ensemble_threshold_search.py must have run, and stages that have not run are left out.
Writes report.html in the run folder: one file that needs no network and can be mailed.

Example: python report.py --run-dir runs/default
"""

from src.config import ReportConfig, parse
from src.runtime.script import run

DEFAULTS = ReportConfig()


def main(argv: list[str] | None = None) -> None:
    """Write the page as the arguments say."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.stages.report import write_report

    write_report(config)


if __name__ == "__main__":
    run(main)
