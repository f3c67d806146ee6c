"""Clusters in Slurm: up, connect, down and the doctor on a fake Slurm."""

from __future__ import annotations

import json
import os
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from slurm_cluster import NASTY, FakeSlurm, cluster_of, provider_of

from dlsys.cluster.commands import ssh_command, ssh_tunnel
from dlsys.cluster.places import ClusterPaths
from dlsys.cluster.provider import Provider
from dlsys.cluster.slurm import SlurmProvider
from dlsys.errors import RunError, UsageError
from dlsys.spec import load_cluster


@pytest.fixture
def provider(fake: FakeSlurm, storage: Path) -> SlurmProvider:
    return provider_of(cluster_of(storage=str(storage)))


def ask(provider: Provider) -> dict[str, Any]:
    """What the stub of the queue found when it was started."""
    with provider.connect() as endpoint, urllib.request.urlopen(endpoint.url, timeout=20) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        assert found["token"] == endpoint.token
    return found


def quiet(text: str) -> None:
    pass


def test_a_cluster_comes_up_answers_and_goes_down(
    provider: SlurmProvider, fake: FakeSlurm, storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    paths, folder = ClusterPaths.of("lab"), storage / "clusters" / "lab"
    (fake.folder / "hold").touch()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "PENDING" in text:
            assert not provider.alive()
            (fake.folder / "hold").unlink()

    assert not provider.alive()
    provider.up(say)
    assert provider.alive()
    assert said[:2] == [
        "Slurm job 1 is in the queue; `dlsys cluster down lab` takes it back",
        "Slurm job 1: PENDING (Priority)",
    ]
    assert set(said[2:]) <= {"Slurm job 1: RUNNING on localhost"}
    assert paths.read_state() == {"provider": "slurm", "job": "1"}
    assert [found.name for found in ClusterPaths.all()] == ["lab"]

    found = ask(provider)
    assert found["folder"] == found["cwd"] == str(folder)
    assert found["umask"] == 0o077
    assert found["token"] == paths.read_token() != "another"
    assert found["env"] == {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": f"{folder}/token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT": "300",
    }
    assert load_cluster(folder / "cluster.yaml").cluster == load_cluster(paths.source).cluster
    (symmetric,) = fake.calls("ray")
    assert symmetric[:5] == ["symmetric-run", "--address", "localhost:6379", "--min-nodes", "1"]
    assert symmetric[5:8] == ["--num-cpus=2", "--num-gpus=0", "--labels=dlsys/group=gpu"]
    (srun,) = fake.calls("srun")
    assert srun[:5] == ["--export=ALL", "--nodes=1", "--ntasks=1", "--ntasks-per-node=1", "--cpus-per-task=2"]

    (storage / "runs").mkdir()
    provider.down(say)
    assert said[-2:] == ["Slurm job 1 is cancelled", f"lab is down; runs in {storage} are kept"]
    assert not provider.alive()
    assert not any(psutil.pid_exists(pid) and alive(pid) for pid in fake.job(1)["pids"])
    assert (storage / "runs").exists()
    assert not folder.exists()
    assert not paths.root.exists()
    provider.down(quiet)


def alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_the_token_is_for_its_owner_alone(provider: SlurmProvider, storage: Path) -> None:
    folder = storage / "clusters" / "lab"
    folder.mkdir(parents=True, mode=0o777)
    folder.chmod(0o777)
    (folder / "token").write_text("planted")
    (folder / "token").chmod(0o666)
    provider.up(quiet)
    token = ClusterPaths.of("lab").read_token()
    assert (folder / "token").read_text() == token
    assert folder.stat().st_mode & 0o777 == 0o700
    written = {path.name: path for path in folder.iterdir() if path.is_file()}
    assert written.keys() == {"token", "cluster.yaml", "lab.sbatch", "desk.json"}
    for name, path in written.items():
        assert path.stat().st_mode & 0o777 == 0o600, name
        assert (token in path.read_text()) == (name == "token")
    assert all(token not in text for text in provider.render().values())


def test_up_again_changes_nothing(provider: SlurmProvider, fake: FakeSlurm, storage: Path) -> None:
    provider.up(quiet)
    said: list[str] = []
    provider.up(said.append)
    assert said == ["Slurm job 1 is there already: RUNNING on localhost"]
    assert len(fake.calls("sbatch")) == 1
    with pytest.raises(UsageError, match="lab is up, and its allocation cannot change"):
        provider_of(cluster_of(storage=str(storage), time="8:00:00")).up(quiet)
    assert ask(provider)["folder"] == str(storage / "clusters" / "lab")


@pytest.mark.parametrize("end", ["TIMEOUT", "FORGOTTEN"])
def test_up_after_the_job_ended_asks_for_another(provider: SlurmProvider, fake: FakeSlurm, end: str) -> None:
    provider.up(quiet)
    fake.end()
    fake.set_state(1, end)
    assert not provider.alive()
    with pytest.raises(
        RunError, match=f"its Slurm job 1 is {'TIMEOUT' if end == 'TIMEOUT' else 'CANCELLED'}"
    ):
        ask(provider)
    provider.up(quiet)
    assert len(fake.calls("sbatch")) == 2
    assert ask(provider)["setup"] is None


def test_setup_runs_before_everything_else(fake: FakeSlurm, storage: Path) -> None:
    # As `source …/activate` may: it reads a variable that is not set, and a line of it fails.
    setup = ["export FROM_SETUP=$NO_SUCH_VARIABLE$HOME", "false", "umask 000"]
    provider = provider_of(cluster_of(storage=str(storage), setup=setup[:2]))
    provider.up(quiet)
    assert ask(provider)["setup"] == os.environ["HOME"]


def test_a_job_that_ends_too_early_is_told_with_its_last_words(fake: FakeSlurm, storage: Path) -> None:
    provider = provider_of(cluster_of(storage=str(storage), setup=["echo no module named python", "exit 3"]))
    with pytest.raises(RunError, match=r"job 1 ended \(FAILED\) before.*\nno module named python") as caught:
        provider.up(quiet)
    assert str(storage / "clusters" / "lab" / "logs" / "1.log") in caught.value.hint
    with pytest.raises(RunError, match="is not up: its Slurm job 1 is FAILED"):
        ask(provider)


def test_up_waits_for_a_job_that_is_just_ending(provider: SlurmProvider, fake: FakeSlurm) -> None:
    provider.up(quiet)
    fake.end()
    fake.set_state(1, "COMPLETING")
    provider.up(quiet)
    assert fake.job(1)["state"] == "CANCELLED"
    assert len(fake.calls("sbatch")) == 2


def test_a_stale_address_of_the_queue_is_not_used(fake: FakeSlurm, storage: Path) -> None:
    folder = storage / "clusters" / "lab"
    folder.mkdir(parents=True)
    (folder / "desk.json").write_text('{"host": "127.0.0.1", "port": 1, "pid": 1}')

    def say(text: str) -> None:
        if "RUNNING" in text:
            (folder / "go").touch()

    slow = ["until [ -e go ]; do sleep 0.01; done"]
    provider_of(cluster_of(storage=str(storage), setup=slow)).up(say)
    assert json.loads((folder / "desk.json").read_text())["port"] > 1


def test_what_sbatch_refuses_is_told_in_its_words(provider: SlurmProvider, fake: FakeSlurm) -> None:
    (fake.folder / "refuse").write_text("sbatch: error: invalid partition specified: gpu")
    with pytest.raises(RunError, match="sbatch refused: sbatch: error: invalid partition specified: gpu"):
        provider.up(quiet)
    assert not provider.alive()
    with pytest.raises(RunError, match="is not up: it has no Slurm job"):
        ask(provider)
    (fake.folder / "refuse").unlink()
    provider.up(quiet)
    assert provider.alive()


def test_without_slurm_it_is_said_where_to_go(provider: SlurmProvider, fake: FakeSlurm) -> None:
    (fake.bin / "sbatch").unlink()
    with pytest.raises(UsageError, match="sbatch is not on this machine") as caught:
        provider.up(quiet)
    assert caught.value.hint == "Use a login node of the Slurm cluster."


def test_a_controller_that_is_away_ends_nothing(
    provider: SlurmProvider, fake: FakeSlurm, storage: Path
) -> None:
    provider.up(quiet)
    (fake.folder / "away").write_text("slurm_load_jobs error: Unable to contact slurm controller")
    assert not provider.alive()
    for verb in (provider.up, provider.down):
        with pytest.raises(RunError, match=r"squeue refused: .*Unable to contact"):
            verb(quiet)
    (fake.folder / "away").unlink()
    assert provider.alive()
    assert ask(provider)["folder"] == str(storage / "clusters" / "lab")
    assert len(fake.calls("sbatch")) == 1


def test_a_waiting_job_is_taken_back(provider: SlurmProvider, fake: FakeSlurm) -> None:
    (fake.folder / "hold").touch()

    def stop(text: str) -> None:
        if "PENDING" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        provider.up(stop)
    assert fake.job(1)["state"] == "PENDING"
    provider.down(quiet)
    assert fake.job(1)["state"] == "CANCELLED"
    assert fake.calls("scancel") == [["1"]]


def test_what_a_name_could_do_it_does_not(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    storage = tmp_path / NASTY
    provider = provider_of(cluster_of(storage=str(storage), partition=NASTY, account=NASTY))
    provider.up(quiet)
    assert ask(provider)["folder"] == str(storage / "clusters" / "lab")
    assert fake.job(1)["options"]["account"] == NASTY
    assert (storage / "clusters" / "lab" / "logs" / "1.log").exists()
    provider.down(quiet)
    assert not list(tmp_path.rglob("pwned"))


def test_a_folder_of_somebody_else_is_left_alone(
    provider: SlurmProvider, storage: Path, fake: FakeSlurm
) -> None:
    (storage / "clusters").mkdir(parents=True)
    theirs = storage / "theirs"
    theirs.mkdir()
    (theirs / "file").touch()
    (storage / "clusters" / "lab").symlink_to(theirs)
    for verb in (provider.up, provider.down):
        with pytest.raises(UsageError, match="clusters/lab: is not a folder of yours"):
            verb(quiet)
    assert [path.name for path in theirs.iterdir()] == ["file"]
    assert not fake.calls("sbatch")


def test_storage_that_cannot_be_written_is_told(fake: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file/x/clusters: cannot be written: Not a directory"):
        provider_of(cluster_of(storage=str(tmp_path / "file" / "x"))).up(quiet)


class TestDoctor:
    def test_all_is_well(self, provider: SlurmProvider) -> None:
        assert all(finding.good and not finding.mend for finding in provider.doctor())
        provider.up(quiet)
        findings = list(provider.doctor())
        assert all(finding.good for finding in findings)
        assert findings[-1].what == "Slurm job 1: RUNNING on localhost"

    def test_everything_is_wrong(self, fake: FakeSlurm, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (fake.bin / "sbatch").unlink()
        provider = provider_of(cluster_of(storage=str(tmp_path / "file"), partition="gpu,tpu"))
        bad = {finding.what: finding.mend for finding in provider.doctor() if not finding.good}
        assert bad == {
            "sbatch is missing": "Use a login node of the Slurm cluster.",
            f"{tmp_path / 'file'} cannot be written: Not a directory": "storage must be a folder that this "
            "machine and all nodes see.",
            "there is no partition tpu": "Known: cpu, gpu",
        }

    def test_a_controller_that_is_away(self, fake: FakeSlurm, storage: Path) -> None:
        (fake.folder / "away").write_text("Unable to contact slurm controller")
        *_, last = provider_of(cluster_of(storage=str(storage), partition="gpu")).doctor()
        assert (last.good, last.what) == (False, "sinfo refused: Unable to contact slurm controller")


def test_a_way_that_ssh_does_not_find_is_told_in_its_words(fake: FakeSlurm) -> None:
    with (
        pytest.raises(
            RunError, match="no way to nowhere by ssh: ssh nowhere: ssh: Could not resolve"
        ) as caught,
        ssh_tunnel(ssh_command(), "nowhere", 80),
    ):
        pass
    assert caught.value.hint == "This must work by itself: ssh nowhere true"


def test_the_way_ends_with_its_context(provider: SlurmProvider, fake: FakeSlurm) -> None:
    provider.up(quiet)
    with provider.connect():
        (way,) = [p for p in psutil.Process().children() if "ssh" in p.cmdline()]
    assert not alive(way.pid)
    (call,) = fake.calls("ssh")
    assert call[-2:] == ["--", "localhost"]
    assert {"-N", "BatchMode=yes", "ExitOnForwardFailure=yes"} <= set(call)
