"""One frozen dataclass per stage, and the command line built from it: the only user of argparse.

A field's type, default and metadata are its flag: `option(default, help, ...)`. Nothing below the stages sees a
config; they take plain arguments.
"""

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

Config = TypeVar("Config")


def option(default: Any, text: str = "", *, low: float = -math.inf, high: float = math.inf, **metadata: Any) -> Any:
    """Dataclass field that becomes a flag with help `text` and an allowed range `low` to `high` (both included).

    `hidden=True` keeps a field off the command line, `positional=True` makes it a positional argument.
    """
    return field(default=default, metadata={"help": text, "low": low, "high": high, **metadata})


@dataclass(frozen=True)
class StageConfig:
    """What every stage takes."""

    run_dir: Path = option(Path("runs/default"), "run folder, in which the stages read and write their files")
    overwrite: bool = option(False, "replace what this stage wrote before")


@dataclass(frozen=True)
class DemoConfig:
    """make_demo_data.py"""

    out: Path = option(Path("data/demo"), "folder to write")
    patients: int = option(1500, "patients in train.csv and valid.csv together", low=10)
    seed: int = option(0, "seed of everything drawn", low=0)
    overwrite: bool = option(False, "replace an earlier demo data set")


@dataclass(frozen=True)
class SplitConfig(StageConfig):
    """check_split.py"""

    data: Path = option(Path("data/demo"), "data set folder, or a label file (CSV)")
    dataset: Literal["auto", "chexpert", "mimic", "nih", "csv"] = option("auto", "which layout the data is in")
    classes: tuple[str, ...] = option((), "findings to keep, in this order (default: all the data set has)")
    image_root: Path | None = option(None, "folder the image paths are relative to (default: the data set folder)")
    path_column: str | None = option(None, "CSV: column of the image path")
    patient_column: str | None = option(None, "CSV: column of the patient id")
    study_column: str | None = option(None, "CSV: column of the study id")
    view_column: str | None = option(None, "CSV: column of the view")
    split_column: str | None = option(None, "CSV: column of the published split")
    split: Literal["auto", "published", "patient"] = option(
        "auto", "published: the data set's own; patient: a new one by patient; auto: published where there is one"
    )
    val_fraction: float = option(
        0.1, "share of the images in val (of train, where a test set is published)", low=0.001, high=0.9
    )
    test_fraction: float = option(0.1, "share of the images in test, with a new split", low=0.001, high=0.9)
    seed: int = option(0, "seed of the split", low=0)
    images: Literal["exist", "open", "skip"] = option(
        "exist", "exist: every file is there; open: decode every file and look for duplicates; skip: do not look"
    )
    workers: int = option(2, "processes that open images", low=1)


@dataclass(frozen=True)
class EdaConfig(StageConfig):
    """eda_labels.py"""


POLICY_HELP = "mask, or a target in [0, 1], for all classes or as CLASS=value, e.g. mask Atelectasis=1 Edema=0.6"
CACHE_HELP = "folder that keeps the decoded images, so that each file is read once (default: read the files each time)"


@dataclass(frozen=True)
class TrainConfig(StageConfig):
    """What both training scripts take."""

    arch: str = option("", hidden=True)
    weights: str = option(
        "imagenet", "imagenet, none, or a file: a torchvision state dict, or the best.pt of an earlier run"
    )
    image_size: int = option(224, "side of the square the images are resized to [px]", low=32, high=1024)
    batch_size: int = option(32, "images per pass, of all processes together", low=1)
    accumulate: int = option(1, "passes per optimizer step; more of smaller batches need less memory", low=1)
    epochs: int = option(20, "most epochs to train", low=1)
    lr: float = option(1e-4, "learning rate of AdamW", low=1e-9, high=1)
    weight_decay: float = option(1e-2, "AdamW's decay, not applied to norms and biases", low=0, high=1)
    lr_patience: int = option(2, "epochs without a better val AUPRC before the learning rate falls", low=0)
    lr_factor: float = option(0.3, "factor by which it falls", low=1e-3, high=0.99)
    patience: int = option(5, "epochs without a better val AUPRC before training stops", low=1)
    pos_weight_max: float | None = option(None, "clip pos_weight to at most this and at least 1 over this", low=1)
    uncertain: tuple[str, ...] = option(
        ("mask",), f"training target of label -1: {POLICY_HELP}. CheXpert's U-Ignore is mask, U-Zeros 0, U-Ones 1"
    )
    missing: tuple[str, ...] = option(("mask",), f"training target of a blank: {POLICY_HELP}")
    augment: bool = option(True, "flip, rotate, scale, shift, vary brightness and contrast of the training images")
    freeze_batchnorm: bool = option(False, "keep every BatchNorm as it was pretrained, for small batches")
    workers: int = option(2, "processes that read images, per training process", low=0)
    cache: Path | None = option(None, CACHE_HELP)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps ...")
    bfloat16: bool | None = option(
        None,
        "train in bfloat16, weights stay float32 (default: on CUDA, and ResNet50 on CPUs that have it)",
    )
    compile: bool = option(False, "compile the training step first: minutes at the start, faster steps after")
    seed: int = option(0, "seed of weights, order and augmentation", low=0)
    checkpoint_minutes: float = option(10.0, "save last.pt this often within an epoch [min]", low=0)
    resume: bool = option(False, "resume from last.pt; start from scratch if there is none")


@dataclass(frozen=True)
class ResNetConfig(TrainConfig):
    """train_resnet.py"""

    arch: str = option("resnet50", hidden=True)
    unfreeze_from: Literal["all", "layer1", "layer2", "layer3", "layer4", "fc"] = option(
        "layer3", "first layer that trains; those before it stay frozen"
    )

    @property
    def unfreeze(self) -> str:
        """Where training begins, as `models.build_model` takes it."""
        return self.unfreeze_from


@dataclass(frozen=True)
class EfficientNetConfig(TrainConfig):
    """train_efficientnet.py"""

    arch: str = option("efficientnet_b1", hidden=True)
    unfreeze_last_n_blocks: int = option(
        3, "how many of the 9 feature blocks train, counted from the end; 0 trains the classifier alone", low=0, high=9
    )

    @property
    def unfreeze(self) -> int:
        """Where training begins, as `models.build_model` takes it."""
        return self.unfreeze_last_n_blocks


@dataclass(frozen=True)
class EvaluationConfig(StageConfig):
    """What every stage takes that computes metrics."""

    uncertain: tuple[str, ...] = option(
        ("mask",), "what -1 counts as in the metrics: mask, 0 or 1, for all classes or as CLASS=value"
    )
    missing: tuple[str, ...] = option(
        ("mask",), "what a blank counts as in the metrics: mask, 0 or 1, for all classes or as CLASS=value"
    )
    resamples: int = option(1000, "patient-bootstrap resamples behind each interval; 0 leaves them out", low=0)
    seed: int = option(0, "seed of the resamples", low=0)


@dataclass(frozen=True)
class ScoreConfig(EvaluationConfig):
    """test_resnet.py and test_efficientnet.py"""

    arch: str = option("resnet50", hidden=True)
    prior_correction: bool = option(True, "undo pos_weight: logit - log(pos_weight); --no-... keeps the raw sigmoid")
    batch_size: int = option(128, "images per pass, per process", low=1)
    workers: int = option(2, "processes that read images", low=0)
    cache: Path | None = option(None, CACHE_HELP)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps ...")


@dataclass(frozen=True)
class AlphaConfig(EvaluationConfig):
    """ensemble_alpha_search.py"""

    step: float = option(0.1, "step of the alpha grid", low=0.001, high=1)
    select: Literal["one-se", "best"] = option(
        "one-se", "one-se: the alpha nearest 0.5 within one standard error of the best; best: the best"
    )
    members: tuple[Path, ...] = option((), "probability files from another program (2 or more CSVs), with --labels")
    labels: Path | None = option(None, "their truth: a CSV whose first column is the id")


@dataclass(frozen=True)
class ThresholdConfig(EvaluationConfig):
    """ensemble_threshold_search.py"""

    recall: tuple[float, ...] = option((0.85, 0.90), "recall targets", low=0.01, high=1)
    rule: Literal["certified", "empirical"] = option(
        "certified",
        "certified: new patients reach the target, with --confidence; empirical: the validation data reach it",
    )
    confidence: float = option(0.95, "confidence of the certified rule, from 0.5 to 0.9999")
    family_wise: bool = option(False, "let the confidence hold for all classes together (Bonferroni)")
    prevalence: tuple[str, ...] = option(
        (), "prevalence to state precision at: CLASS=share ..., or a CSV with the columns class,prevalence"
    )
    grid: float = option(0.0, "step of a fixed threshold grid; 0 searches the observed probabilities", low=0, high=0.5)
    pictures: bool = option(True, "draw precision-recall curves and recall intervals")
    val_probs: Path | None = option(None, "probabilities from another program to choose on, with --val-labels")
    val_labels: Path | None = option(None, "their truth: a CSV whose first column is the id")
    test_probs: Path | None = option(None, "probabilities from another program to test on, with --test-labels")
    test_labels: Path | None = option(None, "their truth")

    def __post_init__(self) -> None:
        """Raise ValueError for a confidence out of range, and for one that the empirical rule cannot give."""
        if not 0.5 <= self.confidence <= 0.9999:
            raise ValueError(
                f"--confidence is {self.confidence}; expected a number from 0.5 to 0.9999; "
                "pass --rule empirical for thresholds without a confidence"
            )
        if self.rule == "empirical" and self.family_wise:
            raise ValueError("--family-wise needs a confidence, and --rule empirical has none; pass one of the two")


@dataclass(frozen=True)
class PredictConfig(StageConfig):
    """predict.py"""

    images: tuple[Path, ...] = option((), "images, or folders of images", positional=True)
    out: Path = option(Path("predictions.csv"), "table to write, one row per image")
    append: bool = option(False, "continue the table at --out: skip the images that it already has results for")
    recall: float | None = option(
        None, "recall target whose thresholds flag (default: the file's, where it has one)", low=0.01, high=1
    )
    thresholds: Path | None = option(
        None, "thresholds.json of stage 6 or saved from the report (default: the run's, of stage 6)"
    )
    heatmaps: Path | None = option(None, "folder for a heat map per flagged finding and model (default: none)")
    heatmap_method: Literal["auto", "grad-cam", "hires-cam", "layer-cam"] = option(
        "auto", "what makes the heat; auto: grad-cam in ResNet50, hires-cam in EfficientNet-B1"
    )
    batch_size: int = option(32, "images per pass", low=1)
    workers: int = option(2, "processes that read images", low=0)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps ...")


@dataclass(frozen=True)
class ReportConfig(StageConfig):
    """report.py"""

    out: Path | None = option(None, "file to write (default: report.html in the run folder)")


@dataclass(frozen=True)
class LogConfig:
    """tuning_log.py"""

    runs: tuple[Path, ...] = option((), "run folders, in the order to compare", positional=True)


class _Parser(argparse.ArgumentParser):
    """Errors in one line, exit status 2."""

    def error(self, message: str) -> typing.NoReturn:
        """Print the message and exit."""
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def parse(defaults: Config, description: str | None, argv: list[str] | None = None) -> Config:
    """The config that `argv` (default: the process's arguments) makes of `defaults`.

    A wrong flag prints one line and exits 2; a value out of its range raises ValueError.
    """
    parser = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    hints = typing.get_type_hints(type(defaults))
    shown = [f for f in fields(defaults) if not f.metadata.get("hidden")]
    for f in shown:
        _add(parser, f, hints[f.name], getattr(defaults, f.name))
    given = vars(parser.parse_args(argv))
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    for f in shown:
        _check_range(f, values[f.name])
    return dataclasses.replace(defaults, **values)


def as_flags(config: StageConfig, **changed: Any) -> list[str]:
    """The arguments that make this config, with some fields `changed`, of its class's defaults."""
    config = dataclasses.replace(config, **changed)
    flags: list[str] = []
    for f in fields(config):
        value, flag = getattr(config, f.name), "--" + f.name.replace("_", "-")
        if f.metadata.get("hidden") or value == f.default:
            continue
        if isinstance(value, bool):
            flags.append(flag if value else "--no-" + flag[2:])
        else:
            flags += [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    return flags


def _add(parser: argparse.ArgumentParser, f: dataclasses.Field, hint: Any, default: Any) -> None:
    text = f.metadata["help"].replace("%", "%%")
    if f.metadata.get("positional"):
        parser.add_argument(f.name, nargs="+", type=_item_type(hint), help=text)
        return
    flag = "--" + f.name.replace("_", "-")
    if hint in (bool, bool | None):
        text += " (on by default)" if default else ""
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)
        return
    several = isinstance(default, tuple)
    shown = " ".join(map(str, default)) if several else "" if default is None else str(default)
    text += f" (default: {shown})" if shown else ""
    if typing.get_origin(hint) is Literal:
        parser.add_argument(flag, choices=typing.get_args(hint), default=default, help=text)
    elif several:
        parser.add_argument(flag, nargs="+", type=_item_type(hint), default=default, help=text, metavar="VALUE")
    else:
        parser.add_argument(flag, type=_item_type(hint), default=default, help=text)


def _item_type(hint: Any) -> Callable[[str], Any]:
    """`int` of `int`, `tuple[int, ...]` and `int | None`."""
    inner = [t for t in typing.get_args(hint) if t not in (type(None), Ellipsis)]
    container = typing.get_origin(hint) in (tuple, types.UnionType, typing.Union)
    item = inner[0] if container else hint
    return _path if item is Path else item


def _path(text: str) -> Path:
    """A path; an empty one, which an unset shell variable leaves, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; expected a path")
    return Path(text)


def _check_range(f: dataclasses.Field, value: Any) -> None:
    low, high = f.metadata["low"], f.metadata["high"]
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, int | float) and not low <= item <= high:
            allowed = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
            raise ValueError(f"--{f.name.replace('_', '-')} is {item}; expected a number {allowed}")
