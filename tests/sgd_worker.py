"""Trains ResNet50 with plain SGD for an epoch, alone or under torchrun: python tests/sgd_worker.py CSV WEIGHTS OUT

SGD shows gradients as they are. AdamW divides each by its own size, so that where one is next to nothing rounding
decides which way its weight goes.
"""

import sys
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.dataset import ImageDataset, eval_loader, train_loader
from src.distributed import is_main, process_group, together
from src.early_stopping import EarlyStopping
from src.engine import Run, Split, Task, fit
from src.models import build_model
from src.train_utils import build_scheduler
from src.watch import Watch


def main(csv: Path, weights: Path, out: Path) -> None:
    """Save the weights after an epoch of 16 images a step, in two passes each, with augmentation."""
    table = pd.read_csv(csv)
    labels = torch.from_numpy(table[["Nodule", "Hernia"]].to_numpy())
    targets, mask = (labels == 1).float(), labels >= 0
    dataset = ImageDataset([csv.parent / name for name in table["path"]], size=32)
    reading = {"workers": 0, "pin": False}
    train = Split(train_loader(dataset, batch_size=8, accumulate=2, seed=0, **reading), targets, mask)
    val = Split(eval_loader(dataset, batch_size=7, **reading), targets, mask)
    with process_group(torch.device("cpu")):
        torch.manual_seed(0)
        model = build_model("resnet50", num_classes=2, unfreeze="layer4", weights=str(weights), freeze_batchnorm=True)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=2e-2, momentum=0.9)
        scheduler = build_scheduler(optimizer, factor=0.5, patience=1)
        run = Run(model, optimizer, scheduler, EarlyStopping(3), together(model, torch.device("cpu")))
        task = Task(train, val, torch.tensor([2.0, 0.5]), ("Nodule", "Hernia"), seed=0)
        ((record, _),) = fit(run, task, epochs=1, watch=Watch(60))
        if is_main():
            torch.save({"model": model.net.state_dict(), "record": record}, out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
