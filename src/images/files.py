"""Image files of any kind: found among files and folders, and read at the sizes that models take."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from src.images.decode import ImageError, access_error, read_images, resized
from src.images.dicom import is_dicom, read_dicom
from src.images.pixels import check_contrast, stretched

SUFFIXES = (".jpg", ".jpeg", ".png")
HEATMAP_SUFFIX = ".heat.png"  # of pictures that are not radiographs


def read_file(path: Path, *, sizes: Sequence[int]) -> dict[int, torch.Tensor]:
    """An image of any kind as uint8 [1, S, S] for each size S. Raises ValueError saying what is wrong with it.

    DICOM is treated as 16-bit PNG once it looks as in a viewer: stretched over its own range, then resized.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError(f"{path} is not a regular file")
        if not is_dicom(path):
            return read_images(path, sizes=sizes)
        gray = _of_dicom(path)
        return {size: resized(gray, size).unsqueeze(0) for size in sizes}
    except OSError as error:
        raise ValueError(access_error(path, error).reason) from None
    except ImageError as error:  # without its advice, which is for the images of a run
        raise ValueError(error.reason) from None
    except MemoryError as error:
        raise ValueError(str(error) or "MemoryError") from None


def _of_dicom(path: Path) -> torch.Tensor:
    """A DICOM file as gray, uint8 [H, W]."""
    values = read_dicom(path)
    try:
        gray = stretched(values)
        check_contrast(gray)
    except ValueError as error:
        raise ValueError(f"DICOM file {path} cannot be read ({error})") from None
    return torch.from_numpy(gray)


def find_images(paths: Sequence[Path], *, skip: Path | None = None) -> dict[Path, str]:
    """The images among files and folders, each once and in order, and what is known to be wrong with each, else "".

    A file that is named is always taken. In folders and below, files count that end in .jpg, .jpeg or .png or are DICOM
    by name or content, except hidden files and folders, heat maps and the folder `skip`. Links to folders are followed
    last, unless they lead to a folder that was searched already or that holds the named one.
    """
    found: dict[str, tuple[Path, str]] = {}
    for path in paths:
        inside = _search(path, skip=skip) if os.path.isdir(path) else [(path, "")]
        for file, fault in inside:
            found.setdefault(os.path.abspath(file), (file, fault))
    return dict(found.values())


def _search(folder: Path, *, skip: Path | None) -> Iterator[tuple[Path, str]]:
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
                if not name.startswith(".") and _is_image(Path(root, name)):
                    count += 1
                    yield Path(root, name), ""
    for error in errors:
        yield Path(error.filename), f"folder {error.filename} cannot be read ({error.strerror})"
    if not count and not errors:
        yield folder, f"folder {folder} holds no JPEG, PNG or DICOM file"


def _is_image(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return not path.name.endswith(HEATMAP_SUFFIX)
    try:
        return os.path.isfile(path) and is_dicom(path)
    except OSError:  # it may be one, and its row then says why it cannot be read
        return True
