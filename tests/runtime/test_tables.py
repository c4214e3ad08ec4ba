"""Tables on stdout."""

import unicodedata

from src.runtime.tables import format_table


def test_columns_align_by_what_a_terminal_shows():
    lines = format_table(("Finding", "n"), [("무기폐", 1), ("Edema", 20), ("e\u0301dema", 3)]).splitlines()
    ends = []
    for line in lines:
        left = line.split("|")[0].split("-+-")[0]
        wide = sum(unicodedata.east_asian_width(letter) == "W" for letter in left)
        ends.append(len(left) + wide - sum(unicodedata.combining(letter) > 0 for letter in left))
    assert len({*ends[:1], *ends[2:]}) == 1 and lines[2].endswith("|  1")
