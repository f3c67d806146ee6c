"""What an installed package holds, and what it is installed with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the repository: building leaves files in its folder."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("dlsys", "jobs", "tune", "cluster"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=copy, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_a_wheel_holds_every_module_and_ready_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob("dlsys/**/*.py")}
    types = {"dlsys/__init__.pyi", "dlsys/py.typed"}
    kinds = ("jobs", "tune", "cluster")
    files = [path for kind in kinds for path in ROOT.glob(f"{kind}/**/*") if path.is_file()]
    ready = {f"dlsys/ready/{path.relative_to(ROOT)}" for path in files}
    assert ready
    starts = {str(path.relative_to(ROOT)) for path in ROOT.glob("dlsys/cli/starts/*/*")}
    assert starts
    assert {name for name in names if ".dist-info/" not in name} == modules | types | ready | starts
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_an_installed_package_finds_its_ready_files(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    look = (
        "from dlsys.cli import files; from dlsys.spec import ready; print(ready.ready_folder()); "
        "[files.check(name) for name in ('vision/lenet5', 'tune/lenet5_asha', 'cluster/two_nodes')]"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", look],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = "vision/lenet5: ok\ntune/lenet5_asha: ok\ncluster/two_nodes: ok\n"
    assert done.stdout == f"{site}/dlsys/ready\n{found}", done.stderr


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    found = [Requirement(line) for group in (PROJECT["dependencies"], *extras) for line in group]
    return [each for each in found if each.name != PROJECT["name"]]  # an extra may name others


def pins() -> dict[str, str]:
    lines = [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    found = {_canonical(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert len(found) == len(lines), "a package is pinned twice"
    return found


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-")


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_each_requirement_is_pinned_within_its_range(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[_canonical(requirement.name)])


def test_pins_are_exact_and_of_no_special_build() -> None:
    for name, version in pins().items():
        assert version, f"{name} has no version"
        assert "+" not in version, f"{name}=={version} exists on some machines only"
