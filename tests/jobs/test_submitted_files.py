"""A job's own files on their way to a cluster: found, packed, or told before it waits in the queue."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dlsys.errors import SpecError, UsageError
from dlsys.jobs.package import pack
from dlsys.jobs.submission import Options, of_command
from dlsys.jobs.submit import folder_for, of_file, travels
from dlsys.spec.load import Loaded, load_any

JOB = """
kind: train
name: mine
workload: {workload}
data: {{source: csv, path: {path}, target: y}}
batch_size: 4
stop: {{epochs: 1}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "project"
    (made / "exp").mkdir(parents=True)
    (made / "data").mkdir()
    (made / "data" / "t.csv").write_text("x,y\n1,0\n2,1\n")
    (made / "exp" / "own.py").write_text("class Net: ...\n")
    monkeypatch.chdir(made)
    return made


def loaded(folder: Path, path: str = "../data/t.csv", workload: str = "softmax-regression") -> Loaded:
    file = folder / "exp" / "job.yaml"
    file.write_text(JOB.format(path=path, workload=workload))
    found = load_any(file, there="relative")
    assert isinstance(found, Loaded)
    return found


def test_what_travels(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert travels(loaded(project)) == [project / "data" / "t.csv"]
    assert travels(loaded(project, "/data/of/the/nodes.csv")) == []
    monkeypatch.chdir(project / "exp")
    assert travels(loaded(project, workload="own:Net")) == [project / "exp/own.py", project / "data/t.csv"]


def test_a_relative_file_that_is_not_there_is_told_at_once(project: Path) -> None:
    with pytest.raises(SpecError, match=r"data\.path: no such file: \.\./data/u\.csv"):
        loaded(project, "../data/u.csv")


def test_the_folder_is_this_one_or_the_jobs(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = loaded(project)
    used = travels(job)
    assert folder_for(job, None, used) == Path()
    assert folder_for(job, project, used) == project
    with pytest.raises(UsageError) as found:
        folder_for(job, project / "exp", used)
    assert f"{project}/data/t.csv: the job uses it, and it lies outside of {project}/exp" in str(found.value)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UsageError) as found:
        folder_for(job, None, used)
    assert "--working-dir" in found.value.hint
    (project / "exp" / "t.csv").write_text("x,y\n1,0\n2,1\n")
    beside = loaded(project, "t.csv")
    assert folder_for(beside, None, travels(beside)) == project / "exp"
    sent = of_file(beside, Options(folder=project / "exp"))
    assert '"folder": "."' in sent["files"]["record.json"]


@pytest.mark.parametrize("rule", ["*.csv", "data/", "data/t.csv"])
def test_a_file_that_git_ignores_is_told_at_once(rule: str, project: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", project], check=True)
    (project / ".gitignore").write_text(f"{rule}\n")
    used = travels(loaded(project))

    def packed() -> int:
        return pack(project, tmp_path / "p.zip", limit_mb=10, note=print, wanted=used).files

    with pytest.raises(UsageError) as found:
        packed()
    assert "data/t.csv: the job uses it, and it would not be packed: git ignores it" in str(found.value)
    assert "!data/t.csv" in found.value.hint
    (project / ".dlsysignore").write_text("!data/t.csv\n")
    assert packed()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["python show.py --epochs 3"], "is one word, and would be looked for as a program of that name"),
        (["python", "shwo.py", "--epochs", "3"], "shwo.py: no such file in"),
        (["python3", "-u", "shwo.py"], "shwo.py: no such file in"),
        (["./train.sh"], "./train.sh: no such file in"),
    ],
)
def test_what_a_shell_would_not_find_is_told(command: list[str], said: str, project: Path) -> None:
    (project / "show.py").touch()
    with pytest.raises(UsageError) as found:
        of_command(command, "x", 1, {}, Options())
    assert said in str(found.value)


@pytest.mark.parametrize(
    "command",
    [
        ["python", "show.py", "3"],
        ["python", "-m", "module", "a.py"],
        ["python", "-c", "print(1)"],
        ["python", "/on/the/nodes.py"],
        ["echo", "a b"],
        ["nvidia-smi"],
    ],
)
def test_what_may_run_is_sent(command: list[str], project: Path) -> None:
    (project / "show.py").touch()
    assert of_command(command, "x", 1, {}, Options())["command"] == command
