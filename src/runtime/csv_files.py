"""CSV files in: one place that opens them, and one wording of what can be wrong with a file.

`read_table` is pandas, for the files of a run. `read_cells` is for files that people made: it keeps every cell as
text and knows its line, and refuses rows that pandas would fill up or shift without a word. Columns are separated by
commas, semicolons, tabs or bars, whichever makes the most columns of the header, or as Excel's line `sep=;` says; lines
above the header that begin with # are comments.
"""

import codecs
import csv
import gzip
import itertools
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pandas as pd

from src.runtime.system_errors import in_words

# What programs write into a cell that has no value.
BLANKS = ("", "nan", "na", "n/a", "#n/a", "<na>", "null", "none")
SEPARATORS = ",;\t|"
UNREADABLE = (OSError, EOFError, zlib.error, csv.Error, pd.errors.EmptyDataError, pd.errors.ParserError)
JSON = r"""[{\[]\s*(["{\[]|$)"""  # how a line begins; a name such as [Patient ID] is none
WORKBOOK = "is a workbook of a spreadsheet program; save its sheet as CSV"


def read_table(path: Path, **kwargs: Any) -> pd.DataFrame:
    """`pandas.read_csv`; raises ValueError where the file is missing, empty or not a table."""
    with _explained(path):
        return pd.read_csv(path, **kwargs)


def read_cells(path: Path, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Every cell of a CSV file (gzipped where it ends in .gz) as `str` objects, indexed by line number.

    columns: those to keep, where the others are large, such as whole reports; all by default.
    Left out are blank lines, empty columns without a name, and a first column without a name, which numbers the rows.
    Raises ValueError where the file is unreadable or without rows, where a column is missing, where the name of one is
    missing or doubled, or where a row has more or fewer cells than the header.
    """
    rows, lines = [], []
    with _explained(path), _reader(path) as reader:
        header = _header(reader)
        if header and re.match(JSON, header[0]):
            raise ValueError(f"{path} is JSON; expected a CSV table")
        require_columns(header, columns or (), path=path)
        kept = [i for i, name in enumerate(header) if columns is None or name in columns]
        for row in reader:
            if len(row) != len(header):
                row = _fit_row(row, header, path, reader.line_num)
            if any(row):
                rows.append(row if columns is None else [row[i] for i in kept])
                lines.append(reader.line_num)
    header = [header[i] for i in kept]
    if not rows:
        raise ValueError(f"{path} has no rows; expected a header line and a row per image or study")
    named = [name for name in header if name]
    doubled = [name for name in named if named.count(name) > 1]
    if doubled:
        raise ValueError(f"{path} has two columns named {doubled[0]!r}; rename one of them")
    nameless = [i for i, name in enumerate(header) if i and not name and any(row[i] for row in rows)]
    if nameless:
        raise ValueError(f"{path}: column {nameless[0] + 1} has values but no name; name it in the header")
    return pd.DataFrame(rows, columns=header, index=lines, dtype=object)[named]


def read_header(path: Path) -> list[str]:
    """Column names of a CSV file, [] where it is empty. Raises ValueError where it is unreadable."""
    with _explained(path), _reader(path) as reader:
        return _header(reader)


def number(text: str) -> float:
    """A number as people write it, with a decimal point or a decimal comma, NaN where blank; else ValueError."""
    return math.nan if text.lower() in BLANKS else float(re.sub(r"^([+-]?\d*),(\d)", r"\1.\2", text))


def require_columns(table: pd.DataFrame | Sequence[str], names: Iterable[str], *, path: Path, remedy: str = "") -> None:
    """ValueError naming the first column of `names` that a table lacks, and those it has; `remedy` ends it."""
    for name in names:
        if name not in table:
            raise ValueError(f"{path} has no column {name!r}; it has {', '.join(table)}{remedy}")


def check_unique(names: Sequence[str] | pd.Series, what: str) -> None:
    """ValueError naming the first of `names` that appears more than once; `what` they are begins it."""
    index = pd.Index(names)
    if index.has_duplicates:
        raise ValueError(f"{what} {index[index.duplicated()][0]!r} appears more than once; each must be unique")


def table_name(path: Path) -> str:
    """The name of a CSV file without .csv or .csv.gz."""
    return path.name.removesuffix(".gz").removesuffix(".csv")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; check the path, or run the stage that writes it") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; expected a CSV table") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} {_why_not_text(path)}") from error
    except UNREADABLE as error:
        raise ValueError(f"{path} {_damaged(error)}") from error


def _opener(path: Path) -> Any:
    return gzip.open if path.suffix == ".gz" else open


def _damaged(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"cannot be read: {in_words(error)}"
    return f"cannot be read as a CSV file: {in_words(error)}; is it complete?"


def _why_not_text(path: Path) -> str:
    """What a file is that is not UTF-8, and what to do with it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        is_workbook = "[Content_Types].xml" in names or "mimetype" in names  # .xlsx, .ods
        return WORKBOOK if is_workbook else "is a ZIP archive; unpack it and pass the CSV file in it"
    try:
        with _opener(path)(path, "rb") as stream:
            content = stream.read()
    except UNREADABLE as error:
        return _damaged(error)
    if content.startswith(b"\xd0\xcf\x11\xe0"):  # .xls
        return WORKBOOK
    if content.startswith(b"\x1f\x8b"):
        return "is a gzip file; give it a name that ends in .csv.gz"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "is encoded in UTF-16, not in UTF-8; save it as CSV UTF-8"
    if b"\0" in content:
        return "is not a text file; expected a CSV table"
    return _first_not_utf8(content)


def _first_not_utf8(content: bytes) -> str:
    """Where text of another encoding, or text that was cut off, stops being UTF-8, as the end of a sentence."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return "ends in the middle of a character; is it complete UTF-8?"
        line = content.count(b"\n", 0, error.start) + 1
        before, after = content[: error.start].rpartition(b"\n")[2], content[error.start :].partition(b"\n")[0]
        text = (before[-20:] + after[:20]).decode("latin-1").strip()
        return f"is not UTF-8 (line {line}, read as Latin-1: {text!r}); save it as CSV UTF-8"
    return "was changed while it was read; try again"


def _header(reader: Iterator[list[str]]) -> list[str]:
    """The first row that is not blank, without the white space around its names."""
    return next(([name.strip() for name in row] for row in reader if any(row)), [])


@contextmanager
def _reader(path: Path) -> Iterator[Any]:
    """The rows from the header on; `line_num` counts all lines of the file."""
    with _opener(path)(path, "rt", encoding="utf-8-sig", newline="") as stream:
        above, header, separator = _find_header(stream, path)
        lines = itertools.chain(["\n"] * above, [header], stream)
        yield csv.reader(lines, strict=True, delimiter=separator)


def _find_header(stream: IO[str], path: Path) -> tuple[int, str, str]:
    """How many lines are above the header, the header's first line ("" in an empty file), and the separator.

    ValueError where the line `sep=` names a mark that the header does not have, and the header is separated by another.
    """
    named = None
    for above, line in enumerate(stream):
        if match := re.fullmatch(r'"?sep= *(\t|[^\w\s"]) *"?', line.rstrip("\r\n"), re.IGNORECASE):
            named = match[1]
        elif line.strip() and not line.lstrip(' "').startswith("#"):
            columns = {mark: len(next(csv.reader([line], delimiter=mark))) for mark in (*SEPARATORS, named or ",")}
            found = max(columns, key=lambda mark: columns[mark])
            if named and columns[named] == 1 < columns[found]:
                remedy = f"expected {found!r} there, or no such line"
                raise ValueError(f"{path}: its line sep= names {named!r}, which the header does not have; {remedy}")
            return above, line, named or found
    return 0, "", ","


def _fit_row(row: list[str], header: list[str], path: Path, line: int) -> list[str]:
    """`row` without the empty cells that follow a trailing comma, or filled up to a header that has one."""
    while len(row) > len(header) and not row[-1]:
        row = row[:-1]
    while row and len(row) < len(header) and not header[len(row)]:
        row = [*row, ""]
    if row and len(row) != len(header):
        why = "comments are allowed above the header only" if row[0].startswith("#") else "is the file complete?"
        raise ValueError(f"{path}, line {line}: expected {len(header)} cells as in the header, got {len(row)}; {why}")
    return row
