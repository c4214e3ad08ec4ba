"""What the tests of every data set's reader share."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.data import read_dataset


def row(source, image_id):
    """The row of an image, of table and context together."""
    merged = source.table.merge(source.context, on="image_id")
    return merged.set_index("image_id").loc[image_id]


def refused(path, *words, **options):
    """The message with which reading `path` ends, after checking that it names `words` on one line."""
    with pytest.raises(ValueError) as caught:
        read_dataset(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def check_form(source):
    """What holds for every data set."""
    table, context = source.table, source.context
    assert list(table) == ["image_id", "patient_id", "study_id", "view", "split", *source.classes]
    assert list(context) == ["image_id", "sex", "age", "study_order", "no_finding"]
    assert table["image_id"].tolist() == context["image_id"].tolist()
    assert table["image_id"].is_unique and table.index.equals(pd.RangeIndex(len(table)))
    assert set(table["view"]) <= {"frontal", "lateral", ""} and set(context["sex"]) <= {"F", "M", ""}
    labels = table[list(source.classes)]
    assert (labels.dtypes == np.float64).all() and (labels.isin([1, 0, -1]) | labels.isna()).all(axis=None)
    assert (table["split"].isna() | table["split"].isin(["train", "val", "test"])).all()
    assert context["study_order"].min() == 0 and context["study_order"].dtype == np.int64
    assert all(isinstance(file, Path) and file.is_file() for file in source.files)
