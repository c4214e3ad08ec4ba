"""CSV files as people save them: separators, comments, decimal commas, and what is refused."""

import gzip
import zipfile

import pytest

from src.runtime.csv_files import number, read_cells, read_header

TABLE = "id,Mass, Pleural Effusion \na,1,0.5\nb,,1\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (TABLE, [2, 3]),
        (TABLE.replace(",", ";"), [2, 3]),
        (TABLE.replace(",", "\t"), [2, 3]),
        (TABLE.replace(",", "|"), [2, 3]),
        ("sep=,\r\n" + TABLE, [3, 4]),
        ("sep= ; \n" + TABLE.replace(",", ";"), [3, 4]),
        ("sep=;\n" + TABLE.replace(",", ";"), [3, 4]),
        ('"sep=|"\n' + TABLE.replace(",", "|"), [3, 4]),
        ("# exported; by, nobody\n\n" + TABLE, [4, 5]),
        ('"# a, b",,\n#\n' + TABLE, [4, 5]),
    ],
)
def test_a_table_reads_alike_however_it_is_separated_and_knows_its_lines(tmp_path, text, lines):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    cells = read_cells(tmp_path / "t.csv.gz")
    assert list(cells) == read_header(tmp_path / "t.csv.gz") == ["id", "Mass", "Pleural Effusion"]
    assert cells.to_numpy().tolist() == [["a", "1", "0.5"], ["b", "", "1"]] and list(cells.index) == lines


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,X\na,0,5\n", "line 2: expected 2 cells as in the header, got 3"),  # a decimal comma between commas
        ("id;X\na,1\n", "line 2: expected 2 cells as in the header, got 1"),
        (
            "id,X\na,1\n# the end\n",
            "line 3: expected 2 cells as in the header, got 1; comments are allowed above the header only",
        ),
        ("# nothing else\n", "has no rows"),
        ("sep=;\nid,X\na,1\n", "its line sep= names ';', which the header does not have; expected ',' there, or no"),
        ("sep=\t\nid;X\na;1\n", "expected ';' there"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(tmp_path, text, says):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_cells(tmp_path / "t.csv")


def test_a_number_may_have_a_decimal_comma():
    assert [number(text) for text in ("0,5", "-1,0", ",5", "1e-3", "1,5E-2")] == [0.5, -1, 0.5, 0.001, 0.015]
    for text in ("1,000.5", "1,2,3", "x", " "):
        with pytest.raises(ValueError):
            number(text)


def test_only_the_columns_asked_for_are_kept_and_each_must_be_there(tmp_path):
    (tmp_path / "t.csv").write_text("," + TABLE.replace("\n", "\n0,", 2))
    cells = read_cells(tmp_path / "t.csv", columns=("Pleural Effusion", "id"))
    assert list(cells) == ["id", "Pleural Effusion"] and cells.iloc[1].tolist() == ["b", "1"]
    with pytest.raises(ValueError, match="no column 'Edema'; it has .*id, Mass, Pleural Effusion"):
        read_cells(tmp_path / "t.csv", columns=("id", "Edema"))


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("latin-1", r"is not UTF-8 \(line 3, read as Latin-1: 'c,Müller'\); save it as CSV UTF-8"),
        ("utf-16", "is encoded in UTF-16, not in UTF-8; save it as CSV UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_a_file_in_another_encoding_says_where_and_what_to_do(tmp_path, encoding, says, name):
    opened = gzip.open if name.endswith(".gz") else open
    with opened(tmp_path / name, "wb") as stream:
        stream.write("a,b\nb,Meyer\nc,Müller\n".encode(encoding))
    with pytest.raises(ValueError, match=f"{name} {says}"):
        read_cells(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "inside", "says"),
    [
        ("labels.xlsx", "[Content_Types].xml", "a workbook of a spreadsheet program; save its sheet as CSV"),
        ("labels.csv.zip", "labels.csv", "a ZIP archive; unpack it and pass the CSV file in it"),
    ],
)
def test_a_workbook_or_an_archive_is_not_called_a_broken_csv(tmp_path, name, inside, says):
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(inside, bytes(range(256)))
    with pytest.raises(ValueError, match=f"{name} is {says}"):
        read_cells(tmp_path / name)


def test_a_damaged_file_is_not_called_one_of_another_encoding(tmp_path):
    text = "a,b\n" + "".join(f"{i},Müller\n" for i in range(5000))
    packed = bytearray(gzip.compress(text.encode(), mtime=0))
    packed[len(packed) // 2 : len(packed) // 2 + 50] = bytes(range(50))
    whole = text.encode()
    contents = {
        "damaged.csv.gz": (bytes(packed), "cannot be read as a CSV file: .*; is it complete"),
        "cut.csv": (whole[: whole.rindex(b"\xc3") + 1], "ends in the middle of a character; is it complete UTF-8"),
        "packed.csv": (gzip.compress(whole), "is a gzip file; give it a name that ends in .csv.gz"),
        "probs.csv": (b'{"a": 1,\n "b": [2]}\n', "is JSON; expected a CSV table"),
        "picture.csv": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not a text file; expected a CSV table"),
    }
    for name, (content, says) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} {says}"):
            read_cells(tmp_path / name)
    (tmp_path / "brackets.csv").write_text("[Patient ID],[Edema]\n1,0\n")
    assert list(read_cells(tmp_path / "brackets.csv")) == ["[Patient ID]", "[Edema]"]
    one_line = gzip.compress("a,b\nMüller".encode("latin-1"), mtime=0)
    (tmp_path / "short.csv.gz").write_bytes(one_line[:-9])
    with pytest.raises(ValueError, match="short.csv.gz cannot be read as a CSV file: .*; is it complete"):
        read_cells(tmp_path / "short.csv.gz")


def test_an_old_workbook_is_not_called_a_broken_csv(tmp_path):
    path = tmp_path / "labels.xls"
    path.write_bytes(b"\xd0\xcf\x11\xe0\x14\x00\xff\xfe")
    with pytest.raises(ValueError, match="labels.xls is a workbook"):
        read_cells(path)
