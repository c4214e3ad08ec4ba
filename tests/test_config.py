"""The command line built from the dataclasses."""

import errno
import os
import re
import sys
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pytest

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
    as_flags,
    option,
    parse,
)
from src.runtime.script import run


@dataclass(frozen=True)
class Toy:
    """A field of every kind."""

    path: Path = option(Path("a"), "a path")
    number: float = option(0.5, "50% of it", low=0, high=1)
    limit: float | None = option(None, "none by default")
    words: tuple[str, ...] = option(("mask",), "words")
    mode: Literal["x", "y"] = option("x", "a choice")
    off: bool = option(False, "a switch")
    on: bool = option(True, "turn it off")
    arch: str = option("kept", hidden=True)


def test_defaults_pass_through_and_flags_have_the_types_of_their_fields():
    assert parse(Toy(), "doc", []) == Toy()
    given = parse(
        Toy(),
        "doc",
        ["--path", "b", "--number", "0.25", "--limit", "3", "--words", "u", "v=1", "--mode", "y", "--off", "--no-on"],
    )
    assert given == Toy(Path("b"), 0.25, 3.0, ("u", "v=1"), "y", True, False, "kept")


@pytest.mark.parametrize(
    "argv",
    [["--number", "x"], ["--mode", "z"], ["--nothing"], ["--arch", "other"], ["--num", "0.1"], ["--on"], ["--no-off"]],
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
    with pytest.raises(ValueError, match=r"--number is .*expected a number from 0 to 1"):
        parse(Toy(), "doc", ["--number", number])


def test_ranges_hold_for_every_item_of_a_tuple():
    with pytest.raises(ValueError, match="--recall is 1.2"):
        parse(ThresholdConfig(), "doc", ["--recall", "0.9", "1.2"])


def test_an_empty_path_is_not_the_current_folder(capsys):
    with pytest.raises(SystemExit):
        parse(EdaConfig(), "doc", ["--run-dir", ""])
    assert "argument --run-dir: it is empty; expected a path" in capsys.readouterr().err


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
]


@pytest.mark.parametrize("config", CONFIGS)
def test_help_shows_every_flag_once_with_its_default(config, capsys):
    with pytest.raises(SystemExit):
        parse(config(), None, ["--help"])
    entries = re.split(r"\n  (?=-)", capsys.readouterr().out.split("show this help message and exit")[1])[1:]
    flags = [f for f in fields(config) if not {"hidden", "positional"} & f.metadata.keys()]
    assert len(entries) == len(flags)
    for text in entries:
        assert "(default: " in " ".join(text.split()) or text.startswith("--data "), text


def test_help_begins_with_the_flags_of_the_stage_itself(capsys):
    for config, first in ((ResNetConfig, "--unfreeze-from"), (ThresholdConfig, "--recall"), (SplitConfig, "--data")):
        with pytest.raises(SystemExit):
            parse(config(), None, ["--help"])
        assert capsys.readouterr().out.split("main options:\n  ")[1].startswith(first)


def test_a_required_flag_is_asked_for(capsys):
    with pytest.raises(SystemExit):
        parse(SplitConfig(), None, [])
    assert "the following arguments are required: --data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("result", "status"), [(None, None), (1, 1), (ValueError("bad value"), 2), (OSError("disk full"), 2)]
)
def test_run_turns_results_and_errors_into_exit_status(result, status, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back what `run` replaces

    def main():
        if isinstance(result, Exception):
            raise result
        return result

    with pytest.raises(SystemExit) as stop:
        run(main)
    assert stop.value.code == status
    err = capsys.readouterr().err
    assert err.endswith(f"error: {result}\n") if isinstance(result, Exception) else err == ""


def test_an_error_of_the_system_names_the_file_in_words(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with pytest.raises(SystemExit):
        run((tmp_path / "gone.csv").read_bytes)
    assert capsys.readouterr().err.endswith(f"gone.csv cannot be read or written ({os.strerror(errno.ENOENT)})\n")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (RuntimeError("CUDA out of memory. Tried"), "lower --batch-size or --image-size"),
        (MemoryError(), "out of memory"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "lower --workers or --batch-size"),
    ],
)
def test_what_the_machine_lacks_is_no_bug(error, advice, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)

    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run(main)
    assert stop.value.code == 2 and advice in capsys.readouterr().err


def test_a_script_runs_without_stderr_and_prints_any_name(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr("sys.stderr", None)
    with pytest.raises(SystemExit) as stop:
        run(lambda: print("\udcff", file=sys.stdout) or print("progress", file=sys.stderr))
    assert stop.value.code is None and "\\udcff" in capsys.readouterr().out


def test_run_lets_a_bug_show_its_traceback(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)

    def main():
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        run(main)
