"""How often CheXpert's reports label each finding, what "No Finding" says, and whether the demo draws the same.

Prints Markdown tables:

rates      per finding, the share of the training rows labeled 1, 0 and -1, of the rows marked "No Finding" the share
           labeled 0, and the same of reports simulated as make_demo_data.py --rates chexpert simulates them
marks      the share of the rows without a positive or uncertain finding ("clear"), and how many of them are marked
blanks     with --reports and --truth: the share of blanks and of labels 0 that are positive in truth, in reports that
           are marked and in the others, over all findings but Support Devices; 95% intervals with studies as clusters

Example: python benchmarks/label_rates.py --labels CheXpert-v1.0-small/train.csv --reports reports.csv --truth truth.csv
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.demo import patients as simulated
from src.demo.draw import FINDINGS
from src.demo.patients import DEVICES, RATES, simulate_patient
from src.stats.intervals import clustered_share, share_interval

MARK = "No Finding"
OTHERS = [name for name in FINDINGS if name != DEVICES]


def simulate(patients):
    """Reports and truth of simulated studies, as tables with a row per study."""
    simulated.random_anatomy = lambda rng, **_: None  # nothing is drawn here, and it takes most of the time
    studies = [s for n in range(patients) for s in simulate_patient(n, seed=0, rates=RATES["chexpert"]).studies]
    reports = pd.DataFrame([study.report for study in studies])
    reports[MARK] = [1.0 if study.no_finding else np.nan for study in studies]
    return reports, pd.DataFrame([study.truth for study in studies])


def print_rates(chexpert, demo):
    """The table of rates, then that of marks."""
    heads = [f"{whose} {state}" for whose in ("CheXpert", "demo") for state in ("1", "0", "-1", f"0 in {MARK}")]
    print(f"| finding | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name in FINDINGS:
        cells = []
        for table in (chexpert, demo):
            marked = table.loc[table[MARK] == 1, name]
            cells += [(table[name] == state).mean() for state in (1, 0, -1)] + [(marked == 0).mean()]
        print(f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    print("\n| | rows | clear | marked | marked, of the clear | device among the marked |\n|---|---|---|---|---|---|")
    for whose, table in (("CheXpert", chexpert), ("demo", demo)):
        marked, clear = table[MARK] == 1, ~table[OTHERS].isin([1, -1]).any(axis=1)
        shares = (clear.mean(), marked.mean(), marked[clear].mean(), (table.loc[marked, DEVICES] == 1).mean())
        print(f"| {whose} | {len(table):,} | {' | '.join(f'{share:.3f}' for share in shares)} |")


def print_blanks(reports, truth, whose):
    """How often what a report does not say, or denies, is there."""
    marked = (reports[MARK] == 1).to_numpy()[:, None]
    labels, present = reports[OTHERS].to_numpy(), truth[OTHERS].to_numpy() == 1
    studies = np.broadcast_to(np.arange(len(labels))[:, None], labels.shape)
    for said, where in (("blank", np.isnan(labels)), ("0", labels == 0)):
        for kind, rows in (("marked", marked), ("other", ~marked)):
            chosen = where & rows
            share = clustered_share(present[chosen], patients=studies[chosen])
            low, high = share_interval(share)
            print(f"| {whose} | {said} | {kind} | {chosen.sum():,} | {share.value:.1%} [{low:.1%}, {high:.1%}] |")


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="CheXpert's train.csv")
    parser.add_argument("--reports", type=Path, help="labels of reports, by study")
    parser.add_argument("--truth", type=Path, help="radiologists' labels of the same studies")
    parser.add_argument("--patients", type=int, default=8000, help="patients to simulate")
    arguments = parser.parse_args()
    reports, truth = simulate(arguments.patients)
    print_rates(pd.read_csv(arguments.labels), reports)
    if arguments.reports and arguments.truth:
        print("\n| studies | label | reports | labels | positive in truth |\n|---|---|---|---|---|")
        theirs = pd.read_csv(arguments.truth, index_col=0)
        print_blanks(pd.read_csv(arguments.reports, index_col=0).loc[theirs.index], theirs, "CheXpert's test")
        print_blanks(reports, truth, "demo")


if __name__ == "__main__":
    main()
