"""The flags that say what metrics count: recorded by the stage that sets them, inherited by those after it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from src.artifacts.io import entry, read_json, writer_of
from src.artifacts.truth import AGGREGATES, UNITS, Truth, Units
from src.config import EvaluationConfig
from src.labels.policy import NO_FINDING, LabelPolicy
from src.runtime.flags import flag_of

Config = TypeVar("Config", bound=EvaluationConfig)

DEFAULTS: dict[str, Any] = {"uncertain": ("mask",), "missing": ("mask",), "no_finding": "mask"}
DEFAULTS |= {"unit": "study", "aggregate": "max"}
CHOICES = {"no_finding": NO_FINDING, "unit": UNITS, "aggregate": AGGREGATES}


def inherit_flags(config: Config, *, earlier: Sequence[Path]) -> tuple[Config, list[str]]:
    """The config with the flags that were not given taken from the `earlier` probs.json files that exist.

    Returns the config and a line to print for each flag that was inherited or differs from an earlier stage. Raises
    ValueError where a flag was not given and the earlier files disagree.
    """
    stories = {path: read_json(path) for path in earlier if path.exists()}
    chosen: dict[str, Any] = {}
    lines = []
    for flag, default in DEFAULTS.items():
        given = getattr(config, flag)
        recorded = {path: _recorded(story, flag, path) for path, story in stories.items() if flag in story}
        if not given and len(set(recorded.values())) > 1:
            found = " and ".join(f"{_words(value)} in {path}" for path, value in recorded.items())
            raise ValueError(f"{flag_of(flag)} is {found}; pass the {flag_of(flag)} to use here")
        chosen[flag] = given or next(iter(recorded.values()), default)
        if flag == "unit" and chosen[flag] == "study" and stories and not recorded:
            lines.append(
                f"note: --unit is study here; {next(iter(stories))} was written by a version that counted images"
            )
        for path, value in recorded.items():
            if value != chosen[flag]:
                lines.append(f"note: {flag_of(flag)} is {_words(chosen[flag])} here and was {_words(value)} in {path}")
        if not given and chosen[flag] != default:
            lines.append(f"{flag_of(flag)} {_words(chosen[flag])}, as recorded in {next(iter(recorded))}")
    return dataclasses.replace(config, **chosen), lines


def _recorded(story: Mapping[str, Any], flag: str, path: Path) -> Any:
    """A flag as an earlier stage recorded it."""
    if flag in CHOICES:
        if story[flag] not in CHOICES[flag]:
            expected = " or ".join(CHOICES[flag])
            raise ValueError(f"{path}: its {flag} is {story[flag]!r}; expected {expected}; run {writer_of(path)} again")
        return story[flag]
    words = entry(story, flag, list, path=path)
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError(
            f"{path}: its {flag} is {words}; expected a list such as ['mask']; run {writer_of(path)} again"
        )
    return tuple(words)


def _words(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(value)


def flags_of(config: EvaluationConfig) -> dict[str, Any]:
    """The flags as a stage records them."""
    return {flag: getattr(config, flag) for flag in DEFAULTS}


def policy_of(config: EvaluationConfig, classes: Sequence[str]) -> LabelPolicy:
    """The label policy that the flags describe."""
    return LabelPolicy.parse(uncertain=config.uncertain, missing=config.missing, classes=classes)


def counted(config: EvaluationConfig, images: Truth) -> Truth:
    """The labels of images as --no-finding has them."""
    assert config.no_finding  # inherited before
    return images.with_no_finding(config.no_finding)


def units_of(config: EvaluationConfig, images: Truth) -> Units:
    """What the flags count in a split."""
    assert config.unit and config.aggregate  # inherited before
    return Units.of(counted(config, images), unit=config.unit, aggregate=config.aggregate)
