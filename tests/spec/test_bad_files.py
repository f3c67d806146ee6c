"""Every file in `bad/` is refused with exactly the lines of its `.expected`, all at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dlsys.errors import SpecError
from dlsys.registry import known
from dlsys.spec import load_any
from dlsys.spec.catalogue import WORKLOADS
from dlsys.spec.data.fit import fitting
from dlsys.spec.schema import schema, sweep_schema

BAD = sorted(Path(__file__).with_name("bad").glob("*.yaml"))


def _tags(section: dict) -> list[str]:
    return sorted(section["discriminator"]["mapping"])


def _metrics(*splits: str) -> str:
    names = ["loss", *WORKLOADS.load("lenet-5").metrics]
    return ", ".join(["train/loss", *(f"{split}/{name}" for split in splits for name in names)])


# Lists that grow with the catalogue, as the expected lines name them; the longest come first.
SCHEMA = schema()
NAMES = {
    "<unknown workload lenet5>": WORKLOADS.unknown("lenet5"),
    "<sweep keys>": ", ".join(sorted(sweep_schema()["properties"])),
    "<keys>": ", ".join(sorted(SCHEMA["properties"])),
    "<sources>": ", ".join(_tags(SCHEMA["properties"]["data"])),
    "<optimizers>": ", ".join(_tags(SCHEMA["properties"]["optimizer"])),
    "<metrics with test>": _metrics("valid", "test"),
    "<metrics>": _metrics("valid"),
    "<LeNet-5's options>": "Known: " + ", ".join(sorted(WORKLOADS.load("lenet-5").options.model_fields)),
    "<LeNet-5's sources>": ", ".join(fitting(WORKLOADS.load("lenet-5").rows)),
}
# Of long lists, messages tell what is like the name that was given: `<optimizers like adamm>`.
LIKE = {
    "sources": _tags(SCHEMA["properties"]["data"]),
    "optimizers": _tags(SCHEMA["properties"]["optimizer"]),
    "schedules": _tags(SCHEMA["properties"]["schedule"]),
    "regularizers": _tags(SCHEMA["properties"]["regularize"]["items"]),
    "strategies": _tags(SCHEMA["properties"]["strategy"]["anyOf"][0]),
}


def report(path: Path) -> str:
    """What the user reads, with the bare file name and without this machine's folder."""
    with pytest.raises(SpecError) as caught:
        load_any(path)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{path.parent}/", "").replace(str(Path.cwd()), "<here>")


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_reports_exactly(path: Path) -> None:
    expected = path.with_suffix(".expected").read_text().rstrip("\n")
    for name, text in NAMES.items():
        expected = expected.replace(name, text)
    expected = re.sub(r"<(\w+) like (\w+)>", lambda found: known(found[2], LIKE[found[1]]), expected)
    assert report(path) == expected


def test_every_bad_file_has_its_expectation() -> None:
    folder = BAD[0].parent
    assert {path.stem for path in folder.glob("*.expected")} == {path.stem for path in BAD}
    assert len(BAD) >= 25
