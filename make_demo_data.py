"""Stage 0: draw a synthetic data set of chest radiographs in CheXpert's layout.

Reads nothing.
Writes data/demo/: train.csv (what reports say, or the truth with --train-labels truth), valid.csv (the truth), and the
images.

Example: python make_demo_data.py --patients 500 --seed 1
"""

from src.config import DemoConfig, parse
from src.runtime.script import run

DEFAULTS = DemoConfig()


def main(argv: list[str] | None = None) -> None:
    """Draw the data set the arguments describe."""
    config = parse(DEFAULTS, __doc__, argv)
    import numpy as np
    import pandas as pd

    from src.demo.dataset import write_demo
    from src.demo.draw import FINDINGS
    from src.demo.patients import RATES
    from src.labels.eda import count_states, side_by_side
    from src.runtime.tables import format_table

    tables = write_demo(
        config.out,
        patients=config.patients,
        seed=config.seed,
        rates=RATES[config.rates],
        reports=config.train_labels == "reports",
        overwrite=config.overwrite,
    )
    for split, table in tables.items():
        patients = table["Path"].str.split("/").str[2].nunique()
        print(f"{config.out / split}.csv: {len(table):,} images of {patients:,} patients")
    headers = ["Finding", *(f"{split} {state}" for split in tables for state in ("1", "0", "-1", "blank"))]
    labels = pd.concat([table[list(FINDINGS)] for table in tables.values()]).to_numpy(float)
    groups = np.repeat(list(tables), [len(table) for table in tables.values()])
    states = count_states(labels, groups=groups, order=list(tables), classes=FINDINGS, name="split")
    print(format_table(headers, side_by_side(states, order=list(tables)).itertuples(name=None)))


if __name__ == "__main__":
    run(main)
