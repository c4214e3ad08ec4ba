"""The epoch loop on tiny images: batches, determinism, resume, and what stops it."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from src.dataset import EpochBatches, ImageDataset, eval_loader, train_loader
from src.early_stopping import EarlyStopping
from src.engine import Run, Split, fit, predict, train_one_epoch
from src.train_utils import build_optimizer, build_scheduler

CLASSES = ("bright", "left")
SIZE = 32


class Tiny(nn.Module):
    """A small network with what makes training random: BatchNorm and dropout."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(392, 2)
        )

    def forward(self, images):
        return self.net(images)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """23 images, bright or dark, brighter on the left or on the right, and their labels with gaps."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (23, 2)).astype(float)
    for row, (bright, left) in enumerate(labels):
        pixels = rng.normal(80 + 80 * bright, 10, (SIZE, SIZE))
        pixels[:, : SIZE // 2] += 30 if left else -30
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{row:02}.png")
    labels[3, 0], labels[5] = -1, np.nan
    return sorted(folder.iterdir()), labels


def make_split(images, *, shuffled, workers=0):
    paths, labels = images
    dataset = ImageDataset(paths, size=SIZE)
    if shuffled:
        loader = train_loader(dataset, batch_size=8, seed=3, workers=workers, pin=False)
    else:
        loader = eval_loader(dataset, batch_size=8, workers=workers, pin=False)
    mask = torch.from_numpy(labels >= 0)
    targets = torch.from_numpy(np.where(labels == 1, 1.0, 0.0)).float()
    return Split(loader, targets, mask)


def make_run(patience=100):
    torch.manual_seed(0)
    model = Tiny()
    optimizer = build_optimizer(model, lr=1e-2, weight_decay=0.01)
    return Run(model, optimizer, build_scheduler(optimizer, factor=0.5, patience=0), EarlyStopping(patience))


def train(run, images, *, epochs, workers=0, augmented=True):
    splits = {"train": make_split(images, shuffled=True, workers=workers), "val": make_split(images, shuffled=False)}
    options = {"pos_weight": torch.ones(2), "classes": CLASSES, "seed": 3, "augmented": augmented}
    return list(fit(run, **splits, epochs=epochs, **options))


def weights(run):
    return torch.cat([value.double().flatten() for value in run.model.state_dict().values()])


def test_every_row_comes_once_per_epoch_in_batches_of_even_size():
    batches = EpochBatches(33, batch_size=16, seed=0)
    first = list(batches)
    assert [len(batch) for batch in first] == [11, 11, 11] and len(batches) == 3
    assert sorted(sum(first, [])) == list(range(33))
    assert list(batches) == first
    batches.epoch = 1
    assert list(batches) != first and sorted(sum(batches, [])) == list(range(33))


def test_it_learns(images):
    run = make_run()
    train(run, images, epochs=12, augmented=False)
    assert run.history[-1]["train_loss"] < 0.6 * run.history[0]["train_loss"]
    assert run.history[-1]["val_auroc"] > 0.9


def test_predictions_come_in_row_order(images):
    split = make_split(images, shuffled=False)
    model = make_run().model.eval()
    logits = predict(model, split.loader, device=torch.device("cpu"), title="")
    one = eval_loader(ImageDataset(images[0], size=SIZE), batch_size=1, workers=0, pin=False)
    torch.testing.assert_close(logits, predict(model, one, device=torch.device("cpu"), title=""))
    assert logits.shape == (23, 2) and len(torch.unique(logits[:, 0])) == 23


def test_same_seed_same_weights_whatever_the_number_of_workers(images):
    first, second, third = make_run(), make_run(), make_run()
    train(first, images, epochs=2)
    torch.manual_seed(999)
    train(second, images, epochs=2)
    train(third, images, epochs=2, workers=2)
    assert torch.equal(weights(first), weights(second)) and torch.equal(weights(first), weights(third))


def test_a_resumed_run_ends_in_the_same_weights_and_history(images):
    whole, begun, resumed = make_run(), make_run(), make_run()
    train(whole, images, epochs=4)
    train(begun, images, epochs=2)
    resumed.load_state_dict(begun.state_dict())
    train(resumed, images, epochs=4)
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.history == resumed.history and len(whole.history) == 4


def test_the_epoch_loss_is_weighted_by_valid_entries(images):
    run, split = make_run(), make_split(images, shuffled=True)
    run.model.net[3].p = 0.0
    run.optimizer.param_groups[0]["lr"] = run.optimizer.param_groups[1]["lr"] = 0.0
    options = {"pos_weight": torch.ones(2), "epoch": 1, "seed": 3, "augmented": False}
    loss = train_one_epoch(run, split, **options)
    losses, counts = [], []
    for pixels, rows in split.loader:
        logits = run.model(((pixels.float() / 255) - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
                           / torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))  # fmt: skip
        terms = nn.functional.binary_cross_entropy_with_logits(logits, split.targets[rows], reduction="none")
        losses.append(terms[split.mask[rows]].sum().item())
        counts.append(split.mask[rows].sum().item())
    assert loss == pytest.approx(sum(losses) / sum(counts), rel=1e-5)
    assert len(set(counts)) > 1


def test_fit_stops_early_and_lowers_the_learning_rate(images):
    run = make_run(patience=2)
    run.optimizer.param_groups[0]["lr"] = run.optimizer.param_groups[1]["lr"] = 0.0
    run.model.net[1].momentum = 0.0
    records = train(run, images, epochs=10)
    assert [improved for _, improved in records] == [True, False, False]
    run = make_run()
    run.stopping.step(2.0)
    run.scheduler.best = 2.0
    records = train(run, images, epochs=3)
    assert [record["lr"] for record, _ in records] == [0.01, 0.005, 0.0025]


def test_a_loss_that_is_not_finite_stops_and_names_the_images(images):
    run, split = make_run(), make_split(images, shuffled=True)
    with torch.no_grad():
        run.model.net[5].bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"the loss is nan in epoch 1; lower --lr.*\d\d.png, .*\d\d.png"):
        train_one_epoch(run, split, pos_weight=torch.ones(2), epoch=1, seed=0, augmented=False)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_plain_line_from_whatever_process(images, tmp_path, workers):
    broken = tmp_path / "broken.png"
    broken.write_text("text")
    loader = eval_loader(ImageDataset([images[0][0], broken], size=SIZE), batch_size=2, workers=workers, pin=False)
    with pytest.raises(ValueError, match="broken.png is not an image") as error:
        predict(make_run().model, loader, device=torch.device("cpu"), title="")
    assert "\n" not in str(error.value)
