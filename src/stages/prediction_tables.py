"""What predict.py prints: the first rows, what could not be read, and how often each finding is flagged."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from src.artifacts.prediction_rows import UNLIKE, RowLayout
from src.artifacts.predictions import PredictionTable
from src.artifacts.thresholds_file import SavedThresholds
from src.runtime.tables import format_table, plural

SHOWN = 20  # rows in the table on stdout, and as many more with an error


def print_predictions(table: PredictionTable, names: Sequence[str], *, by: str) -> None:
    """Print what is flagged in the images of these ids, or in their studies, which were told apart `by`."""
    images = [table.rows[name] for name in names]
    written = [f"wrote {table.path}: {plural(len(table.rows), 'row')}"]
    if table.of_studies:
        of_images = dict.fromkeys(row[1] for row in images)
        studies = table.studies()
        _print_rows([studies[study] for study in of_images], table.study_layout, table.thresholds)
        _print_faults(images)
        _print_unlike(images, table.layout)
        _print_own(images, by)
        written.append(f"wrote {table.study_path}: {plural(len(studies), 'row')}")
    else:
        _print_rows(images, table.layout, table.thresholds)
        _say_unlike(images, table.layout)
    failed = sum(bool(row[-1]) for row in images)
    written[0] += f", {failed:,} could not be read" if failed else ""
    print(*written, sep="\n")


def _print_rows(rows: Sequence[list[str]], layout: RowLayout, thresholds: SavedThresholds) -> None:
    """The first rows and others with an error, then the flags per finding among all of them."""
    unit, of_studies = thresholds.unit, thresholds.unit == "study"
    shown = [*rows[:SHOWN], *[row for row in rows[SHOWN:] if row[-1] or layout.marked(row)][:SHOWN]]
    lines = []
    for row in shown:
        said = (", ".join(layout.flagged(row)) or "none") if layout.flags(row) else ""
        why = "; ".join(filter(None, (said, layout.marked(row), _printable(row[-1]))))
        images = [int(row[1])] if of_studies else []
        lines.append((_printable(row[0]), *images, layout.flags(row) or "-", why))
    headers = [unit.capitalize(), *["Images"][:of_studies], "Flags", "Findings flagged, or why it could not be read"]
    print(format_table(headers, lines))
    if len(rows) > len(shown):
        print(f"... and {len(rows) - len(shown):,} more")
    several = len(set(thresholds.targets)) > 1
    target = "the recall targets below" if several else f"recall >= {thresholds.targets[0]:g}"
    print(f"\nflagged among {plural(sum(bool(layout.flags(row)) for row in rows), unit)}, for {target}:")
    counts = Counter(itertools.chain.from_iterable(map(layout.flagged, rows)))
    columns: list[Sequence[Any]] = [thresholds.classes, thresholds.values.tolist()]
    columns.append([counts[c] for c in thresholds.classes])
    headers = ["Finding", "Threshold", "Flagged"]
    if several:
        columns.append([f"{target:g}" for target in thresholds.targets])
        headers.append("Recall target")
    print(format_table(headers, list(zip(*columns, strict=True))))
    for name, recall in zip(thresholds.classes, thresholds.targets, strict=True):
        if name in thresholds.needed:
            print(
                f"{name}: no threshold is known to reach recall {recall:g} ("
                f"{plural(thresholds.needed[name], 'more positive patient')} needed); it flags every {unit}"
            )


def _print_faults(images: Sequence[list[str]]) -> None:
    """Why images could not be read, which the rows of their studies do not say."""
    faults = [row for row in images if row[-1]]
    for row in faults[:SHOWN]:
        print(_printable(row[-1] if row[0] in row[-1] else f"{row[0]}: {row[-1]}"))
    if len(faults) > SHOWN:
        print(f"... and {len(faults) - SHOWN:,} more that could not be read")


def _print_unlike(images: Sequence[list[str]], layout: RowLayout) -> None:
    """Name the images that are unlike the training images, where the rows of their studies count them only."""
    marked = [row for row in images if row[0] != row[1] and layout.marked(row)]
    for row in marked[:SHOWN]:
        print(_printable(f"{row[0]}: {layout.marked(row)}"))
    if len(marked) > SHOWN:
        print(f"... and {len(marked) - SHOWN:,} more that are {UNLIKE}")
    _say_unlike(images, layout)


def _say_unlike(images: Sequence[list[str]], layout: RowLayout) -> None:
    """Say what to think of the images that are unlike the training images."""
    marked = sum(bool(layout.marked(row)) for row in images)
    if marked:
        print(
            f"{UNLIKE}: {marked:,} of {plural(len(images), 'image')}. Do not trust the probabilities of an image that "
            "is not a chest radiograph; about 1% of images like those of training are marked too"
        )


def _print_own(images: Sequence[list[str]], by: str) -> None:
    """Say of how many images nothing told the study."""
    own = sum(row[0] == row[1] and not row[-1] for row in images)
    if by == "auto" and own:
        counted = plural(own, "image")
        print(
            f"note: {counted} without a StudyInstanceUID (only DICOM files have one): each counts as its own study; "
            "--study folder treats the images of a folder as one study"
        )


def _printable(text: str) -> str:
    """The text without characters that would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)
