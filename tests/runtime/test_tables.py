"""Tables on stdout."""

import unicodedata

from src.runtime.tables import data_size, format_table, plural


def test_columns_align_by_what_a_terminal_shows():
    lines = format_table(("Finding", "n"), [("무기폐", 1), ("Edema", 20), ("e\u0301dema", 3)]).splitlines()
    ends = []
    for line in lines:
        left = line.split("|")[0].split("-+-")[0]
        wide = sum(unicodedata.east_asian_width(letter) == "W" for letter in left)
        ends.append(len(left) + wide - sum(unicodedata.combining(letter) > 0 for letter in left))
    assert len({*ends[:1], *ends[2:]}) == 1 and lines[2].endswith("|  1")


def test_a_second_bar_stands_in_every_line_of_its_column():
    lines = format_table(("Finding", "n", "| All"), [("Edema", 1, 2), ("Mass", 10, 20)]).splitlines()
    assert lines == ["Finding |  n | | All", "--------+----+-+----", "Edema   |  1 | |   2", "Mass    | 10 | |  20"]


def test_counts_and_sizes_are_told_as_people_say_them():
    assert [plural(*words) for words in ((1, "class"), (2, "class"), (0, "study"), (2, "key"), (1200, "image"))] == [
        "1 class",
        "2 classes",
        "0 studies",
        "2 keys",
        "1,200 images",
    ]
    sizes = {0: "0 bytes", 999: "999 bytes", 1024: "1.0 kB", 72_500: "72 kB", 9.9e6: "9.9 MB", 1.72e12: "1,720 GB"}
    assert {count: data_size(count) for count in sizes} == sizes
