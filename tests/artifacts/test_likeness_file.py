"""The file of training features: the same when read, and refused where it is not what stage 4 wrote."""

import numpy as np
import pytest

from src.artifacts.likeness_file import NAME, read_likeness, write_likeness
from src.stats.likeness import Likeness

FEATURES = np.random.default_rng(0).normal(size=(40, 3))
LIKENESS = Likeness.fit(FEATURES, val=FEATURES)


def test_what_is_read_is_what_was_written(tmp_path):
    folder = tmp_path / "resnet50"
    assert read_likeness(folder, checkpoint_sha256="ab") is None
    write_likeness(folder, LIKENESS, checkpoint_sha256="ab")
    before = (folder / NAME).read_bytes()
    assert np.array_equal(
        read_likeness(folder, checkpoint_sha256="ab").distances(FEATURES), LIKENESS.distances(FEATURES)
    )
    write_likeness(folder, LIKENESS, checkpoint_sha256="ab")
    assert (folder / NAME).read_bytes() == before and len(list(folder.iterdir())) == 1
    with pytest.raises(ValueError, match=r"a different checkpoint than .*best.pt; run test_resnet.py --overwrite"):
        read_likeness(folder, checkpoint_sha256="cd")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 cut off",
        {"mean": np.zeros(3)},
        {**vars(LIKENESS), "scale": np.zeros(3)},
        {**vars(LIKENESS), "precision": np.full((3, 3), np.nan)},
        {**vars(LIKENESS), "mean": np.zeros(4)},
        {**vars(LIKENESS), "mean": np.array([None] * 3)},  # which only a pickle holds
    ],
)
def test_what_stage_4_did_not_write_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / NAME
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, checkpoint_sha256="ab", **content)
    with pytest.raises(ValueError, match="training_features.npz (is corrupt|does not hold)") as raised:
        read_likeness(tmp_path, checkpoint_sha256="ab")
    assert "\n" not in str(raised.value)
