"""The files that come with dlsys, by their names: `quickstart`, `vision/lenet5`, `tune/lenet5_asha`."""

from __future__ import annotations

from pathlib import Path

from dlsys.errors import UsageError
from dlsys.registry import did_you_mean


def ready_folder() -> Path:
    """Where the ready files lie: links to their folders in a checkout, copies of them in a wheel."""
    import dlsys

    return Path(dlsys.__file__).parent / "ready"


def find(name: str) -> Path:
    """The file of this path, or the ready one of this name: `vision/lenet5`, `tune/lenet5_asha`,
    `cluster/two_nodes`.

    Raises:
        UsageError: neither exists.
    """
    path = Path(name)
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return path
    folder = ready_folder()
    files = sorted(file for kind in ("jobs", "tune", "cluster") for file in (folder / kind).rglob("*.yaml"))
    names = (file.relative_to(folder).with_suffix("").as_posix() for file in files)
    ready = {name.removeprefix("jobs/"): file for name, file in zip(names, files, strict=True)}
    if name in ready:
        return ready[name]
    raise UsageError(
        f"{name}: no such file, and no ready one of this name.{did_you_mean(name, ready)}",
        hint=f"Ready files: {', '.join(ready)}",
    )
