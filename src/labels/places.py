"""Where under a data set's folder its image files lie, in whatever nesting they were unpacked."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from src.labels.files import named

DEPTH = 4  # levels of folders that are searched, the root itself included


def image_places(
    names: Sequence[str], root: Path, *, default: Iterable[str], suffixes: Sequence[str] = ("",)
) -> tuple[list[str], list[str]]:
    """The path of each image relative to `root`, and a warning where an image lies there more than once.

    names: [N] unique file names, or file names without the suffix, which is then one of `suffixes`.
    default: [N] the path that an image has where no folder holds it.
    Folders are searched level by level, each level in the order of the names, until every image is found.
    """
    wanted = {name + suffix: name for name in names for suffix in suffixes}
    where: dict[str, str] = {}
    copies = []
    level = [""]
    for _ in range(DEPTH):
        deeper = []
        for folder in level:
            files, folders = _entries(root / folder)
            deeper += [f"{folder}{name}/" for name in folders]
            for file in files:
                if file in wanted and wanted[file] in where:
                    copies.append(wanted[file])
                elif file in wanted:
                    where[wanted[file]] = folder + file
        if len(where) == len(names):
            break
        level = deeper
    found = [where.get(name, missing) for name, missing in zip(names, default, strict=True)]
    return found, named(copies, "images found in several places, of which the first is used")


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Files and folders in a folder, sorted, without the hidden ones; none where it cannot be read."""
    files: list[str] = []
    folders: list[str] = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                (folders if entry.is_dir() else files).append(entry.name)
    return sorted(files), sorted(folders)
