"""Rooms import only from rooms before them, files not in circles, and each heavy library has its rooms.

The order is that of the data: a file becomes a spec, a plan, data, a model, a run. Imports inside
functions and under TYPE_CHECKING count; the lazy strings of the registry do not.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "dlsys").rglob("*.py"))
MAX_LINES = 400

# A room's rank. Rooms of one rank may import each other, except those that are apart.
RANKS = {
    "base": 0,
    "spec": 1,
    "plan": 2,
    "cards": 2,
    "own": 3,
    "data": 4,
    "track": 5,
    "zoo": 6,
    "train": 7,
    "tune": 8,
    "rl": 8,
    "cluster": 8,
    "jobs": 9,
    "api": 10,
    "cli": 11,
}
APART = {"tune", "rl", "cluster"}
# Which rooms may import a heavy library; all others may not.
AFTER_CARDS = {room for room, rank in RANKS.items() if rank > RANKS["cards"]}
LIBRARIES = {
    "torch": AFTER_CARDS,
    "ray": AFTER_CARDS - {"train"},
    "mlflow": {"track"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The room of a dotted module name below `dlsys`."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] in ("errors", "registry", "paths", "processes"):
        return "base"
    if parts[1] == "zoo":
        # A package's own file is run whenever a card in it is imported.
        package = (ROOT.joinpath(*parts) / "__init__.py").is_file() or len(parts) == 2
        return "cards" if package or parts[-1] in ("card", "table") else "zoo"
    return parts[1]


def statements(source: str, module: str, *, package: bool = False) -> Iterator[tuple[int, str, str]]:
    """Each imported name as (line, `a`, `b`) of `from a import b`; `b` is empty of `import a`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level + package or None] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield from ((node.lineno, base, alias.name) for alias in node.names)


def imports(source: str, module: str, *, package: bool = False) -> Iterator[tuple[int, str]]:
    """Each imported module as (line, dotted name); of `from a import b`, both `a` and `a.b`."""
    for line, base, name in statements(source, module, package=package):
        yield line, base
        if name:
            yield line, f"{base}.{name}"


def circle(sources: Mapping[str, str], packages: set[str]) -> list[str]:
    """Files that import one another in a circle; none where there is no circle.

    `from a import b` imports the file `a.b` if there is one, else `a`.

    Args:
        sources: of every file, by dotted name.
        packages: those that are a package's own file.
    """
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        named = statements(source, module, package=module in packages)
        used = {full if (full := f"{base}.{name}") in sources else base for _, base, name in named}
        graph[module] = used & sources.keys() - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def violations(source: str, module: str, *, package: bool = False) -> list[str]:
    here = room(module)
    found = []
    for line, target in imports(source, module, package=package):
        top = target.split(".")[0]
        if top == "dlsys":
            if not is_module(target):
                continue
            there = room(target)
            later = RANKS[there] > RANKS[here]
            apart = here != there and {here, there} <= APART
            if later or apart:
                found.append(f"{module}:{line}: {here} imports {target} of {there}")
        elif top in LIBRARIES and here not in LIBRARIES[top]:
            found.append(f"{module}:{line}: {here} imports {top}")
    return found


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_law(path: Path) -> None:
    package = path.name == "__init__.py"
    assert violations(path.read_text(), module_name(path), package=package) == []


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_files_are_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: split it by concept"


def test_no_files_import_one_another_in_a_circle() -> None:
    sources = {module_name(path): path.read_text() for path in MODULES}
    packages = {module_name(path) for path in MODULES if path.name == "__init__.py"}
    assert circle(sources, packages) == []


def test_every_room_has_a_rank() -> None:
    assert {room(module_name(path)) for path in MODULES} <= RANKS.keys()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dlsys.errors", "import dlsys.spec"),
        ("dlsys.spec.train.job", "from dlsys.data import order"),
        ("dlsys.spec.train.job", "from dlsys import data"),
        ("dlsys.spec.train.job", "from ...data import order"),
        ("dlsys.spec.train.job", "def f():\n    import torch.nn"),
        ("dlsys.spec.train.job", "if TYPE_CHECKING:\n    from ray import tune"),
        ("dlsys.zoo.vision.lenet5.card", "import torch"),
        ("dlsys.zoo.vision.lenet5.card", "from dlsys.zoo.workload import Workload"),
        ("dlsys.data.order", "from dlsys.zoo import workload"),
        ("dlsys.train.loop", "import ray"),
        ("dlsys.train.loop", "try:\n    import mlflow\nexcept ImportError: ..."),
        ("dlsys.cli.ui", "from mlflow import server"),
    ],
)
def test_a_broken_law_is_noticed(module: str, source: str) -> None:
    assert len(violations(source, module)) >= 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dlsys.spec.train.job", "from dlsys.errors import SpecError"),
        ("dlsys.spec.train.job", "from . import optimizer"),
        ("dlsys.data.order", "from dlsys.spec.card import Shape\nimport torch"),
        ("dlsys.track.store", "import mlflow"),
        ("dlsys.train.loop", "from dlsys.zoo.workload import Workload"),
        ("dlsys.registry", "TARGET = 'dlsys.zoo.vision.lenet5.card:CARD'"),
    ],
)
def test_a_kept_law_is_not(module: str, source: str) -> None:
    assert violations(source, module) == []


@pytest.mark.parametrize(
    "back",
    [
        "from dlsys.p import a",
        "from dlsys.p.a import name",
        "import dlsys.p.a",
        "import dlsys.p.a as other",
        "from . import a",
        "from .a import name",
        "from ..p.a import name",
        "def f():\n    from dlsys.p.a import name",
        "if TYPE_CHECKING:\n    from dlsys.p.a import name",
        "from dlsys.p.c import name",
        "from dlsys.p import name",
    ],
)
def test_a_circle_is_noticed(back: str) -> None:
    sources = {
        "dlsys.p": "from dlsys.p.a import name",
        "dlsys.p.a": "import os\nfrom dlsys.p import b",
        "dlsys.p.b": back,
        "dlsys.p.c": "from . import a",
    }
    assert {"dlsys.p.a", "dlsys.p.b"} <= {*circle(sources, {"dlsys.p"})}


def test_no_circle_is_none() -> None:
    """A package's own file and files in it, an import from a sibling, one that is only named alike."""
    sources = {
        "dlsys.p": "from dlsys.p.a import name\nfrom . import b",
        "dlsys.p.a": "from dlsys.p import b, c\nfrom dlsys.p.b import a",
        "dlsys.p.b": "import ast\nfrom dlsys import q",
        "dlsys.p.c": "from dlsys.p import b\nTARGET = 'dlsys.p.a:name'",
        "dlsys.q": "import dlsys",
    }
    assert circle(sources, {"dlsys.p"}) == []


def test_a_worker_imports_no_more_than_every_run_needs() -> None:
    """Each takes a tenth of a second of every run's start."""
    slow = "{'PIL', 'matplotlib', 'scipy', 'sklearn'}"
    code = f"import sys, dlsys.train.engine; print(*({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
