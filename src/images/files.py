"""Image files of any kind: found among files and folders, and read at the sizes that models take."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image

from src.images.decode import ImageError, access_error, read_images
from src.images.dicom import is_dicom, study_uid
from src.images.pixels import FORMATS
from src.runtime.system_errors import in_words

SUFFIXES = {suffix for suffix, kind in Image.registered_extensions().items() if kind in (*FORMATS, "MPO")}
HEATMAP_SUFFIX = ".heat.png"  # of pictures that are not radiographs


def read_file(path: Path, *, sizes: Sequence[int], equalize: bool = False) -> dict[int, torch.Tensor]:
    """`read_images` of a file that is not part of a run; raises ValueError saying what is wrong with it."""
    try:
        return read_images(path, sizes=sizes, equalize=equalize)
    except OSError as error:
        raise ValueError(access_error(path, error).reason) from None
    except ImageError as error:  # without its advice, which is for the images of a run
        raise ValueError(error.reason) from None
    except MemoryError as error:
        raise ValueError(str(error) or "MemoryError") from None


def study_of(path: Path, *, by: str) -> Path | str:
    """What names the study that an image is of: its folder, its StudyInstanceUID, or its own path.

    by: "folder" takes the folder; "auto" the UID of a DICOM file that has one, and else the path; "file" the path. A
    folder in which no image was found stands for a study of its own.
    """
    if by == "folder":
        return path if os.path.isdir(path) else path.parent
    return (study_uid(path) if by == "auto" and may_be_dicom(path) else "") or path


def may_be_dicom(path: Path) -> bool:
    """Whether a file can be read and says that it is DICOM."""
    try:
        return os.path.isfile(path) and is_dicom(path)
    except OSError:  # its row says why it cannot be read
        return False


def find_images(paths: Sequence[Path], *, skip: Path | None = None) -> tuple[dict[Path, str], list[Path]]:
    """The images among files and folders, each once and in order, and what is known to be wrong with each, else "".

    A file that is named is always taken. In folders and below, files count that have a suffix of the formats that are
    read or are DICOM by name or content, except hidden files and folders, heat maps and the folder `skip`; the others
    are returned as well, for the user to be told. Links to folders are followed last, unless they lead to a folder that
    was searched already or that holds the named one.
    """
    found: dict[str, tuple[Path, str]] = {}
    others: list[Path] = []
    for path in paths:
        inside = _search(path, skip=skip, others=others) if os.path.isdir(path) else [(path, "")]
        for file, fault in inside:
            found.setdefault(os.path.abspath(file), (file, fault))
    return dict(found.values()), [path for path in dict.fromkeys(others) if os.path.abspath(path) not in found]


def _search(folder: Path, *, skip: Path | None, others: list[Path]) -> Iterator[tuple[Path, str]]:
    known = set(map(os.path.realpath, (*Path(os.path.realpath(folder)).parents, *([] if skip is None else [skip]))))
    errors: list[OSError] = []
    links, count = [folder], 0
    while links:
        for root, folders, files in os.walk(links.pop(0), onerror=errors.append):
            searched = os.path.realpath(root) in known
            known.add(os.path.realpath(root))
            folders[:] = [] if searched else sorted(name for name in folders if not name.startswith("."))
            links += [Path(root, name) for name in folders if os.path.islink(os.path.join(root, name))]
            for name in [] if searched else sorted(files):
                if name.startswith(".") or name.endswith(HEATMAP_SUFFIX):
                    continue
                if _is_image(Path(root, name)):
                    count += 1
                    yield Path(root, name), ""
                else:
                    others.append(Path(root, name))
    for error in errors:
        yield Path(error.filename), f"folder {error.filename} cannot be read ({in_words(error)})"
    if not count and not errors:
        yield folder, f"folder {folder} holds no image"


def _is_image(path: Path) -> bool:
    try:
        return path.suffix.lower() in SUFFIXES or os.path.isfile(path) and is_dicom(path)
    except OSError:  # it may be one, and its row then says why it cannot be read
        return True
