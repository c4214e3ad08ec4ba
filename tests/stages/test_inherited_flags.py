"""The flags that say what metrics count pass from stage to stage, and a change is said."""

import pytest

from src.artifacts.io import write_json
from src.config import AlphaConfig
from src.stages.inherited_flags import flags_of, inherit_flags


@pytest.fixture
def stories(tmp_path):
    """Writes what two earlier stages recorded as --missing, and returns their files."""

    def write(*recorded):
        paths = [tmp_path / f"{index}.json" for index in range(len(recorded))]
        for path, words in zip(paths, recorded, strict=True):
            write_json(path, {"uncertain": ["mask"], "missing": words, "unit": "study"})
        return paths

    return write


def test_a_flag_that_is_not_given_is_inherited_and_said(stories):
    paths = stories(["0", "Edema=mask"], ["0", "Edema=mask"])
    config, lines = inherit_flags(AlphaConfig(), earlier=paths)
    assert (config.uncertain, config.missing) == (("mask",), ("0", "Edema=mask"))
    assert lines == [f"--missing 0 Edema=mask, as recorded in {paths[0]}"]


def test_the_default_is_masked_and_nothing_is_said(stories, tmp_path):
    for earlier in ([], [tmp_path / "gone.json"], stories(["mask"])):
        config, lines = inherit_flags(AlphaConfig(), earlier=earlier)
        assert (config.uncertain, config.missing, lines) == (("mask",), ("mask",), [])


def test_a_given_flag_wins_and_the_change_is_said(stories):
    (path,) = stories(["0"])
    config, lines = inherit_flags(AlphaConfig(missing=("1",)), earlier=[path])
    assert config.missing == ("1",) and lines == [f"note: --missing is 1 here and was 0 in {path}"]


@pytest.mark.parametrize("words", [[], [1], ["mask", None], "mask"])
def test_words_that_no_stage_writes_are_refused(stories, words):
    with pytest.raises(ValueError, match="0.json: its missing is"):
        inherit_flags(AlphaConfig(), earlier=stories(words))


def test_stages_that_disagree_ask_for_the_flag(stories):
    with pytest.raises(ValueError, match=r"--missing is 0 in .*0.json and mask in .*1.json; pass the --missing to use"):
        inherit_flags(AlphaConfig(), earlier=stories(["0"], ["mask"]))


def test_a_run_of_an_earlier_version_recorded_none(tmp_path):
    write_json(tmp_path / "probs.json", {})
    config, lines = inherit_flags(AlphaConfig(), earlier=[tmp_path / "probs.json"])
    assert (config.missing, config.unit) == (("mask",), "study")
    assert "was written by a version that counted images" in lines[0]


def test_the_unit_is_inherited_too(tmp_path):
    path = tmp_path / "probs.json"
    write_json(path, {"unit": "image", "aggregate": "mean"})
    config, lines = inherit_flags(AlphaConfig(), earlier=[path])
    assert (config.unit, config.aggregate) == ("image", "mean")
    assert lines == [f"--unit image, as recorded in {path}", f"--aggregate mean, as recorded in {path}"]
    config, lines = inherit_flags(AlphaConfig(unit="study", aggregate="mean"), earlier=[path])
    assert config.unit == "study" and lines == [f"note: --unit is study here and was image in {path}"]
    write_json(path, {"unit": "patient"})
    with pytest.raises(ValueError, match="its unit is 'patient'; expected study or image"):
        inherit_flags(AlphaConfig(), earlier=[path])


def test_no_finding_is_inherited_by_its_flag_and_unknown_to_earlier_versions(tmp_path):
    path = tmp_path / "probs.json"
    write_json(path, {"no_finding": "negative", "unit": "study"})
    config, lines = inherit_flags(AlphaConfig(), earlier=[path])
    assert config.no_finding == "negative" and lines == [f"--no-finding negative, as recorded in {path}"]
    assert flags_of(config)["no_finding"] == "negative"
    write_json(path, {"unit": "study"})
    assert inherit_flags(AlphaConfig(), earlier=[path])[0].no_finding == "mask"
    write_json(path, {"no_finding": "0"})
    with pytest.raises(ValueError, match="its no_finding is '0'; expected mask or negative"):
        inherit_flags(AlphaConfig(), earlier=[path])
