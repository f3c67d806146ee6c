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
    "frame-folders": "{source: frame-folders, path: here}",
    "idx": "{source: idx, path: here}",
    "mask-folder": "{source: mask-folder, path: here}",
    "nifti": "{source: nifti, path: here}",
    "semantic-kitti": "{source: semantic-kitti, path: here}",
    "cifar": "{source: cifar, path: here}",
    "text": "{source: text, path: here}",
}
WORKLOADS = {
    "csv": "softmax-regression",
    "frame-folders": "action-recognition",
    "mask-folder": "unet",
    "nifti": "v-net",
    "semantic-kitti": "squeezeseg-v2",
    "text": "char-rnn",
}
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


CSV = (
    "kind: train\nname: t\nworkload: softmax-regression\ndata: {{source: csv, path: here, {more}}}\n"
    "batch_size: 4\nstop: {{epochs: 1}}\n"
)


@pytest.mark.parametrize(
    ("header", "more", "said"),
    [
        ("a,b,y", "target: why", "data.target: .*/here: no column 'why'. Known: a, b, y"),
        ("a,b,y", "target: y, columns: [a, c]", "data.columns: .*/here: no column 'c'. Known: a, b, y"),
        ("a,b,y", "target: y, columns: {c: skip}", "data.columns: .*/here: no column 'c'"),
        ("a,b,y", "target: y, columns: [y]", "data.columns: .*/here: 'y' is the target; leave it out"),
        ("a,a,y", "target: y", "data.path: .*/here: two columns 'a'"),
        ("\n\n\ufeffa;b;y", "target: z, delimiter: ;", "no column 'z'"),
    ],
)
def test_columns_that_are_not_there_are_said_before_anything_is_read(
    header: str, more: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "here").write_text(f"{header}\n1,2,3\n")
    (tmp_path / "job.yaml").write_text(CSV.format(more=more))
    with pytest.raises(SpecError, match=said):
        load(tmp_path / "job.yaml")
    assert load_any(tmp_path / "job.yaml", there="none")


def test_a_file_that_is_no_table_is_left_to_who_reads_it(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(CSV.format(more="target: y"))
    for content in (b"", b"\xff\xfe\x00", b'"a\n'):
        (tmp_path / "here").write_bytes(content)
        assert load(tmp_path / "job.yaml")


PLAIN = (
    "kind: train\nname: t\nworkload: mine:Net\ndata: {source: breast_cancer}\nbatch_size: 4\n"
    "stop: {epochs: 1}\n"
)


@pytest.mark.parametrize(
    ("files_", "said"),
    [
        (
            {"mine.py": "import not_installed_1\nclass Net: pass"},
            "mine.py:1: imports 'not_installed_1', which",
        ),
        ({"mine.py": "from not_installed_1.x import y\nclass Net: pass"}, "imports 'not_installed_1'"),
        (
            {"mine.py": "import helper\nclass Net: pass", "helper.py": "\nimport not_installed_1"},
            "helper.py:2: imports 'not_installed_1'",
        ),
        (
            {
                "mine.py": "from parts.a import b\nclass Net: pass",
                "parts/__init__.py": "",
                "parts/a.py": "b = 1",
            },
            "",
        ),
        ({"mine.py": "from . import not_installed_1\nclass Net: pass"}, ""),
        ({"mine.py": "import os, torch.nn.functional, xml.etree\nclass Net: pass"}, ""),
        ({"mine.py": "try:\n    import not_installed_1\nexcept ImportError: pass\nclass Net: pass"}, ""),
        ({"mine.py": "class Net:\n    def f(self):\n        import not_installed_1"}, ""),
        ({"mine.py": "import folder.part\nclass Net: pass", "folder/part.py": ""}, ""),
    ],
)
def test_what_a_users_files_import_is_looked_for(
    files_: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files_.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    path = tmp_path / "job.yaml"
    path.write_text(PLAIN)
    assert load_any(path, there="relative"), "where it will run, more may be installed"
    if not said:
        assert load(path)
        return
    with pytest.raises(SpecError, match=said):
        load(path)


@pytest.mark.parametrize(
    ("environment", "has"), [("FrozenLake-v1", True), ("MountainCar-v0", True), ("CartPole-v1", False)]
)
def test_who_plans_needs_a_model(environment: str, has: bool, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        f"kind: rl\nname: t\nenvironment: {{name: {environment}}}\nalgorithm: {{name: value-iteration}}\n"
        "stop: {epochs: 1}\n"
    )
    if has:
        assert load(file)
        return
    with pytest.raises(
        SpecError, match=r"algorithm\.name: value-iteration plans with an environment's model"
    ):
        load(file)
