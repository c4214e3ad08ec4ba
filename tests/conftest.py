"""What all tests share."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

DRAW = Figure.savefig  # the real method, before a fixture replaces it
HEIGHTS = itertools.count(20)  # every picture is another


@pytest.fixture(scope="module", autouse=True)
def small_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Save tiny images instead of drawing figures, in forked processes too, unless a module sets DRAWS_PICTURES."""

    def save(figure: Figure, path: Path, **options: object) -> None:
        Image.new("L", (40, next(HEIGHTS))).save(path, "PNG")

    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "DRAWS_PICTURES", False):
            patch.setattr(Figure, "savefig", save)
        yield


@pytest.fixture(scope="module")
def drawn() -> Callable[[], AbstractContextManager[None]]:
    """Returns a context manager in which figures are really drawn, for modules that save tiny images."""

    @contextmanager
    def drawing() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Figure, "savefig", DRAW)
            yield

    return drawing


@pytest.fixture(scope="module", autouse=True)
def small_networks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Replace both architectures by small networks, in forked processes too, unless a module sets WHOLE_NETWORKS."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "WHOLE_NETWORKS", False):
            replace_networks(patch)
        yield


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks for one test in a module that sets WHOLE_NETWORKS."""
    replace_networks(monkeypatch)


def replace_networks(patch: pytest.MonkeyPatch) -> None:
    """Replace both architectures by small networks."""
    from src.models import ARCHITECTURES  # here, since the process that hands tests to the workers needs no torch
    from tests.networks import SMALL_NETWORKS

    for arch, network in SMALL_NETWORKS.items():
        patch.setitem(ARCHITECTURES, arch, network)
