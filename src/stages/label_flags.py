"""The label flags of the metrics: recorded by the stage that sets them, inherited by those after it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from src.artifacts.io import entry, read_json, writer_of
from src.config import EvaluationConfig

Config = TypeVar("Config", bound=EvaluationConfig)

FLAGS = ("uncertain", "missing")
MASKED = ("mask",)


def inherit_label_flags(config: Config, *, earlier: Sequence[Path]) -> tuple[Config, list[str]]:
    """The config with the label flags that were not given taken from the `earlier` probs.json files that exist.

    Returns the config and a line to print for each flag that was inherited or differs from an earlier stage. Raises
    ValueError where a flag was not given and the earlier files disagree.
    """
    stories = {path: read_json(path) for path in earlier if path.exists()}
    chosen: dict[str, Any] = {}
    lines = []
    for flag in FLAGS:
        given = getattr(config, flag)
        recorded = {path: _recorded(story, flag, path) for path, story in stories.items() if flag in story}
        if not given and len(set(recorded.values())) > 1:
            found = " and ".join(f"{' '.join(words)} in {path}" for path, words in recorded.items())
            raise ValueError(f"--{flag} is {found}; pass the --{flag} to use here")
        chosen[flag] = given or next(iter(recorded.values()), MASKED)
        for path, words in recorded.items():
            if words != chosen[flag]:
                lines.append(f"note: --{flag} is {' '.join(chosen[flag])} here and was {' '.join(words)} in {path}")
        if not given and chosen[flag] != MASKED:
            lines.append(f"--{flag} {' '.join(chosen[flag])}, as recorded in {next(iter(recorded))}")
    return dataclasses.replace(config, **chosen), lines


def _recorded(story: Mapping[str, Any], flag: str, path: Path) -> tuple[str, ...]:
    words = entry(story, flag, list, path=path)
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError(
            f"{path}: its {flag} is {words}; expected a list such as ['mask']; run {writer_of(path)} again"
        )
    return tuple(words)


def label_flags(config: EvaluationConfig) -> dict[str, tuple[str, ...]]:
    """The flags as a stage records them."""
    return {flag: getattr(config, flag) for flag in FLAGS}
