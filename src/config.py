"""One frozen dataclass per stage: what its flags are called, their defaults, ranges and help.

A field's type, default and metadata are its flag: `option(default, help, ...)`; `runtime/flags.py` makes the command
line of them. Nothing below the stages sees a config; they take plain arguments.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from src.runtime import flags
from src.runtime.flags import option

Config = TypeVar("Config", bound="StageConfig | DemoConfig | LogConfig")

# --help in groups; what is in none of them is a main option. Seeds and switches stay beside what they belong to.
GROUPS = {
    "label and unit options": ("uncertain", "missing", "no_finding", "unit", "aggregate"),
    "data set options": ("dataset", "classes", "image_root", "path_column", "patient_column", "study_column",
                         "view_column", "split_column", "reader_rule", "sex_column", "age_column", "merge_patients"),
    "files from another program": ("members", "labels", "val_probs", "val_labels", "test_probs", "test_labels",
                                   "readers"),
    "speed and hardware options": ("workers", "cache", "device"),
}  # fmt: skip
TRAIN_GROUPS = {
    "data": ("image_size", "cache", "workers", "uncertain", "missing", "no_finding", "sampling",
             "repeat_threshold", "augment", "flip"),
    "model": ("arch", "unfreeze_from", "unfreeze_last_n_blocks", "weights", "attention", "freeze_batchnorm", "ema"),
    "loss": ("loss", "gamma", "margin", "pos_weight_max", "loss_weighting", "class_weights", "hard_fraction"),
    "optimization": ("epochs", "batch_size", "accumulate", "lr", "head_lr_factor", "warmup_epochs", "weight_decay",
                     "monitor", "monitor_blanks", "lr_patience", "lr_factor", "patience"),
    "running": ("trials", "run_dir", "overwrite", "resume", "compared_runs", "seed", "device", "bfloat16", "compile",
                "checkpoint_minutes"),
}  # fmt: skip
METAVARS = {"data": "PATH", "classes": "CLASS", "uncertain": "POLICY", "missing": "POLICY", "prevalence": "CLASS=SHARE"}
METAVARS |= {"class_weights": "FILE|effective", "ema": "DECAY"}
METAVARS |= {"weights": "WEIGHTS", "device": "DEVICE", "age_bands": "AGE"}


@dataclass(frozen=True)
class StageConfig:
    """What every stage takes."""

    run_dir: Path = option(Path("runs/default"), "folder of the run", folder=True)
    overwrite: bool = option(False, "replace what this stage wrote before")


@dataclass(frozen=True)
class DemoConfig:
    """make_demo_data.py"""

    out: Path = option(Path("data/demo"), "folder to write", folder=True)
    patients: int = option(1500, "number of patients in train.csv and valid.csv together", low=10)
    seed: int = option(0, "seed of everything that is drawn", low=0)
    rates: Literal["softened", "chexpert"] = option(
        "softened",
        "how often reports label a finding; softened: as in CheXpert, but at least 12%, so that few patients are "
        "enough; chexpert: as in CheXpert",
    )
    train_labels: Literal["reports", "truth"] = option(
        "reports", "what train.csv holds; truth: what was drawn, to pretrain on; stage 1 calls it reports"
    )
    overwrite: bool = option(False, "replace an earlier demo data set")


@dataclass(frozen=True)
class SplitConfig(StageConfig):
    """check_split.py"""

    data: Path = option(Path(), "data set folder, or a label file (CSV)", required=True)
    split: Literal["auto", "published", "patient"] = option(
        "auto", "published: the data set's own; patient: a new one by patient; auto: published if there is one"
    )
    val_fraction: float = option(0.1, "share of images in val (of train, if test is published)", low=0.001, high=1)
    test_fraction: float = option(0.1, "share of the images in test, for a new split", low=0.001, high=0.9)
    seed: int = option(0, "seed of the split", low=0)
    views: Literal["all", "frontal", "lateral"] = option("all", "radiographs to keep; AP and PA are frontal")
    images: Literal["exist", "present", "open", "skip"] = option(
        "exist",
        "exist: check that every file exists; present: keep the images whose file exists, for a partial download; "
        "open: decode every file and look for duplicates; skip: do not look at the files",
    )
    dataset: Literal["auto", "chexpert", "chexpert-plus", "mimic", "nih", "padchest", "brax", "vindr", "csv"] = option(
        "auto", "layout of the data"
    )
    labels: Literal["default", "cheXbert", "visualCheXbert", "impression", "findings", "report"] = option(
        "default",
        "CheXpert: take the labels of train from train.csv, train_cheXbert.csv, or train_visualCheXbert.csv; CheXpert "
        "Plus: take the labels of the impression (the default), the findings, or the whole report",
        group="data set options",
    )
    classes: tuple[str, ...] = option((), "findings to keep, in this order (default: all of the data set)")
    image_root: Path | None = option(
        None, "folder the image paths are relative to (default: the data set folder)", folder=True
    )
    path_column: str | None = option(None, "CSV: column of the image path (default: found by its name)")
    patient_column: str | None = option(None, "CSV: column of the patient id (default: found by its name)")
    study_column: str | None = option(None, "CSV: column of the study id (default: found by its name)")
    view_column: str | None = option(None, "CSV: column of the view (default: found by its name)")
    split_column: str | None = option(None, "CSV: column of the published split (default: found by its name)")
    sex_column: str | None = option(None, "CSV: column of the sex (default: found by its name)")
    age_column: str | None = option(None, "CSV: column of the age (default: found by its name)")
    merge_patients: bool = option(
        False, "treat patient ids that differ only in case, leading zeros, or hidden characters as one patient"
    )
    reader_rule: Literal["majority", "any"] = option(
        "majority", "VinDr-CXR: a finding is positive where most of an image's readers saw it, or any of them"
    )
    calibration: float | Literal["published"] = option(
        0.0,
        "share of images in an extra split, calib, on which thresholds are then certified instead of on val, or "
        "published to use the data set's own; 0: none",
        low=0,
        high=0.9,
    )
    expert_labels: Path | None = option(
        None, "CSV of experts' labels per image or study, whose images become the split --expert-as (default: none)"
    )
    expert_as: Literal["test", "calib"] = option("test", "name of the split that --expert-labels makes")
    workers: int = option(2, "number of processes that open images", low=0)

    def __post_init__(self) -> None:
        """Raise ValueError if the split calib is asked for twice, or by --expert-as without --expert-labels."""
        if self.expert_as == "calib" and self.calibration:
            raise ValueError("--expert-as calib makes the split calib; leave out --calibration")
        if self.expert_as == "calib" and self.expert_labels is None:
            raise ValueError("--expert-as calib needs --expert-labels FILE")


@dataclass(frozen=True)
class EdaConfig(StageConfig):
    """eda_labels.py"""


SOFT_POLICY = "mask or a number in [0, 1], for all classes or as CLASS=value (default: mask)"
HARD_POLICY = "mask, 0 or 1, for all classes or as CLASS=value (default: as recorded in the run, else mask)"
CACHE_HELP = "folder that keeps the decoded images (default: none)"
GAMMA = {"bce": (), "focal": (2.0,), "asymmetric": (0.0, 4.0)}  # as Lin et al. 2017 and Ridnik et al. 2021 have them
MARGIN = 0.05  # Ridnik et al. 2021
DEVICE_HELP = "auto, cpu, cuda, cuda:1, mps, ..."


@dataclass(frozen=True)
class RecipeConfig(StageConfig):
    """What a training takes, and a study of trainings."""

    arch: str = option("", hidden=True)
    weights: str = option("imagenet", "imagenet, none, or a file: a torchvision state dict or an earlier best.pt")
    attention: Literal["none", "se", "cbam"] = option("none", "module before the pooling")
    image_size: int = option(224, "side of the square images [px]", low=32, high=1024)
    batch_size: int = option(32, "images per pass, over all processes", low=1)
    epochs: int = option(20, "maximum number of epochs", low=1)
    lr: float = option(1e-4, "learning rate of AdamW", low=1e-9, high=1)
    seed: int = option(0, "seed of weights, order and augmentation", low=0)
    resume: bool = option(False, "resume from last.pt, if it is there")
    uncertain: tuple[str, ...] = option(("mask",), f"target of label -1: {SOFT_POLICY}")
    missing: tuple[str, ...] = option(("mask",), "target of a blank, as for --uncertain")
    no_finding: Literal["mask", "negative"] = option(
        "mask", 'blanks of rows marked "No Finding"; mask: as other blanks'
    )
    sampling: Literal["shuffle", "balanced"] = option("shuffle", "balanced: repeat rare findings")
    repeat_threshold: float = option(0.1, "balanced: share below which it is rare", low=1e-4, high=1)
    augment: bool = option(True, "train on the images as they are")
    flip: bool = option(False, "mirror half of the images at random")
    ema: float | None = option(None, "keep a moving average of the weights (default: none)", low=0, high=0.99999)
    loss: Literal["bce", "focal", "asymmetric"] = option("bce", "loss function")
    gamma: tuple[float, ...] = option((), "focusing exponents (default: 2, or 0 4 if asymmetric)", low=0, high=10)
    margin: float | None = option(None, "margin of negatives, for asymmetric (default: 0.05)", low=0, high=0.5)
    pos_weight_max: float | None = option(None, "clip pos_weight to [1 / N, N] (default: not clipped)", low=1)
    loss_weighting: Literal["entry", "class"] = option("entry", "class: each finding weighs the same")
    class_weights: str | None = option(None, "CSV of class,weight, or effective (default: none)")
    hard_fraction: float = option(1.0, "share of labels kept, the costliest", low=0.01, high=1)
    accumulate: int = option(1, "passes per optimizer step, to save memory", low=1)
    head_lr_factor: float = option(1.0, "learning rate of the head, times --lr", low=1e-3, high=1e3)
    warmup_epochs: float = option(0.0, "epochs of linear warmup", low=0)
    weight_decay: float = option(1e-2, "weight decay, except norms and biases", low=0, high=1)
    monitor: Literal["auprc", "auroc", "loss"] = option("auprc", "val score for early stopping")
    monitor_blanks: Literal["mask", "auto"] = option("mask", "auto: blanks are negative if val has few negatives")
    lr_patience: int = option(2, "epochs without gain before --lr falls", low=0)
    lr_factor: float = option(0.3, "factor by which --lr is lowered", low=1e-3, high=0.99)
    patience: int = option(5, "epochs without gain before training ends", low=1)
    freeze_batchnorm: bool = option(False, "keep the pretrained BatchNorm")
    workers: int = option(2, "image readers per training process", low=0)
    cache: Path | None = option(None, CACHE_HELP, folder=True)
    device: str = option("auto", DEVICE_HELP)
    bfloat16: bool | None = option(None, "compute in bfloat16 (default: where supported; EfficientNet on GPUs only)")
    compile: bool = option(False, "compile the training step first")
    checkpoint_minutes: float = option(10.0, "minutes between saves of last.pt", low=0)

    def __post_init__(self) -> None:
        """Raise ValueError if a run is to be both resumed and replaced, and for what does not fit --loss."""
        if self.resume and self.overwrite:
            raise ValueError("--resume continues the training that --overwrite would replace; pass one of the two")
        if len(self.gamma) not in (0, len(GAMMA[self.loss])):
            expected = f"--gamma has {len(self.gamma)} numbers; expected {len(GAMMA[self.loss])}"
            raise ValueError(f"{expected} with --loss {self.loss} (asymmetric: positives, then negatives)")
        if self.margin is not None and self.loss != "asymmetric":
            raise ValueError(f"--margin is only for --loss asymmetric, and --loss is {self.loss}; leave it out")

    @property
    def focus(self) -> dict[str, Any]:
        """Exponents of positives and negatives, and margin, as `train_utils.MaskedLoss` takes them."""
        gamma = self.gamma or GAMMA[self.loss] or (0.0,)
        margin = MARGIN if self.margin is None else self.margin
        return {"gamma": (gamma[0], gamma[-1]), "margin": margin if self.loss == "asymmetric" else 0.0}


@dataclass(frozen=True)
class TrainConfig(RecipeConfig, ABC):
    """What both training scripts take."""

    compared_runs: int = option(1, "runs these flags come from, for stage 6", low=1)

    @property
    @abstractmethod
    def unfreeze(self) -> str | int:
        """Where training begins, as `models.build_model` takes it."""


@dataclass(frozen=True)
class ResNetConfig(TrainConfig):
    """train_resnet.py"""

    arch: str = option("resnet50", hidden=True)
    unfreeze_from: Literal["all", "layer1", "layer2", "layer3", "layer4", "fc"] = option(
        "layer3", "first layer to train"
    )

    @property
    def unfreeze(self) -> str:
        """Where training begins, as `models.build_model` takes it."""
        return self.unfreeze_from


@dataclass(frozen=True)
class EfficientNetConfig(TrainConfig):
    """train_efficientnet.py"""

    arch: str = option("efficientnet_b1", hidden=True)
    unfreeze_last_n_blocks: int = option(3, "last feature blocks to train, 0 for none", low=0, high=9)

    @property
    def unfreeze(self) -> int:
        """Where training begins, as `models.build_model` takes it."""
        return self.unfreeze_last_n_blocks


@dataclass(frozen=True)
class TuneConfig(RecipeConfig):
    """tune.py; what it tries has no flag."""

    arch: Literal["resnet50", "efficientnet_b1"] = option("resnet50", "architecture to tune")
    resume: bool = option(False, "continue the study in the run folder, if there is one")
    trials: int = option(20, "number of trials to compare, including those of a study that --resume continues", low=1)
    lr: float = option(1e-4, hidden=True)
    weight_decay: float = option(1e-2, hidden=True)
    sampling: Literal["shuffle", "balanced"] = option("shuffle", hidden=True)
    loss: Literal["bce", "focal", "asymmetric"] = option("bce", hidden=True)
    gamma: tuple[float, ...] = option((), hidden=True)
    margin: float | None = option(None, hidden=True)
    loss_weighting: Literal["entry", "class"] = option("entry", hidden=True)


@dataclass(frozen=True)
class EvaluationConfig(StageConfig):
    """What every stage takes that computes metrics.

    A flag for labels or units that is not given is the one that the stage before recorded.
    """

    uncertain: tuple[str, ...] = option((), f"what -1 counts as in the metrics: {HARD_POLICY}")
    missing: tuple[str, ...] = option((), f"what a blank counts as in the metrics: {HARD_POLICY}")
    no_finding: Literal["mask", "negative"] | None = option(
        None,
        'what a blank in a row marked "No Finding" is; mask: a blank like any other; negative: a negative (default: as '
        "recorded in the run, else mask)",
    )
    unit: Literal["study", "image"] | None = option(
        None, "unit that metrics, thresholds, and workload count (default: as recorded in the run, else study)"
    )
    aggregate: Literal["max", "mean"] | None = option(
        None, "how a study gets its probability from its images (default: as recorded in the run, else max)"
    )
    resamples: int = option(
        1000,
        "number of resamples of the patients, for the intervals of AUROC, AUPRC, and differences; 0 leaves them out",
        low=0,
    )
    seed: int = option(0, "seed of the resamples", low=0)


@dataclass(frozen=True)
class ScoreConfig(EvaluationConfig):
    """test_resnet.py and test_efficientnet.py"""

    arch: str = option("resnet50", hidden=True)
    calibration_method: Literal["prior", "temperature", "platt", "isotonic", "none"] = option(
        "prior",
        "how the raw sigmoid becomes a probability; prior: undo pos_weight, logit - log(pos_weight); temperature, "
        "platt, isotonic: by a map fitted to each finding on val; none: unchanged",
    )
    batch_size: int = option(128, "number of images per pass, per process", low=1)
    workers: int = option(2, "number of processes that read images", low=0)
    cache: Path | None = option(None, CACHE_HELP, folder=True)
    device: str = option("auto", DEVICE_HELP)


@dataclass(frozen=True)
class AlphaConfig(EvaluationConfig):
    """ensemble_alpha_search.py"""

    step: float = option(0.1, "step of the alpha grid", low=0.001, high=1)
    select: Literal["one-se", "best"] = option(
        "one-se",
        "one-se: the alpha nearest 0.5 within one standard error of the best, which is that of --resamples resamples; "
        "best: the best",
    )
    members: tuple[Path, ...] = option((), "probability files to blend (default: both models of the run)")
    labels: Path | None = option(
        None, "labels of --members, a CSV with the same ids, all of which count as val (default: the manifest)"
    )


@dataclass(frozen=True)
class ThresholdConfig(EvaluationConfig):
    """ensemble_threshold_search.py"""

    recall: tuple[float, ...] = option((0.85, 0.90), "recall targets", low=0.01, high=1)
    rule: Literal["certified", "empirical"] = option(
        "certified",
        "certified: new patients reach the target, with the given --confidence; empirical: the validation data do",
    )
    confidence: float = option(
        0.95,
        "confidence of the certified rule; the empirical rule has none",
        low=0.5,
        high=0.9999,
        hint=", or --rule empirical",
    )
    weights: Literal["study", "image", "patient"] | None = option(
        None,
        "whose recall is certified: that of the next study or image, or of a random one of a random patient "
        "(default: as --unit)",
    )
    family_wise: bool = option(
        False, "make the confidence hold jointly for all findings that can be certified (Bonferroni)"
    )
    prevalence: tuple[str, ...] = option(
        (), "prevalence at which to state precision, or a CSV with class,prevalence (default: the evaluated split's)"
    )
    subgroups: tuple[Literal["sex", "age", "view"], ...] = option(
        (), "audit recall within sex, age bands, and views (default: no audit)"
    )
    age_bands: tuple[int, ...] = option((40, 60, 80), "ages at which the bands of --subgroups age begin", low=1)
    plan: bool = option(False, "print what certifying costs for 19 to 1,000 positives, and stop; needs no run")
    grid: float = option(0.0, "step of a fixed threshold grid; 0 searches the observed probabilities", low=0, high=0.5)
    pictures: bool = option(True, "do not draw precision-recall curves and recall intervals")
    val_probs: Path | None = option(None, "probabilities to choose thresholds on (default: the run's blend)")
    val_labels: Path | None = option(None, "labels of --val-probs, a CSV with the same ids (default: the manifest)")
    test_probs: Path | None = option(
        None, "probabilities to evaluate thresholds on (default: the run's blend, none with --val-probs)"
    )
    test_labels: Path | None = option(None, "labels of --test-probs (default: the manifest, none with --val-probs)")
    readers: tuple[Path, ...] = option(
        (), "CSVs of readers' calls, 1 or 0 per id and finding, to compare the model with (default: none)"
    )

    def __post_init__(self) -> None:
        """Raise ValueError for flags that need a confidence with the empirical rule, or do not go with --plan."""
        files = (self.val_probs, self.val_labels, self.test_probs, self.test_labels, *self.readers)
        others = (self.family_wise, self.weights, self.prevalence, self.subgroups, any(files))
        if self.plan and (self.rule == "empirical" or any(others)):
            raise ValueError(
                "--plan is about one finding and the certified rule, and reads no data; pass it with --recall and "
                "--confidence alone"
            )
        if self.rule == "empirical" and self.family_wise:
            raise ValueError("--family-wise needs a confidence, and --rule empirical has none; pass one of the two")


@dataclass(frozen=True)
class PredictConfig(StageConfig):
    """predict.py"""

    images: tuple[Path, ...] = option((), "images, or folders of images", positional=True)
    out: Path = option(
        Path("predictions.csv"),
        "table to write, one row per image; if the thresholds are for studies, NAME_studies.csv gets a row per study",
    )
    append: bool = option(False, "continue the table at --out and skip the images that it already has results for")
    recall: float | None = option(
        None, "recall target whose thresholds to use (default: the file's, if it has one)", low=0.01, high=1
    )
    thresholds: Path | None = option(None, "thresholds.json of stage 6, or saved from the report (default: the run's)")
    study: Literal["auto", "folder", "file"] | None = option(
        None,
        "which images form a study, if the thresholds are for studies; auto: DICOM files by StudyInstanceUID, every "
        "other file by itself; folder: the images directly in a folder; file: every file by itself (default: auto)",
    )
    equalize: bool = option(
        False,
        "equalize the histogram of each image, as in MIMIC-CXR-JPG: for DICOM files and a run trained on it",
    )
    heatmaps: Path | None = option(
        None, "folder for a heat map per flagged finding and model (default: none)", folder=True
    )
    batch_size: int = option(32, "number of images per pass", low=1)
    workers: int = option(2, "number of processes that read images", low=0)
    device: str = option("auto", DEVICE_HELP)


@dataclass(frozen=True)
class ReportConfig(StageConfig):
    """report.py"""

    out: Path | None = option(None, "file to write (default: report.html in the run folder)")


@dataclass(frozen=True)
class LogConfig:
    """tuning_log.py"""

    runs: tuple[Path, ...] = option((), "run folders, in the order to compare", positional=True)


def parse(defaults: Config, description: str | None, argv: list[str] | None = None) -> Config:
    """The config that `argv` (default: the process's arguments) makes of `defaults`, as `flags.parse` reads it."""
    groups = TRAIN_GROUPS if isinstance(defaults, RecipeConfig) else GROUPS
    return flags.parse(defaults, description, argv, groups=groups, metavars=METAVARS)
