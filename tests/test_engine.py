"""The epoch loop on tiny images: batches, determinism, resume, and what stops it."""

import dataclasses
import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from src.dataset import EpochBatches, ImageDataset, derived_seed, eval_loader, train_loader
from src.early_stopping import EarlyStopping
from src.engine import Run, Split, Task, _draws, _warn_of, fit, predict, train_one_epoch, validate
from src.runtime.interrupts import Interrupts
from src.train_utils import MaskedLoss, build_average, build_optimizer, build_scheduler
from src.transforms import prepare
from tests.trees import ROOT

CLASSES = ("bright", "left")
SIZE = 32


class Model(nn.Module):
    """What the engine asks of a model beside the forward pass."""

    def folded(self):
        return self.eval()


class Tiny(Model):
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


def make_split(images, *, shuffled, workers=0, **options):
    paths, labels = images
    dataset = ImageDataset(paths, sizes=[SIZE])
    if shuffled:
        options = {"batch_size": 8, "seed": 3, **options}
        loader = train_loader(dataset, workers=workers, pin=False, **options)
    else:
        loader = eval_loader(dataset, batch_size=8, workers=workers, pin=False)
    mask = torch.from_numpy(labels >= 0)
    targets = torch.from_numpy(np.where(labels == 1, 1.0, 0.0)).float()
    return Split(loader, targets, mask)


PLAIN = MaskedLoss(torch.ones(2), torch.ones(2))
# Every remedy at once: what is drawn, weighted, selected, averaged and warmed up must all survive a resume.
REMEDIES = {
    "loss": MaskedLoss(torch.ones(2), torch.tensor([0.5, 2.0]), gamma=(1.0, 3.0), margin=0.05, hard_fraction=0.4),
    "repeats": np.linspace(1, 2.5, 23),
    "flipped": True,
    "warmup_epochs": 1.5,
    "monitor": "loss",
}


def make_task(
    images, *, workers=0, loss=PLAIN, augmented=True, flipped=True, bfloat16=False, warmup_epochs=0.0,
    monitor="auprc", **options,
):  # fmt: skip
    train, val = make_split(images, shuffled=True, workers=workers, **options), make_split(images, shuffled=False)
    return Task(train, val, loss, CLASSES, 3, augmented, flipped, bfloat16, warmup_epochs, monitor)


def make_run(patience=100, model=Tiny, decay=None):
    torch.manual_seed(0)
    model = model()
    optimizer = build_optimizer(model, lr=1e-2, weight_decay=0.01)
    scheduler, stopping = build_scheduler(optimizer, factor=0.5, patience=0), EarlyStopping(patience)
    return Run(model, optimizer, scheduler, stopping, model, build_average(model, decay=decay) if decay else None)


def train(run, images, *, epochs, **options):
    return list(fit(run, make_task(images, **options), epochs=epochs, interrupts=Interrupts(60)))


def copied(state):
    """The state as it comes back from a file."""
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


class Plain(nn.Sequential, Model):
    """Nothing random, nothing that mixes the images of a batch."""

    def __init__(self):
        super().__init__(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 64, 2))


def weights(run):
    models = [run.model, *([run.average] if run.average else [])]
    return torch.cat([value.double().flatten() for model in models for value in model.state_dict().values()])


def test_every_row_comes_once_per_epoch_in_batches_of_even_size():
    batches = EpochBatches(33, batch_size=16, seed=0)
    first = list(batches)
    assert [len(batch) for batch in first] == [11, 11, 11] and len(batches) == 3
    assert sorted(sum(first, [])) == list(range(33))
    assert list(batches) == first
    batches.epoch = 1
    assert list(batches) != first and sorted(sum(batches, [])) == list(range(33))


def test_rows_are_repeated_as_often_as_their_factors_say():
    repeats = np.array([1.0, 1.25, 3.5] * 11)
    batches = EpochBatches(33, batch_size=16, seed=0, repeats=repeats)
    counts, steps = np.zeros(33), set()
    for batches.epoch in range(400):
        drawn = np.bincount(sum(batches, []), minlength=33)
        assert ((drawn == np.floor(repeats)) | (drawn == np.ceil(repeats))).all()
        counts += drawn
        steps.add(batches.steps)
        assert batches.steps == len(batches) == np.ceil(drawn.sum() / 16)
    np.testing.assert_allclose(counts / 400, repeats, atol=0.1)
    assert len(steps) > 1
    plain, ones = (EpochBatches(33, batch_size=16, seed=0, repeats=each) for each in (None, np.ones(33)))
    assert list(plain) == list(ones)


def test_the_costliest_share_of_a_step_is_trained_on(images):
    """By hand: the mean over the costliest third of the step's valid entries, and its gradient."""
    run = make_run(model=Plain)
    loss = dataclasses.replace(PLAIN, class_weight=torch.tensor([1.0, 2.0]), hard_fraction=1 / 3)
    task = make_task(images, augmented=False, flipped=False, batch_size=12, accumulate=2, loss=loss)
    run.optimizer = torch.optim.SGD(run.model.parameters(), lr=1.0)
    before, plain = copied(run.model.state_dict()), Plain()
    plain.load_state_dict(before)
    assert list(train_one_epoch(run, task, epoch=1, interrupts=Interrupts(60))) == []
    task.train.loader.sampler.start = 0
    terms = []
    for batch in task.train.loader:
        targets, mask = task.train.labels(batch)
        logits = plain(prepare(batch.images, draws=None))
        terms.append(
            (nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none") * loss.class_weight)[
                mask
            ]
        )
    hardest = torch.cat(terms).sort(descending=True).values[: run.progress.valid]
    assert len(hardest) == -(-len(torch.cat(terms)) // 3)
    hardest.mean().backward()
    assert run.progress.loss / run.progress.valid == pytest.approx(hardest.mean().item(), rel=1e-6)
    for new, old, parameter in zip(run.model.parameters(), before.values(), plain.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old - parameter.grad, rtol=1e-5, atol=1e-7)


def test_the_learning_rate_warms_up_by_step_and_the_scheduler_does_not_see_it(images, monkeypatch):
    run, rates = make_run(model=Plain), []
    step = run.optimizer.step
    monkeypatch.setattr(run.optimizer, "step", lambda: (rates.append(run.optimizer.param_groups[0]["lr"]), step()))
    run.scheduler.patience = 10
    train(run, images, epochs=3, warmup_epochs=1.5)
    np.testing.assert_allclose(rates, 0.01 * np.minimum(1, np.arange(1, 10) / 4.5))
    assert [record["lr"] for record in run.history] == [0.01] * 3


def test_the_average_is_what_is_validated_and_kept(images):
    run, plain = make_run(decay=0.5), make_run()
    snapshots = []
    run.optimizer.register_step_post_hook(lambda *_: snapshots.append(copied(run.model.state_dict())))
    train(run, images, epochs=1)
    train(plain, images, epochs=1)
    decays = [2 / 11, 3 / 12]  # min(0.5, (1 + n) / (10 + n)) after n = 1 and 2 steps
    for name, value in run.kept.state_dict().items():
        if value.is_floating_point() and "running" not in name:
            average = snapshots[0][name]
            for decay, snapshot in zip(decays, snapshots[1:], strict=True):
                average = decay * average + (1 - decay) * snapshot[name]
            torch.testing.assert_close(value, average)
    assert torch.equal(weights(plain), torch.cat([v.double().flatten() for v in run.model.state_dict().values()]))
    task = make_task(images)
    own = validate(run.kept.folded(), task, interrupts=Interrupts(60), known_faults=set())
    assert run.history[0]["val_loss"] == own["val_loss"] != plain.history[0]["val_loss"]


@pytest.mark.parametrize("monitor", ["auroc", "loss"])
def test_the_monitored_score_decides(images, monitor):
    run = make_run()
    records = train(run, images, epochs=6, monitor=monitor)
    scores = [record[f"val_{monitor}"] * (-1 if monitor == "loss" else 1) for record, _ in records]
    assert [improved for _, improved in records] == [s > max(scores[:i], default=-9) for i, s in enumerate(scores)]
    assert run.scheduler.best == run.stopping.best == max(scores)


def test_flips_and_the_rest_of_the_augmentation_are_apart(images):
    task = make_task(images, augmented=False, flipped=True)
    batch = next(iter(task.train.loader))
    kinds = {}
    for augmented in (False, True):
        for flipped in (False, True):
            part = dataclasses.replace(task, augmented=augmented, flipped=flipped)
            kinds[augmented, flipped] = _draws(part, [len(batch.rows)], 1, 0, 0)
    assert kinds[False, False] is None and not kinds[False, True][:, 1:].any()
    assert (kinds[True, False][:, 0] == 1).all() and torch.equal(kinds[True, False][:, 1:], kinds[True, True][:, 1:])
    out = prepare(batch.images, draws=kinds[False, True])
    plain = prepare(batch.images, draws=None)
    for image, before, flip in zip(out, plain, kinds[False, True][:, 0], strict=True):
        torch.testing.assert_close(image, before.flip(2) if flip < 0 else before, atol=1e-4, rtol=0)


def test_scores_count_the_entries_they_are_told_to(images):
    task = make_task(images)
    scored = task.val.mask.clone()
    scored[5] = True  # blanks of row 5, whose target is 0
    run, scores = make_run(), []
    for val in (task.val, dataclasses.replace(task.val, scored=scored)):
        part = dataclasses.replace(task, val=val)
        scores.append(validate(run.model.folded(), part, interrupts=Interrupts(60), known_faults=set()))
    assert scores[0]["val_loss"] == scores[1]["val_loss"] and scores[0]["val_auprc"] != scores[1]["val_auprc"]


def test_it_learns(images):
    run = make_run()
    train(run, images, epochs=12, augmented=False, flipped=False)
    assert run.history[-1]["train_loss"] < 0.6 * run.history[0]["train_loss"]
    assert run.history[-1]["val_auroc"] > 0.9


def predictions(model, loader):
    return predict(model, loader, width=2, device=torch.device("cpu"), title="")[0]


def test_predictions_come_in_row_order(images):
    model = make_run().model.eval()
    logits = predictions(model, make_split(images, shuffled=False).loader)
    one = eval_loader(ImageDataset(images[0], sizes=[SIZE]), batch_size=1, workers=0, pin=False)
    torch.testing.assert_close(logits, predictions(model, one))
    assert logits.shape == (23, 2) and len(torch.unique(logits[:, 0])) == 23


def test_same_seed_same_weights_whatever_the_number_of_workers(images):
    first, second, third = make_run(), make_run(), make_run()
    train(first, images, epochs=2)
    torch.manual_seed(999)
    train(second, images, epochs=2)
    train(third, images, epochs=2, workers=2)
    assert torch.equal(weights(first), weights(second)) and torch.equal(weights(first), weights(third))


@pytest.mark.parametrize("options", [{}, {"bfloat16": True}, REMEDIES], ids=["float32", "bfloat16", "remedies"])
@pytest.mark.parametrize("saves", [1, 2, 3, 5, 7])
def test_a_run_resumed_from_any_checkpoint_ends_in_the_same_weights_and_history(images, saves, options):
    """With 3 steps and one end per epoch, saves 1 and 5 are after a first step, 3 after the last, 7 in validation."""
    whole, begun, resumed = (make_run(decay=0.7 if options is REMEDIES else None) for _ in range(3))
    train(whole, images, epochs=3, **options)
    for count, _ in enumerate(fit(begun, make_task(images, **options), epochs=3, interrupts=Interrupts(0)), 1):
        if count == saves:
            state = copied(begun.state_dict())
            break
    resumed.load_state_dict(state)
    train(resumed, images, epochs=3, **options)
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.history == resumed.history and len(whole.history) == 3


def test_a_stop_asked_for_in_validation_leaves_the_epoch_to_be_validated(images):
    whole, stopped = make_run(), make_run()
    train(whole, images, epochs=2)
    interrupts = Interrupts(60)
    hook = stopped.model.register_forward_pre_hook(lambda module, _: None if module.training else interrupts.ask())
    assert next(fit(stopped, make_task(images), epochs=2, interrupts=interrupts)) is None
    assert stopped.progress.step == 3 and not stopped.history
    hook.remove()
    resumed = make_run()
    resumed.load_state_dict(copied(stopped.state_dict()))
    train(resumed, images, epochs=2)
    assert torch.equal(weights(whole), weights(resumed)) and whole.history == resumed.history


@pytest.mark.parametrize("options", [{}, REMEDIES], ids=["plain", "remedies"])
def test_a_step_in_several_passes_is_the_step_in_one(images, options):
    one, two = make_run(model=Plain), make_run(model=Plain)
    train(one, images, epochs=2, batch_size=8, **options)
    train(two, images, epochs=2, batch_size=4, accumulate=2, **options)
    torch.testing.assert_close(weights(one), weights(two), rtol=0, atol=1e-6)
    assert one.history[1]["train_loss"] == pytest.approx(two.history[1]["train_loss"], rel=1e-6)


def test_bfloat16_changes_the_arithmetic_and_little_else(images):
    exact, rounded = make_run(), make_run()
    for run, bfloat16 in ((exact, False), (rounded, True)):
        train(run, images, epochs=1, bfloat16=bfloat16)
    loss, close = exact.history[0]["train_loss"], rounded.history[0]["train_loss"]
    assert loss != close and loss == pytest.approx(close, rel=0.05)
    assert {parameter.dtype for parameter in rounded.model.parameters()} == {torch.float32}


def test_the_epoch_loss_is_weighted_by_valid_entries(images):
    run, task = make_run(), make_task(images, augmented=False, flipped=False)
    run.model.net[3].p = 0.0
    for group in run.optimizer.param_groups:
        group["lr"] = 0.0
    assert list(train_one_epoch(run, task, epoch=1, interrupts=Interrupts(60))) == []
    losses, counts = [], []
    for batch in task.train.loader:
        targets, mask = task.train.labels(batch)
        terms = nn.functional.binary_cross_entropy_with_logits(
            run.model(prepare(batch.images, draws=None)), targets, reduction="none"
        )
        losses.append(terms[mask].sum().item())
        counts.append(mask.sum().item())
    assert run.progress.loss == pytest.approx(sum(losses), rel=1e-5)
    assert run.progress.valid == sum(counts) and len(set(counts)) > 1


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
    run = make_run()
    with torch.no_grad():
        run.model.net[5].bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"the loss is nan in epoch 1; lower --lr.*\d\d.png, .*\d\d.png"):
        train(run, images, epochs=1)
    assert not run.history


def test_weights_that_are_not_finite_are_not_kept(images):
    run = make_run()
    run.model.net[5].bias.register_hook(lambda gradient: gradient * float("nan"))  # the loss before it is finite
    with pytest.raises(ValueError, match=r"weights are not finite in epoch 1; lower --lr.*\d\d.png"):
        list(fit(run, make_task(images), epochs=1, interrupts=Interrupts(0)))
    assert not run.history


def with_broken(images, tmp_path, *, copies):
    """The images several times over, one of them broken; and the same labels with that one masked."""
    broken = tmp_path / "broken.png"
    broken.write_text("text")
    paths, labels = images[0] * copies, np.tile(images[1], (copies, 1))
    masked = labels.copy()
    masked[4] = np.nan
    return ([*paths[:4], broken, *paths[5:]], labels), (paths, masked)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_training_image_is_skipped_named_and_counted(images, tmp_path, capsys, workers):
    broken, masked = with_broken(images, tmp_path, copies=5)
    skipping, without = make_run(model=Plain), make_run(model=Plain)
    train(skipping, broken, epochs=2, workers=workers)
    assert capsys.readouterr().err.count("warning: skipped: ") == 1
    train(without, masked, epochs=2)
    assert torch.equal(weights(skipping), weights(without))
    assert [record["skipped"] for record in skipping.history] == [2, 2]  # once in training, once in validation
    assert [record["val_loss"] for record in skipping.history] == [record["val_loss"] for record in without.history]


def test_only_the_first_unreadable_images_are_named(capsys):
    known = set()
    for start in (0, 20):
        _warn_of([f"image {number} is gone" for number in range(start, start + 25)], known)
    said = capsys.readouterr().err.splitlines()
    assert said[:20] == [f"warning: skipped: image {number} is gone" for number in range(20)]
    assert said[20:] == ["warning: more images were skipped; list them with check_split.py --images open"]
    assert len(known) == 45


def test_more_than_one_unreadable_image_in_a_hundred_stops_the_run(images, tmp_path):
    broken, _ = with_broken(images, tmp_path, copies=4)
    with pytest.raises(
        ValueError,
        match="1 of 92 training images could not be read so far .*broken.png is not an image.*, more than 1%",
    ):
        train(make_run(), broken, epochs=1)


def test_more_than_one_unreadable_validation_image_in_a_hundred_stops_the_run(images, tmp_path, capsys):
    broken, _ = with_broken(images, tmp_path, copies=4)
    run, task = make_run(), dataclasses.replace(make_task(images), val=make_split(broken, shuffled=False))
    with pytest.raises(ValueError, match="1 of 92 validation images could not be read .*broken.png is not an image"):
        list(fit(run, task, epochs=1, interrupts=Interrupts(60)))
    assert "warning: skipped: " in capsys.readouterr().err and not run.history


def test_predictions_say_which_images_are_unreadable(images, tmp_path):
    broken, _ = with_broken(images, tmp_path, copies=1)
    loader = make_split(broken, shuffled=False).loader
    logits, faults = predict(make_run().model, loader, width=2, device=torch.device("cpu"), title="")
    assert list(faults) == [4] and "broken.png is not an image" in faults[4] and logits.isfinite().all()


def test_the_cache_gives_the_rows_asked_for(images, tmp_path):
    read, cached = (ImageDataset.open(images[0], size=16, cache=cache, workers=0) for cache in (None, tmp_path))
    rows = [7, 2, 2, 11]
    assert cached.cache is not None
    assert torch.equal(read[rows].images, cached[rows].images) and read[rows].images.float().std() > 0


def test_seeds_of_different_keys_differ():
    keys = [(0,), (0, 0), (0, 0, 0), (0, 1), (1, 0), (1,), (0, 0, 1), (0, 0, 0, 1)]
    assert len({derived_seed(*each) for each in keys}) == len(keys)
    assert derived_seed(3, 1, 4) == derived_seed(3, 1, 4)


def test_too_few_images_for_the_passes_are_refused():
    with pytest.raises(ValueError, match="make batches of 0 images"):
        EpochBatches(3, batch_size=1, seed=0, accumulate=5)


def test_signals_only_ask_within_the_watch():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts(60) as interrupts:
        assert not interrupts.due and not interrupts.stop
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)  # at once after the first: the same wish, twice
        assert interrupts.due and interrupts.stop and interrupts.signal == signal.SIGTERM
        interrupts._asked -= 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    assert Interrupts(0).due


def test_python_exits_though_a_reader_is_left(images):
    code = (
        "import sys; from pathlib import Path; from src.dataset import ImageDataset, eval_loader\n"
        "dataset = ImageDataset([Path(sys.argv[1])], sizes=[16])\n"
        "batches = iter(eval_loader(dataset, batch_size=1, workers=1, pin=False))\n"
        "print(next(batches).faults)"
    )
    command = [sys.executable, "-c", code, str(images[0][0])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "['']\n"), done.stderr


def test_a_reader_that_is_killed_ends_the_stage_in_one_line(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from src.runtime.script import run\n"
        "from src.dataset import ImageDataset, eval_loader\n"
        "def read(path, *, sizes): os.kill(os.getpid(), signal.SIGKILL)\n"
        "dataset = ImageDataset([Path('a.png')] * 9, sizes=[16], read=read)\n"
        "run(lambda: list(eval_loader(dataset, batch_size=1, workers=2, pin=False)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "a process that reads images was killed by the system" in done.stderr


def test_batches_that_do_not_fit_into_shared_memory_are_refused_before_readers_wait(monkeypatch):
    dataset = ImageDataset([Path("a.png")] * 64, sizes=[224])
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("src.dataset.shutil.disk_usage", lambda _: usage._replace(free=20_000_000))
    monkeypatch.setattr("src.dataset.SHARED_MEMORY", "/")
    eval_loader(dataset, batch_size=32, workers=2, pin=False)
    match = "2 reading processes with batches of 128: 26 MB of shared memory needed, and / has 20 MB; .*--shm-size"
    with pytest.raises(ValueError, match=match):
        eval_loader(dataset, batch_size=128, workers=2, pin=False)
    eval_loader(dataset, batch_size=128, workers=0, pin=False)
