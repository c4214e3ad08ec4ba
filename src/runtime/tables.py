"""Plain-text tables for stdout."""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def format_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, digits: int = 3) -> str:
    """Aligned `a | b | c` lines: text to the left, numbers to the right, floats with `digits`, NaN as n/a.

    A header that begins with `| ` draws a second bar before its column.
    """
    bars = ["| " if h.startswith("| ") else "" for h in headers]
    body = [[_cell(value, digits) for value in row] for row in rows]
    texts = [[h.removeprefix("| ") for h in headers], *([text for text, _ in row] for row in body)]
    widths = [max(_width(line[i]) for line in texts) for i in range(len(headers))]
    numeric = [bool(body) and all(row[i][1] for row in body) for i in range(len(headers))]
    lines = [
        " | ".join(bar + _padded(text, w, right=n) for bar, text, w, n in zip(bars, line, widths, numeric, strict=True))
        for line in texts
    ]
    lines.insert(1, "-+-".join(("+-" if bar else "") + "-" * w for bar, w in zip(bars, widths, strict=True)))
    return "\n".join(line.rstrip() for line in lines)


def _width(text: str) -> int:
    """The columns that a text takes in a terminal: Chinese, Japanese and Korean characters take two."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def _padded(text: str, width: int, *, right: bool) -> str:
    blank = " " * (width - _width(text))
    return blank + text if right else text + blank


def _cell(value: Any, digits: int) -> tuple[str, bool]:
    """Text of a value, and whether it stands to the right."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "n/a", True
    if isinstance(value, str):
        return value, False
    if isinstance(value, float):
        return f"{value:.{digits}f}", True
    return f"{value:,}", True


def plural(count: int, noun: str) -> str:
    """`1 patient`, `2 patients`, `2 studies`, `2 keys`, `2 classes`."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"


def data_size(count: float) -> str:
    """Bytes with two digits or more in the unit that fits: `0 bytes`, `720 bytes`, `7.2 kB`, `72 MB`, `1,720 GB`."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB"):
        if size >= 1000:
            size, unit = size / 1000, larger
    return f"{size:.1f} {unit}" if size < 10 and unit != "bytes" else f"{size:,.0f} {unit}"


def undefined_note(values: Mapping[str, Any], resamples: int) -> str:
    """A line that says on how many resamples an interval rests, where some lack a label; else nothing."""
    lost = values.get("undefined_resamples", 0)
    if not lost:
        return ""
    kept = f"{resamples - lost:,} of {resamples:,} resamples"
    return (
        f"macro AUROC and AUPRC intervals are based on {kept}; the others lack the positives or negatives of a class\n"
    )


def with_interval(values: Mapping[str, Any], key: str) -> str:
    """`0.812 [0.790, 0.834]`, or without the interval where `values` has no `<key>_ci`."""
    text = _cell(values[key], 3)[0]
    low, high = values.get(f"{key}_ci", (None, None))
    return text if low is None else f"{text} [{_cell(low, 3)[0]}, {_cell(high, 3)[0]}]"
