"""What a column of a table from elsewhere is, by its name: one list for label files and for probabilities."""

import re
from collections.abc import Iterable, Mapping

# The more telling names first; case, blanks, - and _ do not count.
COLUMN_NAMES = {
    "path": (
        "path",
        "imagepath",
        "image",
        "imageid",
        "filename",
        "file",
        "filepath",
        "imageindex",
        "imagename",
        "img",
        "dicomid",
        "id",
    ),
    "patient": (
        "patientid",
        "patient",
        "subjectid",
        "subject",
        "patid",
        "ptid",
        "pid",
        "mrn",
        "patientnumber",
        "patientno",
    ),
    "study": ("studyid", "study", "studyinstanceuid", "accessionnumber", "followup#"),
    "view": ("view", "viewposition", "frontal/lateral", "projection"),
    "split": ("split",),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "age": ("age", "patientage"),
    "no_finding": ("nofinding",),
}
# Columns of 0 and 1 that tables often have and that are no findings: row numbers, folds, splits, sex, circumstances,
# and labels without a name.
NO_FINDINGS = re.compile(
    r"unnamed:[\d.]+|index|idx|row(?:id|index|no|number)?|(?:k|cv|inner|outer)?folds?(?:id|no|number|index)?\d*"
    r"|(?:is|in)?(?:train|training|val|valid|validation|calib|calibration|test)(?:set|split|flag)?|split\d*"
    r"|(?:is|sex|gender)?(?:female|male)|(?:sex|gender)(?:f|m|code|id)|age(?:group|band|bin)"
    r"|(?:is|has)?(?:frontal|lateral|ap|pa|portable|report|inpatient|outpatient|icu|smoker|deceased|dead|died|death"
    r"|mortality|survived|excluded?|included?|quality|normal)(?:flag)?"
    r"|labels?|targets?|groundtruth"
)


def plain_name(name: str) -> str:
    """A column's name without case, blanks, - and _: two names that give the same are one to us."""
    return re.sub(r"[\s_-]", "", name).lower()


def marks_no_finding(name: str) -> bool:
    """Whether a column or class is "No Finding", which is a mark of a row, and a class only where it is asked for."""
    return plain_name(name) in COLUMN_NAMES["no_finding"]


def columns_by_role(names: Iterable[str]) -> dict[str, list[str]]:
    """The columns whose name tells their role, such as {"patient": ["Patient ID"]}, the most telling first."""
    plain = {name: plain_name(name) for name in names}
    return {
        role: sorted((name for name in plain if plain[name] in usual), key=lambda name: usual.index(plain[name]))
        for role, usual in COLUMN_NAMES.items()
    }


def said_roles(roles: Mapping[str, str]) -> str:
    """`patient 'Patient ID', sex 'Patient Gender'`: which column was taken for what."""
    return ", ".join(f"{role.replace('_', ' ')} {name!r}" for role, name in roles.items())


def alike(names: Iterable[str]) -> list[str]:
    """The names that are one to us with another of them, such as Edema and edema, beside each other."""
    names = list(names)
    plain = [plain_name(name) for name in names]
    doubled = [name for name in names if plain.count(plain_name(name)) > 1]
    return sorted(doubled, key=lambda name: plain.index(plain_name(name)))


def doubled_columns(names: Iterable[str]) -> list[str]:
    """The names that pandas makes of a column that is there twice, such as Edema.1 beside Edema."""
    names = list(names)
    return [name for name in names if re.sub(r"\.\d+$", "", name) in {*names} - {name}]


def no_findings(names: Iterable[str]) -> list[str]:
    """The names that say that the column is not a finding, such as fold, is_female, or pandas' `Unnamed: 0`."""
    return [name for name in names if NO_FINDINGS.fullmatch(plain_name(name))]
