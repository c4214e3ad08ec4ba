"""Stage 5: blend the two models, with the weight chosen on validation alone.

Reads manifest.csv and both models' probs_val.csv and probs_test.csv, or files from another program
(--members, --labels).
Writes ensemble/ in the run folder: alpha_search.csv, alpha_search.png, alpha.json, probs_val.csv, probs_test.csv,
probs.json and metrics_test.json.

Example: python ensemble_alpha_search.py --run-dir runs/default --step 0.1
"""

from src.config import AlphaConfig, parse
from src.runtime.script import run

DEFAULTS = AlphaConfig()


def main(argv: list[str] | None = None) -> None:
    """Blend as the arguments say."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.stages.blend import search_alpha

    search_alpha(config)


if __name__ == "__main__":
    run(main)
