"""What stages 5 and 6 cost beside the imports any such script needs, as ratios measured in the same run.

Reads the probabilities of a finished run. Prints a Markdown table of the fastest of --repeats runs each.

Example: python benchmarks/stage_start.py --run-dir runs/demo
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = ["-c", "import pandas, sklearn.metrics, matplotlib.pyplot"]


def seconds(command):
    """Wall time of a Python command."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/demo"))
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        shutil.copytree(args.run_dir, run, ignore=shutil.ignore_patterns("*.pt", "*.png"))
        common = ["--run-dir", run, "--overwrite", "--resamples", 0]
        commands = {
            "imports alone": IMPORTS,
            "stage 5, `--select best`": ["ensemble_alpha_search.py", *common, "--select", "best"],
            "stage 6": ["ensemble_threshold_search.py", *common],
            "stage 6, `--no-pictures`": ["ensemble_threshold_search.py", *common, "--no-pictures"],
        }
        times = {name: [] for name in commands}
        for _ in range(args.repeats):
            for name, command in commands.items():
                times[name].append(seconds(command))
    print("| what | seconds | ratio to the imports |\n|---|---|---|")
    for name, measured in times.items():
        print(f"| {name} | {min(measured):.2f} | {min(measured) / min(times['imports alone']):.2f} |")


if __name__ == "__main__":
    main()
