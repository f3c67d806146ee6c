"""Simulators that are programs of their own: the documented example trains, and whatever fails is told."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from gymnasium import spaces
from rl_models import check_resumes_exactly, job
from runner import Folder

from dlsys.errors import SpecError, UsageError, WorkloadError
from dlsys.rl import environments
from dlsys.rl.engine import build
from dlsys.rl.external import connection
from dlsys.rl.external.values import json_of, space_of, value_of
from dlsys.spec.load import load
from dlsys.spec.rl.job import Environment, RLJob

PAGE = (Path(__file__).parents[2] / "docs" / "external-simulators.md").read_text()
NAME = "dlsys/External-v0"


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """The page's example."""
    (text,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(text.splitlines()) < 60
    assert "dlsys" not in re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)
    (tmp_path / "point.py").write_text(text)
    return tmp_path / "point.py"


@pytest.fixture
def listening(point: Path) -> Iterator[str]:
    """The address of the example, which listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(point), str(port)])
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


def started(point: Path) -> dict[str, Any]:
    return {"command": [sys.executable, str(point)]}


def told(options: dict[str, Any], **more: Any) -> RLJob:
    algorithm = {"name": "ppo", "batch_size": 200, "passes": 4, "lr": 3e-3, "hidden": [16]}
    return job(algorithm, NAME, options, resources={"envs": 2}, **more)


def simulators() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "point.py" in " ".join(one.cmdline())]


def test_the_pages_example_trains_alike_started_and_listening(point: Path, listening: str) -> None:
    learned = []
    for options in (started(point), {"address": listening}):
        with closing(build(told(options))) as agent:
            assert len(simulators()) == (3 if "command" in options else 1)
            learned.append([agent.iterate().returns for _ in range(8)])
    assert learned[0] == learned[1]
    assert np.mean(learned[0][-1]) > np.mean(learned[0][0]) + 1, "it is nearer to 0 than it was"
    assert len(simulators()) == 1, "that which listens is nobody's to end"


def test_it_goes_on_exactly(listening: str) -> None:
    with (
        closing(build(told({"address": listening}))) as whole,
        closing(build(told({"address": listening}))) as o,
    ):
        check_resumes_exactly(whole, o)


def test_a_killed_simulator_is_told_or_made_anew(point: Path) -> None:
    with closing(build(told(started(point)))) as agent:
        agent.iterate()
        killed = simulators()[-1]
        killed.send_signal(signal.SIGKILL)
        said = rf"the simulator at 127\.0\.0\.1:\d+ \(.*process {killed.pid}\) was killed by SIGKILL when it"
        with pytest.raises(WorkloadError, match=said):
            agent.iterate()
    with closing(build(told(started(point), failure={"environment": "renew"}))) as agent:
        agent.iterate()
        before = simulators()
        before[-1].send_signal(signal.SIGKILL)
        assert agent.iterate().figures["renewed"] == 1
        assert len(simulators()) == len(before)
        assert agent.iterate().figures["renewed"] == 1
    assert simulators() == []


def test_a_whole_run_is_resumed(folder: Folder, point: Path) -> None:
    (folder.path / "point.py").write_text(point.read_text())
    command = json.dumps([sys.executable, "point.py"])
    changes = (
        f"environment.name={NAME}",
        f"environment.options.command={command}",
        "resources.env_runners=0",
    )
    done = folder.dlsys("run", "agent.yaml", *changes, "stop.epochs=2", "--json")
    assert done.code == 0, done.err
    more = folder.dlsys("run", "--resume", "agent", "stop.epochs=3", "--json")
    assert more.code == 0, more.err
    assert "start anew" not in more.err
    assert set(folder.history("train/return").values()) == {1}
    folder.assert_alone()


class Fake:
    """Listens, and answers each message with the next of some lines; None closes, a number waits."""

    def __init__(self, *lines: Any) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.heard: list[Any] = []
        threading.Thread(target=self._serve, args=(lines,), daemon=True).start()

    def _serve(self, lines: tuple[Any, ...]) -> None:
        found, _ = self._server.accept()
        with found, found.makefile("rwb") as stream:
            for line in lines:
                self.heard.append(json.loads(stream.readline()))
                if line is None:
                    return
                if isinstance(line, float):
                    time.sleep(line)
                else:
                    stream.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
                    stream.flush()
            with suppress(OSError):
                self.heard += [json.loads(line) for line in stream]


HELLO = {
    "protocol": 1,
    "observation_space": {"type": "Box", "low": None, "high": None, "shape": [2], "dtype": "float32"},
    "action_space": {"type": "Discrete", "n": 2, "start": 5},
    "later": "keys that are not known are left alone",
}
STEP = {"observation": [1, 2], "reward": 1, "terminated": False, "truncated": False}


def made(address: str, **options: Any) -> environments.Known:
    options = {"address": address, "start_timeout": 2, "timeout": 0.3, **options}
    return environments.make(Environment(name=NAME, options=options))


def test_what_is_sent_is_what_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    raw = base64.b64encode(np.array([1.5, -2], "<f4").tobytes()).decode()
    fake = Fake(HELLO, {"observation": [0.25, 1e9]}, {**STEP, "observation": raw, "info": {"won": 1}})
    env = made(fake.address, settings={"scene": 3}, token_file=str(tmp_path / "token"))
    assert isinstance(env.observation_space, spaces.Box)
    assert np.isneginf(env.observation_space.low).all()
    np.testing.assert_array_equal(env.reset(seed=7)[0], np.array([0.25, 1e9], np.float32))
    seen, reward, over, cut, info = env.step(1)
    np.testing.assert_array_equal(seen, np.array([1.5, -2], np.float32))
    assert (reward, over, cut, info) == (1.0, False, False, {"won": 1})
    env.close()
    for _ in range(100):
        if len(fake.heard) == 4:
            break
        time.sleep(0.01)
    assert fake.heard == [
        {"type": "hello", "protocol": 1, "settings": {"scene": 3}, "token": "secret"},
        {"type": "reset", "seed": 7},
        {"type": "step", "action": 6},
        {"type": "close"},
    ]


@pytest.mark.parametrize(
    ("hello", "said"),
    [
        ({**HELLO, "protocol": 2}, "speaks protocol 2, and this dlsys speaks 1"),
        ({"error": "no licence"}, "answered 'hello' with an error: no licence"),
        (b"HTTP/1.1 400 Bad Request\n", "what is no JSON .*: 'HTTP/1.1 400 Bad Request'"),
        (b"[1]\n", "answered 'hello' with list, and not with an object"),
        (None, "closed the connection when it was asked for 'hello'"),
        (b"x" * 3 * 2**20, "sent a message of more than 1 MiB"),
        (5.0, "no answer to 'hello' within"),
        ({"protocol": 1}, "observation_space must be an object with a type, got None"),
        (
            {**HELLO, "action_space": {"type": "Dict", "spaces": {"a": {"type": "Sphere"}}}},
            r"action_space\.spaces\.a\.type must be one of Box, .*got 'Sphere'",
        ),
    ],
)
def test_who_begins_wrongly_is_told(hello: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_LONGEST", 2**20)
    fake = Fake(hello)
    with pytest.raises(WorkloadError, match=f"the simulator at {fake.address} .*{said}"):
        made(fake.address, start_timeout=0.5)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "closed the connection when it was asked for 'step'"),
        (5.0, r"no answer to 'step' within 0\.3 s \(environment\.options\.timeout"),
        ({"error": "the arm is broken"}, "answered 'step' with an error: the arm is broken"),
        ({**STEP, "reward": None}, "reward must be a number, got None"),
        ({**STEP, "terminated": 1}, r"terminated and truncated must be true or false, got \[1, False\]"),
        ({**STEP, "observation": [1, 2, 3]}, r"observation is of shape \(3,\), and its space says \(2,\)"),
        ({**STEP, "observation": [1, "2"]}, "observation must be numbers"),
        ({**STEP, "observation": "AAAA"}, "observation has 3 bytes, and float32 of shape .* are 8"),
        ({**STEP, "observation": "?"}, "observation is no base64"),
        ({**STEP, "info": []}, "info must be an object"),
    ],
)
def test_who_answers_a_step_wrongly_is_told(answer: Any, said: str) -> None:
    fake = Fake(HELLO, {"observation": [0, 0]}, answer)
    env = made(fake.address)
    env.reset(seed=0)
    with pytest.raises(WorkloadError, match=f"the simulator at {fake.address} .*{said}"):
        env.step(0)
    env.close()


def test_nobody_there_and_who_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"simulator at 127\.0\.0\.1:1 cannot be reached within 0\.3 s"):
        made("127.0.0.1:1", start_timeout=0.3)
    for code, said in (
        ("raise SystemExit(3)", "ended with exit code 3 before it connected"),
        ("import time; time.sleep(60)", r"did not connect within 0\.5 s"),
    ):
        options = {"command": [sys.executable, "-c", code], "start_timeout": 5 if "3" in code else 0.5}
        with pytest.raises(WorkloadError, match=said):
            environments.make(Environment(name=NAME, options=options))
    with pytest.raises(WorkloadError, match="nowhere cannot be started: No such file"):
        environments.make(Environment(name=NAME, options={"command": ["nowhere"]}))


def test_a_stranger_is_no_simulator(point: Path) -> None:
    """Who connects to a port that waits for a program of ours must know its token."""
    point.write_text(point.read_text().replace('os.environ["DLSYS_SIMULATOR_TOKEN"]', '"guessed"'))
    with pytest.raises(WorkloadError, match="did not show the token of its variable DLSYS_SIMULATOR_TOKEN"):
        environments.make(Environment(name=NAME, options=started(point)))
    assert simulators() == []


ALL = {
    "type": "Dict",
    "spaces": {
        "camera": {"type": "Box", "low": 0, "high": 255, "shape": [2, 3], "dtype": "uint8"},
        "gear": {"type": "Discrete", "n": 3, "start": -1},
        "grips": {"type": "MultiDiscrete", "nvec": [2, 5]},
        "lights": {"type": "MultiBinary", "n": [2, 2]},
        "arm": {
            "type": "Tuple",
            "spaces": [
                {"type": "Box", "low": [-1, None], "high": [1, None], "shape": [2], "dtype": "float64"},
                {"type": "Box", "low": None, "high": None, "shape": [1], "dtype": "int64"},
                {"type": "Box", "low": -3, "high": 3, "shape": [], "dtype": "int16"},
            ],
        },
    },
}


def test_all_spaces_and_their_elements_cross_over() -> None:
    space = space_of(ALL, "observation_space")
    arm = spaces.Tuple(
        [
            spaces.Box(np.array([-1, -np.inf]), np.array([1, np.inf]), dtype=np.float64),
            spaces.Box(-(2**63), int(np.nextafter(2.0**63, 0)), (1,), np.int64),
            spaces.Box(-3, 3, (), np.int16),
        ]
    )
    assert space == spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (2, 3), np.uint8),
            "gear": spaces.Discrete(3, start=-1),
            "grips": spaces.MultiDiscrete([2, 5]),
            "lights": spaces.MultiBinary((2, 2)),
            "arm": arm,
        }
    )
    space.seed(0)
    for _ in range(5):
        drawn = space.sample()
        again = value_of(space, json.loads(json.dumps(json_of(space, drawn))), "observation")
        assert space.contains(again)
        for name in ("camera", "grips", "lights", "gear"):
            np.testing.assert_array_equal(again[name], drawn[name])
        for one, other in zip(again["arm"], drawn["arm"], strict=True):
            np.testing.assert_array_equal(one, other)
    image = {"type": "Box", "low": 0, "high": 65535, "shape": [2, 1], "dtype": "uint16"}
    packed = value_of(space_of(image, ""), base64.b64encode(b"\x01\x00\x00\x02").decode(), "")
    np.testing.assert_array_equal(packed, [[1], [512]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"camera": [[0, 1, 2], [3, 4, 256]]}, r"seen\.camera"),
        ({"camera": [[0, 1, 2], [3, 4, 0.5]]}, r"seen\.camera must be whole numbers"),
        ({"gear": 2}, r"seen\.gear must be -1 to 1, got 2"),
        ({"gear": True}, r"seen\.gear must be a whole number, got True"),
        ({"grips": [0, 5]}, r"seen\.grips must be one of MultiDiscrete"),
        ({"arm": [[0, 0], [0]]}, r"seen\.arm must be a list of 3"),
        ({"more": 0}, "seen must be an object with arm, camera, gear, grips, lights"),
    ],
)
def test_what_suits_no_space_is_told(change: dict[str, Any], said: str) -> None:
    space = space_of(ALL, "observation_space")
    right = {
        "camera": [[0] * 3] * 2,
        "gear": 0,
        "grips": [0, 0],
        "lights": [[0, 1]] * 2,
        "arm": [[0, 0], [0], 0],
    }
    value_of(space, right, "seen")
    with pytest.raises(ValueError, match=said):
        value_of(space, right | change, "seen")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ("{name: dlsys/External-v0}", r"options: address \(.*\) or command \(.*\): one of them is required"),
        ("{name: dlsys/External-v0, options: {address: 'a:1', command: [b]}}", "options: .*say one of them"),
        (
            "{name: dlsys/External-v0, options: {address: here}}",
            r"options\.address: must be host:port",
        ),
        ("{name: dlsys/External-v0, options: {adress: 'a:1'}}", r"options\.adress.*Did you mean 'address'"),
        ("{name: havok/Ragdoll-v0}", "Havok is proprietary.*dlsys/External-v0"),
        ("{name: physx/Ant-v0}", "PhysX is a C\\+\\+ library .*docs/external-simulators.md"),
        ("{name: flex/Cloth-v0}", "FleX is a closed library"),
    ],
)
def test_what_cannot_be_is_said_at_check(environment: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        f"kind: rl\nname: x\nenvironment: {environment}\nalgorithm: {{name: ppo}}\nstop: {{epochs: 1}}\n"
    )
    with pytest.raises(SpecError, match=said):
        load(file)


def test_check_starts_nothing_and_the_run_holds_it_against_the_algorithm(point: Path, tmp_path: Path) -> None:
    marker, file = tmp_path / "started", tmp_path / "job.yaml"
    point.write_text(f"open({str(marker)!r}, 'w').close()\n" + point.read_text())
    command = json.dumps([sys.executable, str(point)])
    file.write_text(
        f"kind: rl\nname: x\nenvironment: {{name: {NAME}, options: {{command: {command}}}}}\n"
        "algorithm: {name: ddpg}\nstop: {epochs: 1}\n"
    )
    found = load(file).agent
    assert found is not None
    assert not marker.exists()
    with pytest.raises(UsageError, match="learns from continuous actions, and dlsys/External-v0 has"):
        environments.check_suits(found.algorithm, found.environment)
    assert os.path.exists(marker)
