import json

import numpy as np
import pytest

from src.artifacts.calibration_record import Calibration, read_calibration
from src.stats.calibration_maps import OddsMap, StepMap

CLASSES = ("A", "B")
FOUND = Calibration("isotonic", CLASSES, (StepMap((0.1, 1 / 3), (0.2, 2 / 3)), OddsMap(1.0, 3.3)))


def test_it_comes_back_from_a_file_to_the_digit_and_by_class_name(tmp_path):
    path, probs = tmp_path / "probs.json", np.random.default_rng(0).random((50, 2))
    recorded = json.loads(json.dumps(FOUND.as_json()))
    found = read_calibration(recorded, CLASSES, path=path)
    assert found == FOUND and np.array_equal(found.apply(probs), FOUND.apply(probs))
    swapped = read_calibration(recorded, CLASSES[::-1], path=path)
    assert np.array_equal(swapped.apply(probs[:, ::-1])[:, ::-1], FOUND.apply(probs))


def test_what_can_be_undone_is():
    probs = np.random.default_rng(0).random((50, 2))
    platt = Calibration("platt", CLASSES, (OddsMap(0.5, 2.0), OddsMap(1.0, 3.3)))
    np.testing.assert_allclose(platt.undo(platt.apply(probs)), probs, rtol=1e-9)
    assert not FOUND.can_be_undone and platt.can_be_undone
    assert not Calibration("none", CLASSES, (OddsMap(1.0, 1.0),) * 2).can_be_undone


@pytest.mark.parametrize(
    ("found", "match"),
    [
        (None, "records no calibration because an earlier version"),
        ("platt", "has a different method or different classes"),
        ({"method": "magic", "maps": FOUND.as_json()["maps"]}, "has a different method or different classes"),
        ({"method": "platt", "maps": {"A": {"slope": 1, "weight": 1}}}, "has a different method or different classes"),
        (0, "has a different method"),
        ({"slope": 0, "weight": 1}, "not an increasing map .slope 0"),
        ({"slope": "1", "weight": 1}, "not an increasing map .it is {'slope': '1'"),
        ({"slope": None, "weight": 1}, "not an increasing map"),
        ({"slope": [1], "weight": 1}, "not an increasing map"),
        ({"slope": 1}, "not an increasing map"),
        ({"raw": [0.1], "prob": 3}, "not an increasing map"),
        ({"raw": [0.2, 0.1], "prob": [0.1, 0.2]}, "not an increasing map .its points"),
        ([], "not an increasing map"),
    ],
)
def test_what_no_stage_records_is_refused_in_one_line(found, match, tmp_path):
    if not isinstance(found, dict) or "maps" not in found:
        of_a_class = found not in (None, "platt", 0)
        found = {"method": "platt", "maps": {"A": found, "B": FOUND.as_json()["maps"]["B"]}} if of_a_class else found
    with pytest.raises(ValueError, match=match) as error:
        read_calibration(found, CLASSES, path=tmp_path / "resnet50" / "probs.json")
    assert "\n" not in str(error.value) and str(error.value).endswith("; run test_resnet.py --overwrite")
