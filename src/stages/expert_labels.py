"""The labels of experts in place of those of a split, a part of stage 1."""

import fnmatch
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from src.config import SplitConfig
from src.labels.experts import REPORTS_READ, ExpertLabels, agreement, expert_files, match, read_experts
from src.labels.files import EXPERTS, SPARE, LabelSource, named
from src.labels.policy import joined_labels
from src.runtime.tables import format_table, plural


@dataclass(frozen=True)
class ExpertSplit:
    """What was done with a file of expert labels; all empty without one, but for a note on files that could be used.

    masked: per split, the classes that have no label there because the file does not have them. origin: what to add to
    where the split comes from. filters: what was left out, in a line. notes, warnings: lines to print. table:
    `agreement` as text.
    """

    masked: dict[str, tuple[str, ...]] = field(default_factory=dict)
    origin: str = ""
    filters: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    table: str = ""


def take_expert_labels(config: SplitConfig, source: LabelSource) -> tuple[LabelSource, ExpertSplit]:
    """The source whose split --expert-as is what --expert-labels labels, and what that did.

    The other images of that split are left out, and so are the other images of its patients, unless the published split
    has the patient on two sides itself. Raises ValueError where the file fits no image, and where it leaves no test.
    """
    path, split = config.expert_labels, config.expert_as
    if path is None:
        found = expert_files(source.files, source.table, classes=source.classes, home=config.data)
        what = "has experts' labels of"
        notes = [f"note: {file} {what} {plural(images, 'image')}; see --expert-labels" for file, images in found]
        return source, ExpertSplit(notes=notes)
    experts = read_experts(path, classes=source.classes)
    rows = match(experts, source.table)
    given = rows >= 0
    if not given.any():
        unit, own = experts.unit, source.table[f"{experts.unit}_id"][0]
        raise ValueError(
            f"{path} labels no {unit} of {config.data}: its ids look like {experts.ids.iloc[0]!r}, and those of the "
            f"data set like {own!r}"
        )
    left_out, filters = _left_out(source.table, given, split=split, name=path.name)
    unused = experts.ids[~np.isin(np.arange(len(experts.ids)), rows)]
    warnings = named(unused, f"rows of {path.name} that match no {experts.unit} of the data set")
    if fnmatch.fnmatch(path.name, REPORTS_READ):
        warnings.append(f"the labels of {path.name} are what a radiologist read in the reports, not in the radiographs")
    done = ExpertSplit(
        masked={split: experts.masked},
        origin=f"; {split} is what {path.name} labels",
        filters=filters,
        notes=_notes(source, experts, given, split),
        warnings=warnings,
        table=_compared(source, experts, rows),
    )
    relabeled = _relabeled(source, experts, rows, split).keep(~left_out)
    if "test" in set(source.table["split"]) - set(relabeled.table["split"]):
        raise ValueError(
            f"--expert-labels {path} --expert-as {split} leaves no image of the published test split; use --split "
            "patient, which makes test of other patients"
        )
    return relabeled, done


def _relabeled(source: LabelSource, experts: ExpertLabels, rows: np.ndarray, split: str) -> LabelSource:
    """The source with the experts' labels, and their images in `split`."""
    given, table, context = rows >= 0, source.table.copy(), source.context.copy()
    table.loc[given, list(source.classes)] = experts.labels.to_numpy()[rows[given]]
    table["split"] = table["split"].astype(object).mask(given, split)
    context.loc[given, "no_finding"] = experts.no_finding.to_numpy()[rows[given]]
    return replace(
        source,
        table=table,
        context=context,
        files=(*source.files, experts.path),
        labels_from={**source.labels_from, split: EXPERTS.format(experts.path.name)},
    )


def _left_out(table: pd.DataFrame, given: np.ndarray, *, split: str, name: str) -> tuple[np.ndarray, list[str]]:
    """Which rows have no part in the run, and a line that counts them."""
    patients, published = table["patient_id"], table["split"] == split
    moved = set(patients[given]) - set(patients[given & published])  # who is on two sides in the published split stays
    unlabeled = ~given & published
    others = ~given & ~published & patients.isin(moved)
    counts = [f"{plural(unlabeled.sum(), 'image')} of {split} that it does not label"] * bool(unlabeled.any())
    counts += [f"{plural(others.sum(), 'other image')} of its patients"] * bool(others.any())
    filters = [f"--expert-labels {name} left out {' and '.join(counts)}"] * bool(counts)
    return (unlabeled | others).to_numpy(), filters


def _notes(source: LabelSource, experts: ExpertLabels, given: np.ndarray, split: str) -> list[str]:
    """What the split now is."""
    name, before = experts.path.name, source.table["split"][given].dropna()
    moved = before[before != split]
    notes = [f"{name} labels {plural(given.sum(), 'image')} (by {experts.unit})"]
    if len(moved):
        sources = sorted(moved.replace(SPARE, f"{source.spare}, which was left out").unique())
        notes[0] += f", of which {len(moved):,} moved to {split} from {' and '.join(sources)}"
    if experts.masked:
        notes.append(f"masked in {split}, because {name} has no column for them: {', '.join(experts.masked)}")
    if experts.unused:
        notes.append(f"not used, because they are not classes of this run: {', '.join(experts.unused)}")
    return notes


def _compared(source: LabelSource, experts: ExpertLabels, rows: np.ndarray) -> str:
    """The agreement of the data set's labels with the experts', once per image or study, as text.

    The data set's label of a study is that of all its images, as in the stages that count studies.
    """
    used, codes = np.unique(rows[rows >= 0], return_inverse=True)
    classes = [name for name in source.classes if name not in experts.masked]
    labels = joined_labels(source.table[classes].to_numpy(np.float64)[rows >= 0], codes)
    theirs = experts.labels[classes].to_numpy()[used]
    table = agreement(labels, theirs, classes=classes)
    apart = int((table["1/0"] + table["0/1"]).sum())
    both = int(table[["1/1", "1/0", "0/1", "0/0"]].to_numpy().sum())
    counts = [column for column in table if "/" in column]
    shown = [column for column in counts if table[column].any()]
    text = format_table(
        ["Class", *shown, "Sensitivity", "Specificity"],
        table[["class", *shown, "sensitivity", "specificity"]].itertuples(index=False),
    )
    what = "; blank: not mentioned" if any("blank" in column for column in shown) else ""
    return (
        f"The data set's labels / those of {experts.path.name}, in {plural(len(used), experts.unit)}{what}\n{text}\n"
        f"{apart:,} of {both:,} labels that are 1 or 0 in both disagree. Sensitivity is the share of the experts' "
        "positives that the data set's labels have as 1."
    )
