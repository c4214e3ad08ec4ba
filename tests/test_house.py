"""The house rules that can be read off the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STORIES = {"stages", "split_stage", "eda_stage", "alpha_stage", "threshold_stage", "page_stage"}
STORIES |= {"predict_stage"}
FLOORS = {
    **dict.fromkeys(STORIES, 4),
    **dict.fromkeys(("engine", "dataset", "models", "train_utils", "checkpoint"), 3),
    **dict.fromkeys(("cache", "decoding", "image_files"), 3),
    **dict.fromkeys(("transforms", "early_stopping", "distributed"), 2),
}
TORCH = {"torch", "torchvision"}
WITH_TORCH = {"stages", "engine", "dataset", "models", "train_utils", "checkpoint"}
WITH_TORCH |= {"transforms", "cache", "decoding", "distributed", "predict_stage", "heatmaps", "image_files"}
MODULES = sorted(path for path in (ROOT / "src").glob("*.py") if path.stem != "__init__")
SCRIPTS = sorted(path for path in ROOT.glob("*.py") if path.stem != "conftest")


def imported(path):
    """Names of all modules a file imports, at whatever depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "src")


def edges(path):
    return {name.split(".")[1] for name in imported(path) if name.startswith("src.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_run_downward(path):
    floor = FLOORS.get(path.stem, 1)
    for other in edges(path):
        above = FLOORS.get(other, 1)
        assert above < floor or (above == floor and floor in (1, 3)), f"{path.stem} imports {other}"
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & {script.stem for script in SCRIPTS}, f"{path.stem} imports a script"
    assert path.stem in WITH_TORCH or not tops & TORCH, f"{path.stem} imports torch"
    assert path.stem == "config" or "argparse" not in tops
    assert path.stem in STORIES or "config" not in edges(path), f"{path.stem} imports config"


def test_imports_have_no_cycle():
    graph = {path.stem: edges(path) for path in MODULES}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_helps_without_importing_torch(path):
    code = f"import runpy, sys; sys.argv = ['{path.name}', '--help']\n"
    code += f"try: runpy.run_path('{path.name}', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'pandas'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("Reads", "Writes", "Example: python " + path.name):
        assert word.lower() in done.stdout.lower(), f"{path.name} --help does not say {word}"
