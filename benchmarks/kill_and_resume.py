"""Kill a training run again and again, resume it each time, and hold it against one that was left alone.

Trains the demo data set (make_demo_data.py) twice with the same flags; the second run gets a SIGKILL at a random moment
`--kills` times: in its start, between two checkpoints, or while one is written. Prints the SHA-256 of both best.pt, of
both histories, and the largest difference of the weights in last.pt.

Example: python benchmarks/kill_and_resume.py --data data/demo --kills 20
"""

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["--weights", "none", "--image-size", "64", "--batch-size", "16", "--workers", "2", "--epochs", "2"]
FLAGS += ["--checkpoint-minutes", "0.02", "--resume"]


def main() -> None:
    """Train both runs and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "data/demo")
    parser.add_argument("--script", default="train_efficientnet.py")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=6.0, help="longest wait after the first checkpoint [s]")
    arguments = parser.parse_args()
    model = {"train_efficientnet.py": "efficientnet_b1", "train_resnet.py": "resnet50"}[arguments.script]
    with tempfile.TemporaryDirectory() as temporary:
        runs = [Path(temporary) / name for name in ("whole", "killed")]
        for run in runs:
            split = ["--val-fraction", "0.2", "--run-dir", str(run), "--data", str(arguments.data)]
            subprocess.run(
                [sys.executable, str(ROOT / "check_split.py"), *split], stdout=subprocess.DEVNULL, check=True
            )
        subprocess.run(command(arguments.script, runs[0]), stdout=subprocess.DEVNULL, check=True)
        kill(command(arguments.script, runs[1]), runs[1] / model, arguments)
        compare(*(run / model for run in runs))


def command(script: str, run: Path) -> list[str]:
    """The training command of a run."""
    return [sys.executable, str(ROOT / script), "--run-dir", str(run), *FLAGS]


def kill(train: list[str], folder: Path, arguments: argparse.Namespace) -> None:
    """Start, kill, start again ... and let the last one finish."""
    chance, kills = random.Random(0), 0
    while kills < arguments.kills:
        process = subprocess.Popen(train, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before, last = time.time_ns(), folder / "last.pt"
        if chance.random() < 0.8:  # else in its start
            while process.poll() is None and not (last.exists() and last.stat().st_mtime_ns > before):
                time.sleep(0.005)
        time.sleep(chance.uniform(0, arguments.longest if kills % 4 else 0.2))
        if process.poll() is not None:
            raise SystemExit(f"the run ended after {kills} kills; raise the number of epochs or lower --longest")
        process.kill()
        process.wait()
        kills += 1
        half = [path.name for path in folder.glob(".*.tmp.*")] if folder.exists() else []
        print(f"kill {kills}{': while writing ' + ', '.join(half) if half else ''}", flush=True)
    subprocess.run(train, stdout=subprocess.DEVNULL, check=True)


def compare(whole: Path, killed: Path) -> None:
    """Print what both runs left."""
    for name in ("best.pt", "history.csv"):
        digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (whole, killed)]
        print(f"{name}:", "the same, SHA-256" if digests[0] == digests[1] else "DIFFERENT", *sorted(set(digests)))
    one, two = (torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (whole, killed))
    print("last.pt: largest difference", max((one[key].double() - two[key].double()).abs().max().item() for key in one))
    print(
        "files:", "the same" if {p.name for p in whole.iterdir()} == {p.name for p in killed.iterdir()} else "DIFFERENT"
    )


if __name__ == "__main__":
    main()
