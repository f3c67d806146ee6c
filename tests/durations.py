"""What `make durations` writes: where the suite's time goes, from JUnit reports of its parts.

python tests/durations.py REPORT.xml… > tests/durations.md
"""

from __future__ import annotations

import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from dlsys import __version__

_TESTS = 30
# Files below this go without a line; they come last when tests are dealt out.
_LEAST = 1.0


def main(reports: Sequence[str]) -> None:
    """Prints the tables."""
    suites = [suite for report in reports for suite in ElementTree.parse(report).getroot().iter("testsuite")]
    tests: Counter[tuple[str, str]] = Counter()
    for case in (case for suite in suites for case in suite.iter("testcase")):
        # A class of tests is a part of its file.
        parts = [part for part in case.attrib["classname"].split(".") if not part.startswith("Test")]
        file = "/".join(parts) + ".py"
        tests[file, case.attrib["name"]] += float(case.attrib["time"])
    files: Counter[str] = Counter()
    folders: Counter[str] = Counter()
    for (file, _), seconds in tests.items():
        files[file] += seconds
        folders[str(Path(file).parent)] += seconds
    took = sum(float(suite.attrib["time"]) for suite in suites)
    print(
        "# Durations\n\nWhat `make durations` found last. By it tests are dealt out, longest files first.\n"
    )
    print(f"- {suites[0].attrib['timestamp'][:10]}, dlsys {__version__}, Python {platform.python_version()}")
    print(f"- {len(os.sched_getaffinity(0))} CPU cores, {platform.machine()}")
    print(f"- {len(tests)} tests in {took:.0f} s, of {files.total():.0f} s altogether")
    _table("folder", folders.most_common())
    _table("file", ((file, seconds) for file, seconds in files.most_common() if seconds >= _LEAST))
    _table("test", ((f"{file}::{name}", seconds) for (file, name), seconds in tests.most_common(_TESTS)))


def _table(title: str, rows: Iterable[tuple[str, float]]) -> None:
    print(f"\n| {title} | seconds |\n|---|---:|")
    for name, seconds in rows:
        print(f"| {name.replace('|', '/')} | {seconds:.1f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
