"""Python, packages and programs, against what dlsys says that it needs."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from dlsys.cluster.provider import Finding

_NAME = "dlsys"
# What each extra brings; what is for those who work at dlsys itself is left out.
_EXTRAS = {
    "vision": "models of torchvision and timm",
    "language": "models of transformers",
    "rl-extra": "drawings of gymnasium's classic control",
}


def python() -> Iterator[Finding]:
    """The interpreter's version."""
    wanted = metadata.metadata(_NAME)["Requires-Python"]
    version = platform.python_version()
    good = SpecifierSet(wanted).contains(version, prereleases=True)
    yield Finding(good, f"Python {version}", "" if good else f"Make an environment with Python {wanted}.")


def packages() -> Iterator[Finding]:
    """What is required in any case."""
    needed = [need for need in _required() if _applies(need, "")]
    wrong = [(need, version) for need in needed if not _suits(need, version := _version(need.name))]
    for need, version in wrong:
        found = f"is {version}" if version else "is missing"
        yield Finding(False, f"{need.name} {found}, {need.specifier} is needed", f"pip install '{need}'")
    if not wrong:
        versions = " ".join(f"{name} {_version(name)}" for name in ("torch", "ray", "mlflow", "deepspeed"))
        yield Finding(True, f"{len(needed)} packages as they are needed ({versions})")


def extras() -> Iterator[Finding]:
    """What may be there."""
    for extra, what in _EXTRAS.items():
        needed = [need for need in _required() if _applies(need, extra) and not _applies(need, "")]
        for need in needed:
            version = _version(need.name)
            if version and not _suits(need, version):
                said = f"{need.name} is {version}, {extra} needs {need.specifier}"
                yield Finding(False, said, f"pip install '{need}'", serious=False)
        absent = [need.name for need in needed if not _version(need.name)]
        if absent:
            told = f"{extra} is not installed ({', '.join(absent)}); it brings {what}"
            yield Finding(True, told, f"pip install 'dlsys[{extra}]'")
        else:
            yield Finding(True, f"{extra} is installed: {what}")


def programs() -> Iterator[Finding]:
    """Programs that some things need."""
    for name, what in (
        ("git", "runs do not say which commit they are of"),
        ("g++", "compile: true on CPUs and the offload of zero are not possible"),
    ):
        place = shutil.which(name)
        said = f"{name} is {place}" if place else f"{name} is missing: {what}"
        yield Finding(bool(place), said, "" if place else f"Install {name}.", serious=False)


def _required() -> list[Requirement]:
    return [Requirement(text) for text in metadata.requires(_NAME) or ()]


def _applies(need: Requirement, extra: str) -> bool:
    return need.marker is None or need.marker.evaluate({"extra": extra})


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _suits(need: Requirement, version: str | None) -> bool:
    # A build's own suffix (2.13.0+cpu) is no other version.
    return version is not None and need.specifier.contains(version, prereleases=True)
