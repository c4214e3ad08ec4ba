"""Tables that another program made: their ids, and what their columns are by name."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from src.labels.columns import columns_by_role, plain_name, said_roles
from src.labels.files import ids_of
from src.runtime.csv_files import read_cells, read_header


@dataclass(frozen=True)
class OutsideTable:
    """A row per image or study: every cell as text, and its id [N], unique.

    The ids are in the column that is called so (`Image Index`, `Path`, `id`, ...), else in the first one. `roles` has
    the column of each role that is there, such as {"patient": "Patient ID"}, and `others` the columns that may be
    findings: those without a role, and "No Finding".
    """

    path: Path
    cells: pd.DataFrame
    ids: pd.Series
    roles: dict[str, str]
    others: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> "OutsideTable":
        """Raises ValueError where no column holds ids, and for a blank or doubled id."""
        path = Path(path)
        cells = read_cells(path)
        paths = columns_by_role(cells)["path"]
        if not paths and read_header(path)[:1] == [""]:
            raise ValueError(f"{path}: its first column has no name; expected a column of ids, not of row numbers")
        column = paths[0] if paths else cells.columns[0]
        found = columns_by_role(name for name in cells if name not in (column, *paths))
        roles = {role: names[0] for role, names in found.items() if names}
        other = {column, *paths, *(name for role in found if role != "no_finding" for name in found[role])}
        others = tuple(name for name in cells if name not in other)
        return cls(path, cells, ids_of(cells[column], path=path, unique=True), roles, others)

    def columns_of(self, findings: Iterable[str]) -> dict[str, str]:
        """The column of each finding that has one; case, blanks, - and _ do not count. ValueError where two fit."""
        columns: dict[str, str] = {}
        for finding in findings:
            fitting = [name for name in self.others if plain_name(name) == plain_name(finding)]
            if len(fitting) > 1:
                raise ValueError(f"{self.path} has two columns for {finding}: {' and '.join(fitting)}; remove one")
            if fitting:
                columns[finding] = fitting[0]
        return columns

    def said(self, roles: Iterable[str], findings: Iterable[str], *more: str) -> str:
        """A line with the columns of the ids and of `roles`, with `more`, and with the columns that are not used."""
        used = {role: self.roles[role] for role in roles if role in self.roles}
        known = {self.ids.name, *used.values(), *findings}
        unused = [name for name in self.cells if name not in known]
        clauses = [said_roles({"id": str(self.ids.name)} | used), *filter(None, more)]
        return f"{self.path}: {'; '.join(clauses)}" + (f"; not used: {', '.join(unused)}" if unused else "")
