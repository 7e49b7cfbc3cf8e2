"""Imports point down, never round, and the heavy libraries stay out of the light commands."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "edgekit"
LAYERS = [
    ["edgekit.cli"],
    ["edgekit.pipeline"],
    [
        *("edgekit.frameworks", "edgekit.formats", "edgekit.targets"),
        *("edgekit.verify", "edgekit.profile", "edgekit.budget", "edgekit.report", "edgekit.doctor"),
    ],
    ["edgekit.recipe", "edgekit.data", "edgekit.program", "edgekit.store"],
    ["edgekit.process"],
    ["edgekit.contracts"],
    ["edgekit.records"],
    ["edgekit.analysis_records", "edgekit.profile_records", "edgekit.weight_records"],
    ["edgekit.units", "edgekit.strict_yaml"],
    ["edgekit.errors", "edgekit"],
]  # fmt: skip
AXES = ("edgekit.frameworks", "edgekit.formats", "edgekit.targets")
HEAVY = {
    "ai_edge_litert", "ai_edge_quantizer", "coremltools", "executorch", "jax", "keras", "litert_torch", "onnx",
    "onnxruntime", "onnxscript", "scipy", "sklearn", "tensorflow", "tf_keras", "torch", "torchao", "torchvision",
}  # fmt: skip


def _modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(path: Path, known: dict[str, Path], *, top_level_only: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in names if name in known} if known else names


def _layer(module: str) -> int:
    for level, roots in enumerate(LAYERS):
        if any(module == root or (root != "edgekit" and module.startswith(root + ".")) for root in roots):
            return level
    raise AssertionError(f"{module} is in no layer")


MODULES = _modules()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module):
    level = _layer(module)
    upward = {name for name in _imports(MODULES[module], MODULES, top_level_only=False) if _layer(name) < level}
    assert not upward


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith(AXES)))
def test_plugs_of_an_axis_do_not_import_each_other_or_another_axis(module):
    axis = next(axis for axis in AXES if module.startswith(axis))
    plug = module.split(".")[2:3]
    plugs = {path.name for path in (PACKAGE / axis.partition(".")[2]).iterdir() if (path / "spec.py").is_file()}
    crossing = set()
    for name in _imports(MODULES[module], MODULES, top_level_only=False):
        other_axis = name.startswith(tuple(other for other in AXES if other != axis))
        sibling = name.startswith(axis + ".") and name.split(".")[2] in plugs and name.split(".")[2:3] != plug
        if other_axis or sibling:
            crossing.add(name)
    assert not crossing


def test_modules_form_no_cycle():
    edges = {name: _imports(path, MODULES, top_level_only=True) - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name in done:
            return
        for other in sorted(edges[name]):
            if not name.startswith(other + "."):  # a module and the package around it are one
                visit(other, (*trail, name))
        done.add(name)

    for name in sorted(MODULES):
        visit(name, ())


@pytest.mark.parametrize(
    "code",
    [
        "import edgekit",
        "from edgekit.cli.main import run; run(['--help'])",
        "from edgekit.cli.main import run; run(['targets', 'list'])",
        "import edgekit.pipeline.run",
    ],
)
def test_light_paths_load_no_heavy_library(code):
    program = f"{code}\nimport sys\nsys.stderr.write(' '.join({{m.partition('.')[0] for m in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & set(result.stderr.split())


def test_help_loads_neither_pydantic_nor_numpy():
    program = "from edgekit.cli.main import run; run(['--help'])\nimport sys\nsys.stderr.write(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"pydantic", "numpy", "yaml"} & set(result.stderr.split())
