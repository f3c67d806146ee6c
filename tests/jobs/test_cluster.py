"""A cluster of two nodes on this machine, and jobs on it, through the commands that people type."""

from __future__ import annotations

import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cluster_fixture import Cluster, local_cluster

from dlsys.cluster.places import Endpoint
from dlsys.jobs.client import Desk
from dlsys.jobs.submission import Options
from dlsys.jobs.submit import of_loaded
from dlsys.paths import read_json
from dlsys.spec.script.load import of_command
from dlsys.track.store import Store
from dlsys.track.writer import delivered

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TWO = ("quickstart", "stop.epochs=4", "expect={}", "tracking.log_every=1")
AGENT = (
    "rl/cartpole_ppo",
    "resources.env_runners=2",
    "stop.epochs=8",
    "algorithm.batch_size=400",
    "expect={}",
)
LONG = ("quickstart", "stop.epochs=400", "expect={}", "checkpoint.every=20 steps")
SLEEP = ["python3", "-c", "import time; time.sleep(0.2)"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with local_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def desk(cluster: Cluster) -> Desk:
    url = cluster.paths.read_state()["desk"]
    return Desk(Endpoint(url, cluster.paths.read_token()), cluster.name)


def submit(cluster: Cluster, *words: str) -> str:
    return cluster.dlsys("submit", "-d", *words).stdout.strip()


def history(cluster: Cluster, job_id: str, name: str = "train/loss") -> Counter[int]:
    """How often each step of a metric stands in MLflow, once it has everything."""
    cluster.until(lambda: delivered(cluster.run(job_id)))
    store = Store(f"sqlite:///{cluster.folder}/.dlsys/mlflow.db")
    (run,) = store.runs(prefix=job_id)
    assert run.info.status == "FINISHED"
    return Counter(point.step for point in store.client.get_metric_history(run.info.run_id, name))


def test_two_nodes_are_up_and_up_again_changes_nothing(cluster: Cluster) -> None:
    before = cluster.paths.read_state()["nodes"]
    cluster.dlsys("cluster", "up", "cluster.yaml")
    status = json.loads(cluster.dlsys("cluster", "status", "--json").stdout)
    assert cluster.paths.read_state()["nodes"] == before
    assert sorted(node["name"] for node in status["nodes"]) == ["head-0", "worker-0"]
    assert len({node["id"] for node in status["nodes"]}) == 2
    assert all(node["alive"] and node["resources"]["CPU"] == 1 for node in status["nodes"])
    assert cluster.dlsys("cluster", "doctor").stdout.count("BAD") == 0


def test_a_job_trains_with_a_worker_on_each_node(cluster: Cluster) -> None:
    done = cluster.dlsys("submit", *TWO, timeout=120)
    job_id = done.stdout.splitlines()[0]
    assert "status          FINISHED" in done.stdout
    assert f"{job_id} SUCCEEDED" in done.stderr
    assert set(history(cluster, job_id).values()) == {1}
    nodes = {place["node"] for place in read_json(cluster.run(job_id).places / "attempt-1.json")["workers"]}
    assert len(nodes) == 2
    assert "epoch 4.0/4" in cluster.dlsys("jobs", "logs", job_id).stdout
    assert cluster.dlsys("jobs", "logs", job_id, "--rank", "1").returncode == 0


def test_an_agent_has_an_env_runner_on_each_node(cluster: Cluster) -> None:
    job_id = submit(cluster, *AGENT)

    def nodes() -> set[int]:
        found = set()
        for process in cluster.marked():
            with suppress(psutil.NoSuchProcess):  # gone since it was listed
                if "EnvRunner" in " ".join(process.cmdline()):
                    found.add(process.ppid())
        return found

    cluster.until(lambda: len(nodes()) == 2)
    cluster.wait_for(job_id, ["SUCCEEDED"])
    counted = history(cluster, job_id, "train/return")
    assert len(counted) == 8
    assert set(counted.values()) == {1}


def test_stop_retry_wait(cluster: Cluster) -> None:
    job_id = submit(cluster, *LONG)
    cluster.until(lambda: any(cluster.run(job_id).checkpoints.glob("step-*")), 60)
    assert (
        cluster.dlsys("jobs", "wait", job_id, "--timeout", "0.1", "--exit-code", check=False).returncode
        == 101
    )
    cluster.dlsys("jobs", "stop", job_id)
    assert cluster.dlsys("jobs", "wait", job_id, "--exit-code", check=False).returncode == 103
    assert cluster.dlsys("jobs", "wait", job_id, check=False).returncode == 1
    assert read_json(cluster.run(job_id).outcome)["status"] == "KILLED"
    stopped_at = read_json(cluster.run(job_id).outcome)["step"]
    cluster.dlsys("jobs", "retry", job_id)
    cluster.until(
        lambda: cluster.log(job_id).count(f"continues from the checkpoint of step {stopped_at}") == 1, 60
    )
    cluster.dlsys("jobs", "stop", job_id)
    cluster.wait_for(job_id, ["STOPPED"])
    missing = cluster.dlsys("jobs", "status", "nothing", "--exit-code", check=False)
    assert missing.returncode == 102
    assert "no job 'nothing'" in missing.stderr


def test_a_failed_command_fails_with_its_code(cluster: Cluster) -> None:
    done = cluster.dlsys("submit", "--", "python3", "-c", "print('said'); raise SystemExit(7)", check=False)
    job_id = done.stdout.splitlines()[0]
    assert done.returncode == 1
    assert "said" in done.stdout
    assert "the command on " in done.stderr
    assert " ended with exit code 7" in done.stderr
    assert cluster.job(job_id)["exit_code"] == 7
    assert cluster.log(job_id).startswith("said\ndlsys: the command on "), "the script has the first word"
    assert cluster.dlsys("jobs", "status", job_id, "--exit-code", check=False).returncode == 100


def test_jobs_that_come_at_once_run_in_order_of_priority(cluster: Cluster, desk: Desk) -> None:
    blockers = [desk.submit(command("blocker", priority=99, command=["sleep", "1"])) for _ in range(2)]
    for blocker in blockers:
        cluster.wait_for(blocker["id"], ["RUNNING"])
    made = [command(f"job{index}", priority=index % 3) for index in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert {job["state"] for job in pool.map(desk.submit, made)} == {"QUEUED"}
    waiting = [desk.job(job["id"]) for job in made]
    ended = [cluster.wait_for(job["id"], ["SUCCEEDED"], 120) for job in made]
    assert any("position" in job["reason"] for job in waiting)
    started = [job["priority"] for job in sorted(ended, key=lambda job: job["started"])]
    assert started == sorted(started, reverse=True)


def test_one_submission_fifty_times_is_one_job(cluster: Cluster, desk: Desk) -> None:
    touched = cluster.folder / "touched"
    made = command("once", command=["sh", "-c", f"echo ran >> {touched}"])
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(desk.submit, [made] * 50))
    assert {job["id"] for job in answers} == {made["id"]}
    cluster.wait_for(made["id"], ["SUCCEEDED"])
    desk.submit(made)
    time.sleep(1)
    assert touched.read_text() == "ran\n"


def test_a_job_that_can_never_run_is_refused_at_once(cluster: Cluster) -> None:
    done = cluster.dlsys("submit", "quickstart", "resources.workers=4", check=False)
    assert done.returncode == 2
    assert "4 workers of 1 CPUs do not fit the cluster's nodes (1 CPU, 1 CPU)" in done.stderr


def test_two_halves_share_a_node_and_a_third_job_waits(cluster: Cluster, desk: Desk) -> None:
    whole = desk.submit(command("whole", command=["sleep", "30"]))
    halves = [desk.submit(command("half", cpu=0.5, command=["sleep", "30"])) for _ in range(2)]
    third = desk.submit(command("third", cpu=0.5))
    for job in [whole, *halves]:
        cluster.wait_for(job["id"], ["RUNNING"])
    assert desk.job(third["id"])["state"] == "QUEUED"
    for job in [whole, *halves]:
        desk.stop(job["id"])
    cluster.wait_for(third["id"], ["SUCCEEDED"])
    for job in [whole, *halves]:
        cluster.wait_for(job["id"], ["STOPPED"])


def test_a_more_important_job_pauses_another_that_goes_on_afterwards(cluster: Cluster) -> None:
    low = submit(cluster, "quickstart", "stop.epochs=80", "expect={}", "tracking.log_every=1")
    cluster.until(lambda: any(cluster.run(low).checkpoints.glob("step-*")), 60)
    high = submit(cluster, *TWO, "--priority", "1")
    paused = cluster.wait_for(low, ["PAUSED"])
    assert paused["attempt"] == 1
    cluster.wait_for(high, ["SUCCEEDED"])
    assert cluster.wait_for(low, ["SUCCEEDED"], 90)["attempt"] == 2
    assert set(history(cluster, low).values()) == {1}, "no step is lost, and none is told twice"
    assert cluster.log(low).count("continues from the checkpoint of step") == 1


def test_ctrl_c_leaves_the_job_alone(cluster: Cluster) -> None:
    import signal
    import subprocess
    import sys

    client = subprocess.Popen(
        [sys.executable, "-P", "-m", "dlsys.cli.main", "submit", "--", "sleep", "3"],
        cwd=cluster.folder,
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    job_id = client.stdout.readline().strip()
    time.sleep(0.5)
    client.send_signal(signal.SIGINT)
    _, said = client.communicate(timeout=20)
    assert client.returncode == 130
    assert f"dlsys jobs stop {job_id}" in said
    cluster.wait_for(job_id, ["SUCCEEDED"])


def test_no_port_opens_without_the_token(cluster: Cluster) -> None:
    state, token = cluster.paths.read_state(), cluster.paths.read_token()
    for url in (f"{state['desk']}/jobs", f"{state['dashboard']}/api/jobs/"):
        assert status(url, token) == 200
        for wrong in ("", "x" * 64, token[:-1]):
            assert status(url, wrong) in (401, 403), url
    assert status(f"{state['desk']}/jobs", token, Host="evil.example") == 403
    assert status(f"{state['desk']}/jobs", token, Origin="http://evil.example") == 403
    assert status(f"{state['desk']}/jobs", token, method="DELETE") == 405


def test_only_ray_listens_beyond_this_machine_and_it_asks_for_the_token(cluster: Cluster) -> None:
    state = cluster.paths.read_state()
    beyond = {}
    for process in cluster.marked():
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and not connection.laddr.ip.startswith("127."):
                    beyond[connection.laddr.port] = " ".join(process.cmdline())[:200]
    ours = [name for name in beyond.values() if "dlsys" in name and "ray" not in name.lower()]
    assert ours == [], "of dlsys, nothing listens beyond loopback"
    assert not {int(state[key].rpartition(":")[2]) for key in ("desk", "dashboard")} & beyond.keys()
    import grpc

    host = state["address"].rpartition(":")[0]
    answered = []
    for port in beyond:
        with grpc.insecure_channel(f"{host}:{port}") as channel:
            for method in (
                "/ray.rpc.NodeInfoGcsService/GetClusterId",
                "/ray.rpc.CoreWorkerService/NumPendingTasks",
            ):
                try:
                    channel.unary_unary(method)(b"", timeout=2)
                    answered.append((port, method, beyond[port]))
                except grpc.RpcError:
                    continue
    assert answered == [], "without the token, no call is answered"


def test_secrets_and_links_stay_at_home(cluster: Cluster) -> None:
    modes = {
        path.name: oct(path.stat().st_mode & 0o777) for path in (cluster.paths.root, cluster.paths.token)
    }
    assert modes == {cluster.name: "0o700", "token": "0o600"}
    token = cluster.paths.read_token().encode()
    told = [
        path
        for path in cluster.folder.rglob("*")
        if path.is_file() and path != cluster.paths.token and token in path.read_bytes()
    ]
    assert told == []


def test_a_changed_head_is_refused_and_a_node_more_is_started(cluster: Cluster) -> None:
    text = (cluster.folder / "cluster.yaml").read_text()
    (cluster.folder / "other.yaml").write_text(text.replace("name: head, cpus: 1", "name: head, cpus: 2"))
    refused = cluster.dlsys("cluster", "up", "other.yaml", check=False)
    assert refused.returncode == 2
    assert "nodes.0 cannot change" in refused.stderr
    (cluster.folder / "more.yaml").write_text(f"{text}  - {{name: extra, cpus: 1}}\n")
    cluster.dlsys("cluster", "up", "more.yaml")
    cluster.until(lambda: names(cluster) == ["extra-0", "head-0", "worker-0"])
    cluster.dlsys("cluster", "up", "cluster.yaml")
    cluster.until(lambda: names(cluster) == ["head-0", "worker-0"], 60)


def names(cluster: Cluster) -> list[str]:
    status = json.loads(cluster.dlsys("cluster", "status", "--json").stdout)
    return sorted(node["name"] for node in status["nodes"] if node["alive"])


def command(name: str, cpu: float = 1, command: Sequence[str] = SLEEP, priority: int = 0) -> dict:
    loaded = of_command(command, name, [f"resources.cpus={cpu}"], Path.cwd())
    return of_loaded(loaded, Options(priority))


def status(url: str, token: str, method: str = "GET", **headers: str) -> int:
    request = urllib.request.Request(
        url, method=method, headers={"Authorization": f"Bearer {token}", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_down_leaves_no_process_port_or_file(tmp_path: Path) -> None:
    with local_cluster(tmp_path) as cluster:
        state = cluster.paths.read_state()
        family = cluster.marked()
        job_id = submit(cluster, "--", "sleep", "100")
        cluster.wait_for(job_id, ["RUNNING"])
        cluster.dlsys("cluster", "down")
        assert [process for process in family if process.is_running()] == []
        for port in state["ports"].values():
            with socket.socket() as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections linger
                free.bind(("", port))
        assert not os.path.exists(state["temp"])
        assert not cluster.paths.root.exists()
        assert read_json(cluster.run(job_id).submission)["state"] == "STOPPED"
        assert "no cluster" in cluster.dlsys("jobs", "list", "--cluster", cluster.name, check=False).stderr
        assert job_id in cluster.dlsys("jobs", "list", "--all").stdout
