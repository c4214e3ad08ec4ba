"""Stage 0: draw a synthetic data set of chest radiographs in CheXpert's layout.

Reads nothing.
Writes data/demo/: train.csv (what reports say), valid.csv (the truth), and the images.

Example: python make_demo_data.py --patients 500 --seed 1
"""

from src.config import DemoConfig, parse
from src.runtime.script import run

DEFAULTS = DemoConfig()


def main(argv: list[str] | None = None) -> None:
    """Draw the data set the arguments describe."""
    config = parse(DEFAULTS, __doc__, argv)
    from src.demo.dataset import count_labels, write_demo
    from src.runtime.tables import format_table

    tables = write_demo(config.out, patients=config.patients, seed=config.seed, overwrite=config.overwrite)
    for split, table in tables.items():
        patients = table["Path"].str.split("/").str[2].nunique()
        print(f"{config.out / split}.csv: {len(table):,} images of {patients:,} patients")
    headers = ["Finding", *(f"{split} {state}" for split in tables for state in ("1", "0", "-1", "blank"))]
    print(format_table(headers, count_labels(tables).itertuples(name=None)))


if __name__ == "__main__":
    run(main)
