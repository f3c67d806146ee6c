"""The files that jobs name: every field of that sort is known, checked and placed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlsys.errors import SpecError
from dlsys.spec import yaml
from dlsys.spec.files import files, placed
from dlsys.spec.load import Loaded, load, load_any

SOURCES = {
    "csv": "{source: csv, path: here, target: y}",
    "image-folder": "{source: image-folder, path: here}",
    "idx": "{source: idx, path: here}",
    "text": "{source: text, path: here}",
}
WORKLOADS = {"csv": "softmax-regression", "text": "char-rnn"}
TRAIN = (
    "kind: train\nname: t\nworkload: {workload}\ndata: {data}\nbatch_size: 4\noptimizer: {{name: sgd}}\n"
    "stop: {{epochs: 1}}\n"
)
AGENT = (
    "kind: rl\nname: t\nenvironment: {name: CartPole-v1}\nalgorithm: {name: bc, episodes: here}\n"
    "stop: {epochs: 1}\n"
)


def written(folder: Path, kind: str) -> Path:
    text = (
        AGENT if kind == "bc" else TRAIN.format(workload=WORKLOADS.get(kind, "lenet-5"), data=SOURCES[kind])
    )
    (folder / "job.yaml").write_text(text)
    return folder / "job.yaml"


@pytest.mark.parametrize("kind", [*SOURCES, "bc"])
def test_every_field_that_names_a_file(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, kind)
    field = "algorithm.episodes" if kind == "bc" else "data.path"
    with pytest.raises(SpecError) as found:
        load(path)
    assert f"{field}: no such file: here (looked for {tmp_path}/here)" in str(found.value)
    assert load_any(path, there="none")
    (tmp_path / "here").mkdir()
    loaded = load(path)
    assert list(files(loaded.job)) == [(tuple(field.split(".")), "here")]
    assert loaded.folder == tmp_path
    section, name = field.split(".")
    assert placed(loaded.job, loaded.folder)[section][name] == str(tmp_path / "here")
    assert loaded.job.model_dump()[section][name] == "here", "the job itself says what was written"


def test_a_file_written_elsewhere_runs_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "here").mkdir()
    loaded = load(written(tmp_path / "a", "csv"))
    (tmp_path / "b" / "job.yaml").write_text(yaml.dump(placed(loaded.job, loaded.folder)))
    assert load(tmp_path / "b" / "job.yaml").job.data.path == str(tmp_path / "a" / "here")


def test_a_folder_that_is_told_outranks_the_files_own(tmp_path: Path) -> None:
    path = written(tmp_path, "csv")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "here").touch()
    loaded = load_any(path, folder=tmp_path / "other")
    assert isinstance(loaded, Loaded)
    assert loaded.folder == tmp_path / "other"


def test_a_sweeps_job_has_its_files_too(tmp_path: Path) -> None:
    written(tmp_path, "csv")
    sweep = "kind: sweep\nname: s\njob: job.yaml\nmetric: valid/loss\ntrials: 2\n"
    (tmp_path / "sweep.yaml").write_text(f"{sweep}space: {{optimizer.weight_decay: {{uniform: [0, 1]}}}}\n")
    with pytest.raises(SpecError, match=r"job\.yaml:4: data\.path: no such file: here"):
        load_any(tmp_path / "sweep.yaml")
    (tmp_path / "here").touch()
    assert load_any(tmp_path / "sweep.yaml").job.folder == tmp_path
