"""Recall within groups: counts by hand, verdicts at the level of all groups, and no verdict from few patients."""

import numpy as np
import pandas as pd
import pytest

from src.stats.intervals import clustered_share, share_interval, verdict
from src.stats.subgroups import age_bands, audit


def test_ages_fall_into_bands_from_their_first_year_on():
    ages = np.array([0, 39.9, 40, 59, 80, 104, np.nan])
    assert list(age_bands(ages, starts=(40, 60, 80))) == ["0-39", "0-39", "40-59", "40-59", "80+", "80+", ""]
    assert list(age_bands(ages[:3], starts=(18,))) == ["0-17", "18+", "18+"]


def case():
    """100 women with 10 misses, 100 men with 30, 10 of unknown sex; a healthy person for each; one view."""
    sex = np.repeat(["F", "M", ""], [100, 100, 10])
    missed = np.concatenate([np.arange(100) < 10, np.arange(100) < 30, np.ones(10, bool)])
    flags = np.append(~missed, np.ones(210, bool))
    groups = pd.DataFrame({"sex": np.tile(sex, 2), "view": "frontal"})
    present = np.append(np.ones(210, bool), np.zeros(210, bool))
    return {"probs": flags[:, None] * 1.0, "present": present[:, None], "patients": np.arange(420), "groups": groups}


def audited(case, **options):
    return audit(case.pop("probs"), thresholds=np.array([0.5]), **case, classes=["A"], **options).set_index("group")


def test_counts_recall_and_interval_of_each_group():
    table = audited(case(), target=0.85)
    assert list(table.index) == ["F", "M", "frontal"]
    assert table.loc["F", ["positives", "patients", "missed", "recall"]].tolist() == [100, 100, 10, 0.9]
    low, high = share_interval(clustered_share(np.arange(100) >= 30, patients=np.arange(100)))
    assert table.loc["M", ["low", "high"]].tolist() == pytest.approx([low, high])
    assert table["verdict"].tolist() == ["consistent", "contradicted", "contradicted"]


def test_verdicts_hold_for_all_groups_together():
    share = clustered_share(np.arange(100) >= 21, patients=np.arange(100))
    assert verdict(share, target=0.85) == "consistent" or share.value < 0.85
    data = case()
    data["probs"][100:200, 0] = np.arange(100) >= 22  # 0.78: contradicted at 95%, not at 98.3%
    one = clustered_share(np.arange(100) >= 22, patients=np.arange(100))
    assert verdict(one, target=0.85) == "contradicted"
    assert audited(data, target=0.85).loc["M", "verdict"] == "consistent"


def test_too_few_patients_get_no_verdict_and_the_number_that_is_missing():
    data = case()
    data["groups"].loc[12:, "sex"] = ""
    table = audited(data, target=0.85)
    assert table.loc["F", "verdict"] == "" and table.loc["F", "needed"] == 19 - 12
    assert table.loc["frontal", "needed"] == 0


def test_groups_stay_in_their_order_and_a_patient_may_count_once():
    data = case()
    data["groups"] = pd.DataFrame({"age": np.resize(["80+", "0-39", "40-59"], 420)})
    assert list(audited(dict(data), target=0.85).index) == ["0-39", "40-59", "80+"]
    data = case()
    data["patients"] = np.minimum(np.arange(420), 50)  # the 51st woman and all after her are one patient
    unit, person = (audited(dict(data), target=0.85, by_patient=weighted) for weighted in (False, True))
    assert unit.loc["F", "recall"] == 0.9 and person.loc["F", "recall"] == pytest.approx(41 / 51)
