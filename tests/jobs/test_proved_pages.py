"""What `make prove` chooses, writes and keeps (`tests/prove.py`)."""

from __future__ import annotations

import json
from pathlib import Path

import prove
import pytest

QUICK = """\
# Digits.
kind: train
name: quick
workload: softmax-regression
data: {source: digits}
batch_size: 64
stop: {epochs: 1}
expect: {valid/accuracy: ">= 0.2"}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a few jobs: one without a folder, three of one family and one of another."""
    for name in ("first", "birds/owl", "birds/rook", "birds/wren", "fish/cod"):
        path = tmp_path / "jobs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(QUICK)
    return tmp_path


def told(metrics: dict[str, float], seconds: float = 2.0, **more: object) -> str:
    mine = {"run": "a", "metrics": metrics, "seconds": seconds, "diverged": False, "changes": []}
    return json.dumps({"run": "p", "job": mine, "baseline": None, "missed": [], "better": {}, **more})


def test_shards_are_a_partition(root: Path) -> None:
    all_jobs = prove.chosen(root, "", 1, 1)
    assert all_jobs == sorted(all_jobs)
    assert len(all_jobs) == 5
    parts = [prove.chosen(root, "", number, 3) for number in (1, 2, 3)]
    assert sorted(job for part in parts for job in part) == all_jobs
    assert {len(part) for part in parts} == {1, 2}
    assert prove.chosen(root, "birds", 2, 2) == ["jobs/birds/rook.yaml"]
    assert prove.families(root) == ["birds", "first", "fish"]


@pytest.mark.parametrize("arguments", [["--shard", "5/4"], ["--shard", "0/2"], ["--family", "mammals"]])
def test_what_is_no_part_is_refused(
    arguments: list[str], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        prove.main(arguments, root)
    assert ended.value.code == 2
    assert arguments[1] in capsys.readouterr().err


def test_a_line_says_what_was_seen(root: Path) -> None:
    other = {
        "run": "b",
        "metrics": {"test/loss": 2.0},
        "seconds": 1.2,
        "diverged": False,
        "changes": ["model.a=1"],
    }
    out = told(
        {"valid/accuracy": 0.91234, "test/loss": 0.5, "x": 1.0}, baseline=other, better={"test/loss": 1.5}
    )
    row = dict(zip(prove._TITLES, prove.line(root, "jobs/birds/owl.yaml", 0, out, ""), strict=True))
    assert row["job"] == "[birds/owl](../../jobs/birds/owl.yaml)"
    assert row["workload"] == "softmax-regression"
    assert row["expects"] == "valid/accuracy >= 0.2"
    assert row["seen"] == "valid/accuracy 0.9123, test/loss 0.5"
    assert row["baseline"] == "`model.a=1`: test/loss 2"
    assert row["seconds"] == "2 + 1"
    assert row["verdict"] == "holds"


def test_what_does_not_hold_is_said(root: Path) -> None:
    job = "jobs/birds/owl.yaml"
    short = told({"valid/accuracy": 0.1}, missed=["valid/accuracy is 0.1, expected >= 0.2"])
    assert (
        prove.line(root, job, 1, short, "")[-1] == "**falls short**: valid/accuracy is 0.1, expected >= 0.2"
    )
    assert prove.line(root, job, 1, "", "trains owl\ndlsys: a | b\n")[-1] == "**failed**: dlsys: a / b"
    slow = told({"valid/accuracy": 0.9}, seconds=301.0)
    assert prove.line(root, job, 0, slow, "")[-1].startswith("**takes long**")
    (root / job).write_text(QUICK + "# make prove: long, owls are slow\n")
    row = prove.line(root, job, 0, slow, "")
    assert row[-1] == "holds"
    assert "301 (owls are slow)" in row


def test_pages_of_shards_add_up(root: Path) -> None:
    jobs = prove.chosen(root, "birds", 1, 1)
    before, after = (
        [prove.line(root, job, 0, told({"valid/accuracy": figure}), "") for job in jobs]
        for figure in (0.3, 0.4)
    )
    for row, when in [(row, "2001-02-03 04:05") for row in before] + [
        (row, "2001-02-03 04:06") for row in after
    ]:
        row[prove._WHEN] = when
    page = prove.Page(root, "birds")
    written = root / "docs" / "proved" / "birds.md"
    page.add(before)
    page.add(after[:1])
    elsewhere = root / "elsewhere" / "birds.md"
    elsewhere.parent.mkdir()
    elsewhere.write_text(written.read_text())
    page.add([after[1]])
    assert prove.rows(written.read_text()) == [*after[:2], before[2]]
    # Another machine's page has an old line of the second job, and a new one of the third.
    text = elsewhere.read_text()
    old = next(text for text in text.splitlines() if "birds/wren" in text)
    elsewhere.write_text(text.replace(old, old.replace("0.3", "0.4").replace("04:05", "04:06")))
    assert prove.main(["--take", str(elsewhere)], root) == 0
    assert prove.rows(written.read_text()) == after
    (root / jobs[0]).unlink()
    page.add([])
    assert prove.rows(written.read_text()) == after[1:]


def test_every_job_of_a_family_runs_though_one_fails(root: Path, home: Path) -> None:
    (root / "jobs/birds/owl.yaml").write_text(QUICK.replace("softmax-regression", "softmax-regresion"))
    (root / "jobs/birds/wren.yaml").unlink()
    assert prove.main(["--family", "birds"], root) == 1
    owl, rook = prove.rows((root / "docs/proved/birds.md").read_text())
    assert owl[-1].startswith("**failed**: ")
    assert "unknown workload 'softmax-regresion'" in owl[-1]
    assert rook[-1] == "holds"


def test_the_pages_are_of_jobs_that_there_are() -> None:
    for path in sorted((prove.ROOT / "docs" / "proved").glob("*.md")):
        found = prove.rows(path.read_text())
        assert found, path.name
        for row in found:
            job = prove._path_of(row[0])
            assert (prove.ROOT / job).exists(), f"{row[0]}: say make prove FAMILY={path.stem}"
            assert prove.family(job) == path.stem
