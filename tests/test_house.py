"""The house rules that can be read off the imports."""

import ast
import subprocess
import sys

import pytest

from tests.trees import ROOT

# Folder or top-level module of src/ -> floor. Imports go down, or stay within a folder.
FLOORS = {
    **dict.fromkeys(("runtime", "early_stopping"), 0),
    **dict.fromkeys(("evaluate", "demo"), 1),
    **dict.fromkeys(("labels", "stats"), 2),
    "data": 3,
    "artifacts": 4,
    **dict.fromkeys(("models", "train_utils", "transforms", "images", "plots"), 5),
    "dataset": 6,
    **dict.fromkeys(("engine", "checkpoint", "report"), 7),
    "config": 8,
    "stages": 9,
}
TORCH = {"torch", "torchvision"}
WITH_TORCH = {"runtime/distributed", "stages/train", "stages/train_task", "stages/test", "stages/predict", "images"}
WITH_TORCH |= {"models", "train_utils", "transforms", "dataset", "engine", "checkpoint"}
WITHOUT_TORCH = {
    "images/check",
    "images/jpeg",
    "images/pixels",
    "images/dicom",
}  # what stage 1 and a reader of one file need
MODULES = sorted(path for path in (ROOT / "src").rglob("*.py") if path.stem != "__init__")
SCRIPTS = sorted(path for path in ROOT.glob("*.py") if path.stem != "conftest")


def imported(path):
    """Names of all modules a file imports, at whatever depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module.startswith("src"))


def name_of(path):
    """`labels/policy` for src/labels/policy.py."""
    return path.relative_to(ROOT / "src").with_suffix("").as_posix()


def edges(path):
    """Modules of src/ that a file imports, as `name_of` names them."""
    found = {"/".join(name.split(".")[1:3]) for name in imported(path) if name.startswith("src.")}
    return {name if (ROOT / "src" / f"{name}.py").exists() else name.split("/")[0] for name in found}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_downward(path):
    name, folder = name_of(path), name_of(path).split("/")[0]
    for other in edges(path):
        below = other.split("/")[0]
        assert below == folder or FLOORS[below] < FLOORS[folder], f"{name} imports {other}"
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & {script.stem for script in SCRIPTS}, f"{name} imports a script"
    assert not tops & TORCH or ({name, folder} & WITH_TORCH and name not in WITHOUT_TORCH), f"{name} imports torch"
    assert name == "runtime/flags" or "argparse" not in tops
    assert folder == "stages" or "config" not in edges(path), f"{name} imports config"


def test_stages_that_need_no_network_start_without_torch():
    code = "import sys\n"
    for stage in ("split", "eda", "blend", "thresholds", "report", "tuning_log"):
        code += f"import src.stages.{stage}\nassert 'torch' not in sys.modules, '{stage} imports torch'\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_imports_have_no_cycle():
    graph = {name_of(path): edges(path) for path in MODULES}
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
