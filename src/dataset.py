"""Images by row number, in batches whose order depends on seed and epoch alone."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from src.transforms import read_image


class ImageDataset(Dataset):
    """Row -> (uint8 image [1, size, size], row), or what is wrong with the image.

    Labels stay outside, in arrays indexed by row. A fault is returned, not raised: an exception that crosses from a
    loader's process arrives wrapped in that process's traceback.
    """

    def __init__(self, paths: Sequence[Path], *, size: int):
        self.paths = list(paths)
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int] | str:
        try:
            return read_image(self.paths[row], size=self.size), row
        except ValueError as error:
            return str(error)


class EpochBatches(Sampler[list[int]]):
    """Every row once per epoch, shuffled by (seed, epoch), in batches that differ by at most one in size.

    Even batches leave no last batch of one image, which BatchNorm cannot train on.
    """

    def __init__(self, rows: int, *, batch_size: int, seed: int):
        super().__init__()
        self.rows = rows
        self.batches = math.ceil(rows / batch_size)
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.rows, generator=epoch_generator(self.seed, self.epoch))
        return (batch.tolist() for batch in order.tensor_split(self.batches))


def collate(samples: list[tuple[torch.Tensor, int] | str]) -> tuple[torch.Tensor, torch.Tensor] | str:
    """(uint8 [B, 1, S, S], rows [B]), or the first fault among the samples."""
    for sample in samples:
        if isinstance(sample, str):
            return sample
    images, rows = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(rows)


def batches(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of a loader; raises ValueError for one with an image that cannot be read."""
    for batch in loader:
        if isinstance(batch, str):
            raise ValueError(batch)
        yield batch


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """A generator whose stream depends on seed and epoch alone, so that a resumed epoch draws the same numbers."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def train_loader(dataset: ImageDataset, *, batch_size: int, seed: int, workers: int, pin: bool) -> DataLoader:
    """Batches (uint8 [B, 1, S, S], rows [B]) in a new order each epoch; set `loader.batch_sampler.epoch` first."""
    batches = EpochBatches(len(dataset), batch_size=batch_size, seed=seed)
    return DataLoader(dataset, batch_sampler=batches, **_options(workers, pin))


def eval_loader(dataset: ImageDataset, *, batch_size: int, workers: int, pin: bool) -> DataLoader:
    """Batches (uint8 [B, 1, S, S], rows [B]) in row order."""
    return DataLoader(dataset, batch_size=batch_size, **_options(workers, pin))


def _options(workers: int, pin: bool) -> dict[str, Any]:
    """A generator of its own keeps the loader from drawing on the global one, whatever the number of workers."""
    own = torch.Generator()
    options = {"num_workers": workers, "pin_memory": pin, "persistent_workers": workers > 0}
    return options | {"generator": own, "collate_fn": collate}
