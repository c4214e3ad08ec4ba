"""Stage 2: what the labels of a manifest say, as tables and pictures."""

from pathlib import Path

import numpy as np
import pandas as pd

from src.artifacts.io import refuse_overwrite, write_table
from src.artifacts.manifest import Manifest
from src.config import EdaConfig
from src.labels import eda
from src.labels.files import SPLITS
from src.labels.policy import said_absent
from src.plots import labels as plots_labels
from src.runtime.locks import exclusive
from src.runtime.tables import format_table, plural
from src.stages.opening import open_manifest

TABLES = (
    "label_states",
    "prevalence",
    "cooccurrence",
    "findings_per_image",
    "rates_by_view",
    "by_sex",
    "by_age",
    "study_changes",
    "pairs",
)
PICTURES = ("label_states", "prevalence", "cooccurrence", "findings_per_image")
PREVALENCES = {"prevalence": "", "prevalence_no_finding_0": ', "No Finding"=0', "prevalence_blank_0": ", blank=0"}
SHOWN = 10  # pairs of findings printed


def describe(config: EdaConfig) -> None:
    """Write eda/*.csv and eda/*.png of a run's manifest, and print what matters most."""
    manifest = open_manifest(config.run_dir)
    folder = config.run_dir / "eda"
    outputs = [folder / f"{name}.csv" for name in TABLES] + [folder / f"{name}.png" for name in (*PICTURES, "overview")]
    refuse_overwrite(outputs, overwrite=config.overwrite)
    tables = _tables(manifest)
    with exclusive(folder):
        written = _write(tables, outputs, title=f"{manifest.meta['dataset']}: labels of {_size(manifest)}")
    _print(manifest, tables)
    print(f"\nwrote to {folder}:", *(path.name for path in written))


def _write(tables: dict[str, pd.DataFrame], outputs: list[Path], *, title: str) -> list[Path]:
    """Write the tables and their pictures, remove what is of an earlier data set, and return what was written."""
    folder, written = outputs[0].parent, []
    for name, table in tables.items():
        written.append(folder / f"{name}.csv")
        write_table(written[-1], table)
    for name in PICTURES:
        written.append(getattr(plots_labels, name)(tables[name], path=folder / f"{name}.png"))
    written.append(plots_labels.overview(tables, path=folder / "overview.png", title=title))
    for path in set(outputs) - set(written):  # of an earlier data set that had sex or age
        path.unlink(missing_ok=True)
    return written


def _tables(manifest: Manifest) -> dict[str, pd.DataFrame]:
    """Every table of the stage by the name of its CSV; without by_sex and by_age where no image has one."""
    table, context, classes, labels = manifest.table, manifest.context, manifest.classes, manifest.labels()
    split, view = table["split"].to_numpy(), np.where(table["view"] == "", "unknown", table["view"])
    ages = eda.age_bands(context["age"].to_numpy(np.float64))
    patients, order = table["patient_id"].to_numpy(), context["study_order"].to_numpy()

    def by(name: str, groups: np.ndarray, values: tuple[str, ...]) -> pd.DataFrame:
        return eda.count_states(labels, groups=groups, order=values, classes=classes, name=name)

    states = by("split", split, (eda.ALL, *SPLITS))
    tables = {
        "label_states": states,
        "prevalence": eda.with_rates(states),
        "cooccurrence": eda.cooccurrence(labels, classes=classes),
        "findings_per_image": eda.findings_per_image(labels, groups=split, order=(eda.ALL, *SPLITS)),
        "rates_by_view": eda.with_rates(by("view", view, ("frontal", "lateral", "unknown"))),
        "by_sex": eda.with_rates(by("sex", context["sex"].to_numpy(), ("F", "M"))),
        "by_age": eda.with_rates(by("age", ages, eda.AGE_BANDS)),
        "study_changes": eda.study_changes(labels, patients=patients, study_order=order, classes=classes),
        "pairs": eda.pairs(labels, patients=patients, study_order=order, classes=classes),
    }
    said = said_absent(labels, context["no_finding"].to_numpy() == 1, classes=classes)
    if said.any():
        labels = np.where(said, 0.0, labels)
        rates = eda.with_rates(by("split", split, (eda.ALL, *SPLITS)))
        tables["prevalence"]["prevalence_no_finding_0"] = rates["prevalence"]
    return {name: table for name, table in tables.items() if len(table) or name not in ("by_sex", "by_age")}


def _size(manifest: Manifest) -> str:
    patients = manifest.table["patient_id"].nunique()
    return f"{plural(len(manifest.table), 'image')} of {plural(patients, 'patient')}"


def _print(manifest: Manifest, tables: dict[str, pd.DataFrame]) -> None:
    print(f"{_size(manifest)}, {plural(len(manifest.classes), 'finding')}\n\nLabel states, images")
    states = tables["label_states"]
    counts = states.loc[states["split"] == eda.ALL, ["class", *eda.STATES]]
    print(format_table(("Class", "1", "0", "-1", "blank"), counts.itertuples(index=False)))
    _print_prevalence(tables["prevalence"], manifest.classes)
    _print_pairs(tables["pairs"])


def _print_prevalence(rates: pd.DataFrame, classes: tuple[str, ...]) -> None:
    splits = [split for split in SPLITS if (rates["split"] == split).any()]
    shown = [name for name in PREVALENCES if name in rates]
    columns = [(name, split) for name in shown for split in splits]
    wide = rates.pivot(index="class", columns="split", values=shown)
    print("\nPrevalence: positives among valid labels (1 or 0), and with more blanks counted as 0")
    headers = ("Class", *(split + PREVALENCES[name] for name, split in columns))
    print(format_table(headers, wide.loc[list(classes), columns].itertuples(name=None)))


def _print_pairs(pairs: pd.DataFrame) -> None:
    limit = plots_labels.SIGNIFICANT
    found = pairs[(pairs["p_bonferroni"] < limit) & (pairs["lift"] > 1)]
    print(f"\n{len(found)} of {len(pairs)} pairs co-occur more often than by chance (corrected p < {limit:g})")
    if len(found):
        print("The highest lifts, counted in the first study of each patient, with blank=0 (all: pairs.csv)")
        top = found[["class_a", "class_b", "both", "expected", "lift"]][:SHOWN]
        headers = ("Finding", "With", "Patients", "Expected", "Lift")
        print(format_table(headers, top.itertuples(index=False), digits=1))
