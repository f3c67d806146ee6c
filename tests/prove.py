"""What `make prove` does with ready jobs: `dlsys prove` for each, and a page for each family.

python tests/prove.py [--family FAMILY] [--shard 2/4]
python tests/prove.py --take PAGE…      # newer lines of pages that other machines wrote

A job's family is its folder in `jobs`. A page keeps the lines of jobs that did not run, so that shards
add up. What takes more than five minutes says why, in a line of its file: `# make prove: long, REASON`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from dlsys import __version__
from dlsys.cli.report import markdown

ROOT = Path(__file__).parents[1]
LONG = 300.0
_REASON = re.compile(r"^# make prove: long, (.+)$", re.MULTILINE)
_TITLES = ["job", "workload", "expects", "seen", "baseline", "seconds", "when", "dlsys", "verdict"]
_WHEN = _TITLES.index("when")


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Returns the exit code: 1 where a job falls short, fails, or takes long without a reason."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", default="")
    parser.add_argument("--shard", default="1/1", type=_shard)
    parser.add_argument("--take", nargs="+", type=Path, default=[])
    told = parser.parse_args(arguments)
    if told.take:
        for page in told.take:
            Page(root, page.stem).add(rows(page.read_text()))
        return 0
    jobs = chosen(root, told.family, *told.shard)
    if not jobs:
        parser.error(f"no job is in the family {told.family!r} and shard: {', '.join(families(root))}")
    short = 0
    for number, job in enumerate(jobs, 1):
        print(f"{number} of {len(jobs)}: {job}", file=sys.stderr, flush=True)
        command = [sys.executable, "-P", "-m", "dlsys.cli.main", "prove", str(root / job), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode in (130, 143):
            return done.returncode
        row = line(root, job, done.returncode, done.stdout, done.stderr)
        Page(root, family(job)).add([row])
        print(f"    {row[-1]}", file=sys.stderr, flush=True)
        short += row[-1] != "holds"
    return int(short > 0)


def family(job: str) -> str:
    """The family of `jobs/vision/vgg.yaml`; a job without a folder is one by itself."""
    return Path(job).parts[1].removesuffix(".yaml")


def families(root: Path) -> list[str]:
    """All of them."""
    return sorted({family(job) for job in _jobs(root)})


def chosen(root: Path, of: str, number: int, count: int) -> list[str]:
    """The jobs of a family, or of all, that are in shard `number` of `count`: every `count`-th."""
    return [job for job in _jobs(root) if of in ("", family(job))][number - 1 :: count]


def _jobs(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in (root / "jobs").rglob("*.yaml"))


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: say 2/4, the second of four")
    return int(found[1]), int(found[2])


class Page:
    """The page of a family: a line for each of its jobs."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name
        self._path = root / "docs" / "proved" / f"{name}.md"

    def add(self, new: Iterable[Sequence[str]]) -> None:
        """Writes it anew: of two lines for a job the later one stays, of a job that is gone none."""
        known = rows(self._path.read_text()) if self._path.exists() else []
        newest: dict[str, Sequence[str]] = {}
        for row in [*known, *new]:
            if row[0] not in newest or row[_WHEN] >= newest[row[0]][_WHEN]:
                newest[row[0]] = row
        there = [newest[name] for name in sorted(newest) if (self._root / _path_of(name)).exists()]
        head = f"# Proved: {self._name}\n\nWhat `make prove FAMILY={self._name}` saw last, on CPUs."
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(f"{head}\n\n{markdown(_TITLES, there)}\n")


def rows(page: str) -> list[list[str]]:
    """The lines of a page, each as its cells."""
    found = (text.strip("| ").split(" | ") for text in page.splitlines() if text.startswith("| ["))
    return [row for row in found if len(row) == len(_TITLES)]


def _path_of(cell: str) -> str:
    return cell.rpartition("](../../")[2].removesuffix(")")


def line(root: Path, job: str, code: int, out: str, err: str) -> list[str]:
    """A job's line of its page, from what `dlsys prove --json` gave, printed and ended with."""
    text = (root / job).read_text()
    spec = yaml.safe_load(text)
    expects = spec.get("expect", {})
    proof: Mapping[str, Any] = json.loads(out) if out.strip() else {}
    mine, other = proof.get("job") or {}, proof.get("baseline") or {}
    reason = _REASON.search(text)
    verdict = "holds"
    if proof.get("missed"):
        verdict = f"**falls short**: {'; '.join(proof['missed'])}"
    elif code or not mine:
        verdict = f"**failed**: {(err.strip().splitlines() or ['without a word'])[-1]}"
    elif mine["seconds"] > LONG and not reason:
        verdict = f"**takes long**: more than {LONG:g} s, and its file does not say `# make prove: long, …`"
    seconds = " + ".join(f"{side['seconds']:.0f}" for side in (mine, other) if side)
    if reason and mine:
        seconds += f" ({reason[1]})"
    return [
        cell.replace("|", "/").replace("\n", " ") or "–"
        for cell in (
            f"[{job.removeprefix('jobs/').removesuffix('.yaml')}](../../{job})",
            spec.get("workload") or f"{spec['algorithm']['name']}, {spec['environment']['name']}",
            ", ".join(f"{name} {bound}" for name, bound in expects.items()),
            _figures(mine.get("metrics", {}), dict.fromkeys([*expects, *proof.get("better", {})])),
            _baseline(other, proof.get("better", {})),
            seconds,
            f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
            __version__,
            verdict,
        )
    ]


def _figures(metrics: Mapping[str, float | None], names: Iterable[str]) -> str:
    known = {name: metrics[name] for name in names if metrics.get(name) is not None}
    return ", ".join(f"{name} {value:.4g}" for name, value in known.items())


def _baseline(side: Mapping[str, Any], better: Mapping[str, float]) -> str:
    if not side:
        return ""
    figures = "diverged" if side["diverged"] else _figures(side["metrics"], better)
    return f"`{' '.join(side['changes'])}`: {figures}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
