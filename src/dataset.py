"""Images by row number, in batches whose order depends on seed and epoch alone."""

import atexit
import itertools
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from src.images.cache import CachedImages, open_cache
from src.images.decode import read_images
from src.runtime.distributed import rank, world_size
from src.runtime.tables import data_size, plural

SHARED_MEMORY = "/dev/shm"  # through which readers hand over batches on Linux
AHEAD = 2  # batches that each reader prepares, as DataLoader's prefetch_factor


class Batch(NamedTuple):
    """Images uint8 [B, 1, S, S] of each size S, their rows int64 [B], and what is wrong with each, "" for nothing."""

    by_size: dict[int, torch.Tensor]
    rows: torch.Tensor
    faults: list[str]

    @property
    def images(self) -> torch.Tensor:
        """The images of a batch of one size."""
        (images,) = self.by_size.values()
        return images

    def to(self, device: torch.device) -> "Batch":
        """The batch with its images on their way to a device, while the CPU goes on."""
        return self._replace(by_size={size: x.to(device, non_blocking=True) for size, x in self.by_size.items()})


class ImageDataset(Dataset[Batch]):
    """Rows -> Batch, from image files or from the cache of them.

    Labels stay outside, in arrays indexed by row. `read(path, sizes=sizes)` returns an image uint8 [1, S, S] for each
    size S, or raises ValueError. Faults are returned, not raised: an exception that crosses from a loader's process
    arrives wrapped in that process's traceback. An image that cannot be read is replaced by another of the batch, so
    that batches keep their size and BatchNorm sees radiographs only.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        sizes: Sequence[int],
        read: Callable[..., dict[int, torch.Tensor]] = read_images,
        cache: CachedImages | None = None,
    ):
        self.paths = list(paths)
        self.sizes = sorted(set(sizes))
        self.read = read
        self.cache = cache

    @classmethod
    def open(cls, paths: Sequence[Path], *, size: int, cache: Path | None, workers: int) -> "ImageDataset":
        """The data set of these files, by way of the cache in a folder where one is given, filled first."""
        cached = open_cache(cache, paths, size=size, workers=workers) if cache else None
        return cls(paths, sizes=[size], cache=cached)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: list[int]) -> Batch:
        if self.cache is not None:
            pixels, faults = self.cache.read(rows)
            by_size = {self.cache.size: torch.from_numpy(pixels)}
        else:
            by_size, faults = self._read(rows)
        if any(faults) and "" in faults:
            order = [faults.index("") if fault else index for index, fault in enumerate(faults)]
            by_size = {size: images[order] for size, images in by_size.items()}
        return Batch(by_size, torch.tensor(rows), faults)

    def _read(self, rows: list[int]) -> tuple[dict[int, torch.Tensor], list[str]]:
        by_size = {size: torch.zeros(len(rows), 1, size, size, dtype=torch.uint8) for size in self.sizes}
        faults = [""] * len(rows)
        for index, row in enumerate(rows):
            try:
                for size, image in self.read(self.paths[row], sizes=self.sizes).items():
                    by_size[size][index] = image
            except ValueError as error:
                faults[index] = str(error)
        return by_size, faults


class EpochBatches(Sampler[list[int]]):
    """Every row once per epoch, shuffled by (seed, epoch), in `accumulate` batches per optimizer step.

    With `repeats` [rows], from 1, a row comes that often on average: the whole part, and once more with the chance of
    the rest, drawn by (seed, epoch) too. Batches are those of all processes together and differ by at most one in size,
    so that no last batch of one image is left, which BatchNorm cannot train on; a process gets its share of each.
    `epoch` and `start`, the first step, are set before iterating. Raises ValueError where there are too few rows for
    every process to get one.
    """

    def __init__(
        self, rows: int, *, batch_size: int, seed: int, accumulate: int = 1, repeats: np.ndarray | None = None
    ):
        super().__init__()
        self.accumulate = accumulate
        self.step_size = batch_size * accumulate
        self.seed = seed
        self.epoch = 0
        self.start = 0
        self._repeats = torch.ones(rows) if repeats is None else torch.from_numpy(repeats)
        self._shuffled: tuple[int, tuple[torch.Tensor, ...]] | None = None
        drawn = range(rows, int(self._repeats.ceil().sum()) + 1)
        smallest = min(count // (self._steps(count) * accumulate) for count in drawn)
        if smallest < world_size():
            raise ValueError(
                f"{rows} training images at --batch-size {batch_size} --accumulate {accumulate} make batches of "
                f"{plural(smallest, 'image')} for {world_size()} processes; lower --accumulate or raise --batch-size"
            )

    def __len__(self) -> int:
        return (self.steps - self.start) * self.accumulate

    @property
    def steps(self) -> int:
        """Optimizer steps of the epoch."""
        return len(self._batches()) // self.accumulate

    def _steps(self, count: int) -> int:
        return math.ceil(count / self.step_size)

    def sizes(self, step: int) -> list[int]:
        """Images in each batch of a step, of all processes together."""
        return [len(rows) for rows in self._batches()[step * self.accumulate : (step + 1) * self.accumulate]]

    def rows_of(self, step: int) -> list[int]:
        """The rows of a step of the epoch, of all processes together."""
        return torch.cat(self._batches()[step * self.accumulate : (step + 1) * self.accumulate]).tolist()

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches()[self.start * self.accumulate :]:
            yield batch.tensor_split(world_size())[rank()].tolist()

    def _batches(self) -> tuple[torch.Tensor, ...]:
        """The rows [B] of each batch of the epoch."""
        if self._shuffled is None or self._shuffled[0] != self.epoch:
            rows = self._draw()
            split = [step.tensor_split(self.accumulate) for step in rows.tensor_split(self._steps(len(rows)))]
            self._shuffled = self.epoch, tuple(itertools.chain.from_iterable(split))
        return self._shuffled[1]

    def _draw(self) -> torch.Tensor:
        """The rows of the epoch in their order."""
        draws, rows = generator(self.seed, self.epoch), torch.arange(len(self._repeats))
        if (self._repeats > 1).any():  # else nothing is drawn for it
            counts = self._repeats + torch.rand(len(rows), dtype=torch.float64, generator=draws)
            rows = rows.repeat_interleave(counts.floor().long())
        return rows[torch.randperm(len(rows), generator=draws)]


class Loader(DataLoader[Batch]):
    """A loader of an ImageDataset."""

    dataset: ImageDataset


class TrainLoader(Loader):
    """A loader whose sampler makes the batches of every optimizer step."""

    sampler: EpochBatches


def derived_seed(*keys: int) -> int:
    """A seed that depends on all the keys, such as (seed, epoch, step), and differs where one of them does."""
    return int(np.random.SeedSequence(keys[0], spawn_key=keys[1:]).generate_state(1, np.uint64)[0])


def generator(*keys: int) -> torch.Generator:
    """A generator whose stream depends on the keys alone, so that a resumed run draws the same numbers."""
    return torch.Generator().manual_seed(derived_seed(*keys))


def train_loader(
    dataset: ImageDataset,
    *,
    batch_size: int,
    seed: int,
    workers: int,
    pin: bool,
    accumulate: int = 1,
    repeats: np.ndarray | None = None,
) -> TrainLoader:
    """Batches as `EpochBatches` makes them each epoch; set `epoch` and `start` of `loader.sampler` first."""
    sampler = EpochBatches(len(dataset), batch_size=batch_size, seed=seed, accumulate=accumulate, repeats=repeats)
    _check_shared_memory(dataset, batch_size, workers)
    return TrainLoader(dataset, sampler=sampler, **_options(workers, pin))


def eval_loader(dataset: ImageDataset, *, batch_size: int, workers: int, pin: bool) -> Loader:
    """Batches in row order, of which a process gets its share whole, so that each is computed as if by one process."""
    rows = range(len(dataset))
    _check_shared_memory(dataset, batch_size, workers)
    batches = [list(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
    return Loader(dataset, sampler=batches[rank() :: world_size()], **_options(workers, pin))


def on_device(loader: Loader, device: torch.device) -> Iterator[Batch]:
    """The batches of a loader on a device, the next one already on its way there."""
    moved = (batch.to(device) for batch in loader)
    for batch, _ in itertools.pairwise(itertools.chain(moved, [None])):
        yield batch


def steps(loader: TrainLoader, device: torch.device) -> Iterator[list[Batch]]:
    """The batches of each optimizer step that a train loader has left."""
    batches = on_device(loader, device)
    while parts := list(itertools.islice(batches, loader.sampler.accumulate)):
        yield parts


def _check_shared_memory(dataset: ImageDataset, batch_size: int, workers: int) -> None:
    """Raise ValueError where the batches that readers prepare do not fit: they would wait for room without end."""
    if not workers or not os.path.isdir(SHARED_MEMORY):
        return
    needed = workers * AHEAD * batch_size * sum(size**2 for size in dataset.sizes)
    room = shutil.disk_usage(SHARED_MEMORY).free
    if needed > room:
        raise ValueError(
            f"{plural(workers, 'reading process')} with batches of {batch_size}: {data_size(needed)} of shared memory "
            f"needed, and {SHARED_MEMORY} has {data_size(room)}; start the container with a larger --shm-size, or pass "
            "--workers 0"
        )


def _options(workers: int, pin: bool) -> dict[str, Any]:
    return {
        "batch_size": None,  # the sampler makes the batches
        "num_workers": workers,
        "pin_memory": pin,
        "persistent_workers": workers > 0,
        "worker_init_fn": _leave_signals_to_the_trainer,
        "generator": torch.Generator(),  # not the global one, on which 0 and more workers draw differently
    }


def _leave_signals_to_the_trainer(_: int) -> None:
    """SIGINT and SIGTERM reach the whole process group; the reader must live until the batch in hand is trained on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_readers() -> None:
    """Python ends what is left of them with SIGTERM, and would wait for ever."""
    if hasattr(signal, "SIGCHLD"):  # not on Windows
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would take their end for an accident
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
