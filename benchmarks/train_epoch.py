"""How fast a training epoch is, against a plain loop of the kind this field uses, measured in turn in one run.

plain            PIL and torchvision transforms per sample, a DataLoader with 2 workers, float32, NCHW, the torchvision
                 model in train mode with requires_grad=False on the frozen layers, AdamW, masked BCE-with-logits
ours             the engine, reading the same files, with the default unfreezing
ours compiled    the same with --compile; the first epoch, which compiles, is left out and stated apart
... bfloat16     what both compute in, or float32 (on a CPU only); the tables say which the training script would pick
on the device    (GPU only) the engine's steps on batches that lie on the device already

The images are --count JPEGs of CheXpert-small's size, 390 x 320, cut from the radiographs in --images. Every loop runs
in a process of its own, and the loops take turns, an epoch each. On a GPU ours reads from the cache, filled beforehand.
Prints Markdown tables: images per second and the ratio to the plain loop's epoch of the same turn, medians over the
turns, with the lowest and the highest ratio; and the largest relative difference between the losses of both models,
step by step, where the arithmetic is the same (the same images in the same order, no augmentation, the same initial
weights, frozen BatchNorms in eval mode).

Example: python benchmarks/train_epoch.py --arch resnet50 --images ChestX-ray14/images
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.dataset import Batch, ImageDataset, train_loader
from src.early_stopping import EarlyStopping
from src.engine import Progress, Run, Split, Task, train_one_epoch
from src.models import build_model, compile_for_training
from src.runtime.interrupts import Interrupts
from src.train_utils import MaskedLoss, bfloat16_is_faster, build_optimizer, build_scheduler, masked_bce
from src.transforms import IMAGENET_MEAN, IMAGENET_STD, prepare

UNFREEZE = {"resnet50": "layer3", "efficientnet_b1": 3}  # the training scripts' defaults
CLASSES = tuple(f"finding {number}" for number in range(13))
SIZE, WORKERS, LR, DECAY = 224, 2, 1e-4, 1e-2
JPEG_SIZE = (390, 320)


def write_images(source, folder, count):
    """`count` different JPEGs, each cut from one of the pictures in `source`."""
    pictures = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not pictures:
        sys.exit(f"no PNG or JPEG in {source}")
    rng = np.random.default_rng(0)
    grays = [Image.open(path).convert("L").resize((512, 420)) for path in pictures[:count]]
    for number in range(count):
        left, top = (int(rng.integers(0, limit)) for limit in (122, 100))
        gray = grays[number % len(grays)].crop((left, top, left + JPEG_SIZE[0], top + JPEG_SIZE[1]))
        gray.save(folder / f"{number:05d}.jpg", quality=90)
    return sorted(folder.glob("*.jpg"))


def draw_labels(count):
    """Targets float32 and mask bool [count, C]."""
    rng = np.random.default_rng(1)
    targets, mask = rng.random((count, len(CLASSES))) < 0.3, rng.random((count, len(CLASSES))) < 0.7
    return torch.from_numpy(targets).float(), torch.from_numpy(mask)


def new_model(arch):
    """The same random weights every time."""
    torch.manual_seed(0)
    return build_model(arch, num_classes=len(CLASSES), unfreeze=UNFREEZE[arch])


class PlainDataset(Dataset):
    def __init__(self, paths):
        self.paths = paths
        self.targets, self.mask = draw_labels(len(paths))
        self.transform = transforms.Compose(
            [
                transforms.Resize((SIZE, SIZE)),
                transforms.RandomHorizontalFlip(),
                transforms.RandomAffine(10, translate=(0.05, 0.05), scale=(0.9, 1.1)),
                transforms.ColorJitter(brightness=0.1, contrast=0.2),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        image = Image.open(self.paths[index]).convert("RGB")
        return self.transform(image), self.targets[index], self.mask[index]


def plain_loop(args, paths, _cache):
    device = torch.device(args.device)
    net = new_model(args.arch).net.to(device)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=LR, weight_decay=DECAY)
    options = {"num_workers": WORKERS, "persistent_workers": True, "pin_memory": device.type == "cuda"}
    loader = DataLoader(PlainDataset(paths), batch_size=args.batch_size, shuffle=True, **options)
    pos_weight = torch.ones(len(CLASSES), device=device)

    def epoch():
        net.train()
        total = 0.0
        for images, targets, mask in loader:
            images, targets, mask = images.to(device), targets.to(device), mask.to(device)
            loss = masked_bce(net(images), targets=targets, mask=mask, pos_weight=pos_weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()

    return epoch


class OnDevice:
    """Stands for a train loader whose batches are on the device."""

    def __init__(self, loader, device):
        self.sampler = loader.sampler
        self.dataset = loader.dataset
        self.batches = [batch.to(device) for batch in loader]

    def __iter__(self):
        return iter(self.batches)


def our_loop(args, paths, cache, *, compiled=False, resident=False, bfloat16=True):
    device = torch.device(args.device)
    targets, mask = draw_labels(len(paths))
    dataset = ImageDataset.open(paths, size=SIZE, cache=cache, workers=WORKERS)
    loader = train_loader(dataset, batch_size=args.batch_size, seed=0, workers=WORKERS, pin=device.type == "cuda")
    split = Split(OnDevice(loader, device) if resident else loader, targets, mask)
    ones = torch.ones(len(CLASSES), device=device)
    task = Task(split, split, MaskedLoss(ones, ones), CLASSES, seed=0, flipped=True, bfloat16=bfloat16)
    model = new_model(args.arch).to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(model, lr=LR, weight_decay=DECAY)
    scheduler = build_scheduler(optimizer, factor=0.3, patience=2)
    run = Run(model, optimizer, scheduler, EarlyStopping(5), compile_for_training(model) if compiled else model)

    def epoch():
        run.progress = Progress()
        for _ in train_one_epoch(run, task, epoch=1, interrupts=Interrupts(60)):
            pass

    return epoch


LOOPS = {
    "plain": plain_loop,
    "ours, bfloat16": our_loop,
    "ours compiled, bfloat16": lambda *args: our_loop(*args, compiled=True),
    "ours, float32": lambda *args: our_loop(*args, bfloat16=False),
    "ours compiled, float32": lambda *args: our_loop(*args, compiled=True, bfloat16=False),
    "on the device": lambda *args: our_loop(*args, resident=True),
    "on the device, compiled": lambda *args: our_loop(*args, compiled=True, resident=True),
}


def serve(name, pipe, args, paths, cache):
    """Run an epoch of a loop for each message, and answer with (seconds, peak memory in GB)."""
    epoch = LOOPS[name](args, paths, cache)
    while pipe.recv():
        start = time.perf_counter()
        epoch()
        if args.device == "cuda":
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        pipe.send((time.perf_counter() - start, peak / 1e9))


def measure(args, paths, cache):
    """Loop -> (seconds of its first epoch, of each later one, peak memory in GB)."""
    spawn = multiprocessing.get_context("spawn")
    elsewhere = "float32" if args.device == "cuda" else "on the device"
    loops = {name: spawn.Pipe() for name in LOOPS if elsewhere not in name}
    processes = [spawn.Process(target=serve, args=(n, far, args, paths, cache)) for n, (_, far) in loops.items()]
    for process in processes:
        process.start()
    rounds = []
    for number in range(1 + args.repeats):
        rounds.append({})
        for name, (pipe, _) in loops.items():
            pipe.send(True)
            rounds[-1][name] = pipe.recv()
            print(f"epoch {number} {name}: {rounds[-1][name][0]:.2f} s", file=sys.stderr)
    for (pipe, _), process in zip(loops.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    return {name: (rounds[0][name][0], [r[name][0] for r in rounds[1:]], rounds[-1][name][1]) for name in loops}


def step_losses(net, optimizer, batches, labels, pos_weight):
    """The loss of each step in turn."""
    losses = []
    for step, (images, rows) in enumerate(batches):
        torch.manual_seed(step)  # dropout
        targets, mask = (values[rows].to(pos_weight.device) for values in labels)
        loss = masked_bce(net(images), targets=targets, mask=mask, pos_weight=pos_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def loss_differences(args, paths):
    """Name -> relative difference of its loss from the plain model's, in each step, in float32."""
    device = torch.device(args.device)
    read: list[Batch] = [
        ImageDataset(paths, sizes=[SIZE])[rows.tolist()]
        for rows in torch.arange(len(paths)).split(args.batch_size)[: args.steps]
    ]
    ours = [(prepare(batch.images.to(device), draws=None), batch.rows) for batch in read]
    plain = [(images.contiguous(), rows) for images, rows in ours]
    labels, pos_weight = draw_labels(len(paths)), torch.ones(len(CLASSES), device=device)
    model = new_model(args.arch).to(device).train()  # the frozen part of `net` is in eval mode
    plain_optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR, weight_decay=DECAY)
    expected = step_losses(model.net, plain_optimizer, plain, labels, pos_weight)
    differences = {}
    for name, wrap in (("ours", lambda model: model), ("ours compiled", compile_for_training)):
        model = new_model(args.arch).to(device, memory_format=torch.channels_last).train()
        optimizer = build_optimizer(model, lr=LR, weight_decay=DECAY)
        for group in optimizer.param_groups:
            group["weight_decay"] = DECAY  # as the plain loop: norms and biases too
        found = step_losses(wrap(model), optimizer, ours, labels, pos_weight)
        differences[name] = np.abs(found / expected - 1)
    return differences


def print_tables(args, measured, differences):
    batches = -(-args.count // args.batch_size)
    default = "bfloat16" if bfloat16_is_faster(args.arch, torch.device(args.device)) else "float32"
    print(f"\n{args.arch}, {args.device}, {args.count} images in {batches} batches, {args.repeats} epochs each")
    print(f"The training script computes in {default} here\n")
    print("| loop | images/s | times plain | lowest, highest | first epoch, s | peak memory, GB |")
    print("|---|---|---|---|---|---|")
    plain = np.array(measured["plain"][1])
    for name, (first, seconds, peak) in measured.items():
        speed, ratios = args.count / np.median(seconds), plain / seconds
        cells = f"{speed:.1f} | {np.median(ratios):.2f} | {ratios.min():.2f}, {ratios.max():.2f}"
        print(f"| {name} | {cells} | {first:.1f} | {peak:.2f} |")
    print("\n| loop | relative difference of the loss, first step | largest of all steps |\n|---|---|---|")
    for name, values in differences.items():
        print(f"| {name} | {values[0]:.0e} | {values.max():.0e} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=UNFREEZE, required=True)
    parser.add_argument("--images", type=Path, required=True, help="folder of radiographs, PNG or JPEG")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--count", type=int, default=128, help="images per epoch")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7, help="epochs of each loop after the first")
    parser.add_argument("--steps", type=int, default=4, help="steps whose losses are compared")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images, cache = Path(folder) / "images", Path(folder) / "cache" if args.device == "cuda" else None
        images.mkdir()
        paths = write_images(args.images, images, args.count)
        if cache:
            ImageDataset.open(paths, size=SIZE, cache=cache, workers=WORKERS)
        measured = measure(args, paths, cache)
        differences = loss_differences(args, paths)
    print_tables(args, measured, differences)


if __name__ == "__main__":
    main()
