"""The command line built from the dataclasses."""

import re
import sys
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pytest

import train_efficientnet
import train_resnet
from src.config import (
    AlphaConfig,
    DemoConfig,
    EdaConfig,
    EfficientNetConfig,
    LogConfig,
    PredictConfig,
    ReportConfig,
    ResNetConfig,
    ScoreConfig,
    SplitConfig,
    ThresholdConfig,
    TuneConfig,
    parse,
)
from src.runtime.flags import as_flags, option
from src.runtime.script import run


@dataclass(frozen=True)
class Toy:
    """A field of every kind."""

    path: Path = option(Path("a"), "a path")
    number: float = option(0.5, "50% of it", low=0, high=1)
    limit: float | None = option(None, "none by default")
    words: tuple[str, ...] = option(("mask",), "words")
    mode: Literal["x", "y"] = option("x", "a choice")
    share: float | Literal["all"] = option(0.0, "a number or a word", low=0, high=1)
    off: bool = option(False, "a switch")
    on: bool = option(True, "turn it off")
    arch: str = option("kept", hidden=True)


def test_defaults_pass_through_and_flags_have_the_types_of_their_fields():
    assert parse(Toy(), "doc", []) == Toy()
    flags = [
        "--path",
        "b",
        "--number",
        "0.25",
        "--limit",
        "3",
        "--words",
        "u",
        "v=1",
        "--mode",
        "y",
        "--share",
        "all",
        "--off",
        "--no-on",
    ]
    assert parse(Toy(), "doc", flags) == Toy(Path("b"), 0.25, 3.0, ("u", "v=1"), "y", "all", True, False, "kept")
    assert parse(Toy(), "doc", ["--share", "0.5"]).share == 0.5


@pytest.mark.parametrize(
    "argv",
    [
        ["--number", "x"],
        ["--mode", "z"],
        ["--share", "none"],
        ["--nothing"],
        ["--arch", "other"],
        ["--num", "0.1"],
        ["--on"],
        ["--no-off"],
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_status_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Toy(), "doc", argv)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and ": error: " in err and argv[0] in err


def test_a_switch_may_be_left_to_the_stage():
    for flags, value in (([], None), (["--bfloat16"], True), (["--no-bfloat16"], False)):
        config = parse(ResNetConfig(), None, flags)
        assert config.bfloat16 is value and as_flags(config) == flags


@pytest.mark.parametrize("number", ["1.5", "-0.1", "nan", "inf"])
def test_a_number_out_of_range_is_refused_with_flag_value_and_range(number):
    for flag in ("--number", "--share"):
        with pytest.raises(ValueError, match=rf"{flag} is .*expected a number from 0 to 1"):
            parse(Toy(), "doc", [flag, number])


def test_ranges_hold_for_every_item_of_a_tuple():
    with pytest.raises(ValueError, match="--recall is 1.2"):
        parse(ThresholdConfig(), "doc", ["--recall", "0.9", "1.2"])


@pytest.mark.parametrize(
    ("config", "flags", "said"),
    [
        (EdaConfig, ["--run-dir", ""], "argument --run-dir: it is empty; expected a path"),  # an unset shell variable
        (ThresholdConfig, ["--recall", "0,85"], "with a decimal point; separate several by blanks ("),
        (ResNetConfig, ["--epochs", "3.5"], "--epochs: it is '3.5'; expected a whole number in digits ("),
        (SplitConfig, ["--data", "d", "--calibration", "1/9"], "a number with a decimal point or 'published' ("),
    ],
)
def test_a_value_of_another_kind_is_refused_in_words(capsys, config, flags, said):
    with pytest.raises(SystemExit) as stop:
        parse(config(), "doc", flags)
    assert stop.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--run-dir", "--cache"])
def test_a_file_is_no_folder(flag):
    with pytest.raises(ValueError, match=f"{flag} is .*test_config.py, which is a file; expected a folder"):
        parse(ResNetConfig(), "doc", [flag, __file__])


def test_help_shows_defaults_and_percent_signs(capsys):
    with pytest.raises(SystemExit):
        parse(Toy(), "The doc.", ["--help"])
    out = capsys.readouterr().out
    assert "The doc." in out and "50% of it (default: 0.5)" in out and "words (default: mask)" in out
    assert "--arch" not in out


CONFIGS = [
    DemoConfig,
    SplitConfig,
    EdaConfig,
    ResNetConfig,
    EfficientNetConfig,
    ScoreConfig,
    AlphaConfig,
    ThresholdConfig,
    PredictConfig,
    ReportConfig,
    LogConfig,
    TuneConfig,
]


@pytest.mark.parametrize("config", CONFIGS)
def test_help_shows_every_flag_once_with_its_default(config, capsys):
    with pytest.raises(SystemExit):
        parse(config(), None, ["--help"])
    out = capsys.readouterr().out
    assert not re.search(r":\n  -h", out), "a heading for --help alone"
    *entries, last = re.split(r"\n  (?=-)", out)[1:]
    assert last.startswith("-h, --help")
    flags = [f for f in fields(config) if not {"hidden", "positional"} & f.metadata.keys()]
    assert len(entries) == len(flags)
    for text in entries:
        assert "(default: " in " ".join(text.split()) or text.startswith("--data "), text


def test_help_begins_with_the_flags_of_the_stage_itself(capsys):
    for config, first in ((ResNetConfig, "model"), (ThresholdConfig, "main options"), (SplitConfig, "main options")):
        with pytest.raises(SystemExit):
            parse(config(), None, ["--help"])
        flag = {ResNetConfig: "--unfreeze-from", ThresholdConfig: "--recall", SplitConfig: "--data"}[config]
        assert capsys.readouterr().out.split(f"\n{first}:\n  ")[1].startswith(flag)


def test_help_of_the_training_scripts_is_in_groups_and_short(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    scripts = {ResNetConfig: train_resnet.__doc__, EfficientNetConfig: train_efficientnet.__doc__}
    for config, doc in scripts.items():
        with pytest.raises(SystemExit):
            parse(config(), doc, ["--help"])
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 80
        titles = re.findall(r"^(\w+):$", out, flags=re.MULTILINE)
        assert titles == ["data", "model", "loss", "optimization", "running"] and out.count("\n") < 80


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--gamma", "2"], "--gamma has 1 numbers; expected 0 with --loss bce"),
        (["--loss", "focal", "--gamma", "0", "4"], "--gamma has 2 numbers; expected 1 with --loss focal"),
        (["--loss", "asymmetric", "--gamma", "4"], "--gamma has 1 numbers; expected 2 with --loss asymmetric"),
        (["--loss", "focal", "--margin", "0.1"], "--margin is only for --loss asymmetric, and --loss is focal"),
        (["--loss", "asymmetric", "--margin", "0.7"], "--margin is 0.7; expected a number from 0 to 0.5"),
        (["--loss", "focal", "--gamma", "-1"], "--gamma is -1.0; expected a number from 0 to 10"),
        (["--hard-fraction", "0"], "--hard-fraction is 0.0; expected a number from 0.01 to 1"),
        (["--ema", "1"], "--ema is 1.0; expected a number from 0 to 0.99999"),
        (["--repeat-threshold", "2"], "--repeat-threshold is 2.0; expected"),
        (["--warmup-epochs", "-1"], "--warmup-epochs is -1.0; expected"),
        (["--head-lr-factor", "0"], "--head-lr-factor is 0.0; expected"),
    ],
)
def test_training_options_that_do_not_fit_are_refused(flags, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        parse(ResNetConfig(), None, flags)


def test_the_exponents_of_the_losses_are_the_papers_unless_given():
    for flags, gamma, margin in (
        ([], (0, 0), 0),
        (["--loss", "focal"], (2, 2), 0),
        (["--loss", "asymmetric"], (0, 4), 0.05),
        (["--loss", "asymmetric", "--gamma", "1", "3", "--margin", "0"], (1, 3), 0),
    ):
        assert parse(ResNetConfig(), None, flags).focus == {"gamma": gamma, "margin": margin}


def test_a_required_flag_is_asked_for(capsys):
    with pytest.raises(SystemExit):
        parse(SplitConfig(), None, [])
    assert "the following arguments are required: --data" in capsys.readouterr().err


@pytest.fixture
def ended(monkeypatch):
    """Runs a main function as a script and returns its exit status."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back what `run` replaces

    def status(main):
        with pytest.raises(SystemExit) as stop:
            run(main)
        return stop.value.code

    return status


@pytest.mark.parametrize("result", [None, 1])
def test_the_result_is_the_exit_status(result, ended, capsys):
    assert ended(lambda: result) == result and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("bad value"), "bad value"),
        (OSError("disk full"), "disk full"),
        (OSError(28, "No space left on device"), "a file cannot be read or written (the disk is full)"),
        (FileNotFoundError(2, "no", "gone.csv"), "gone.csv cannot be read or written (it does not exist)"),
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried"), "out of memory; lower --batch-size or --image-size"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "lower --workers or --batch-size"),
    ],
)
def test_an_error_that_is_no_bug_is_one_line_and_exit_status_2(error, said, ended, capsys):
    def main():
        raise error

    assert ended(main) == 2
    err = capsys.readouterr().err
    assert ": error: " in err and err.endswith(f"{said}\n") and err.count("\n") == 1


def test_a_script_runs_without_stderr_and_prints_any_name(ended, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr", None)
    assert ended(lambda: print("\udcff", file=sys.stdout) or print("progress", file=sys.stderr)) is None
    assert "\\udcff" in capsys.readouterr().out


def test_a_bug_shows_its_traceback(ended):
    with pytest.raises(KeyError):
        ended(lambda: {}["a bug"])
