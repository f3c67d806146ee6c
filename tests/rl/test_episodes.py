from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scripted import Balancer, SwingUp

from dlsys.errors import DataError, SpecError
from dlsys.rl.actions import Actions
from dlsys.rl.episodes import Recorded, read, record
from dlsys.spec.load import load
from dlsys.spec.rl.job import Environment

CARTPOLE, PENDULUM = Environment(name="CartPole-v1"), Environment(name="Pendulum-v1")


def spaces(name: str) -> tuple[int, Actions]:
    env = gymnasium.make(name)
    return int(np.prod(env.observation_space.shape or ())), Actions(env.action_space)


def test_what_is_read_is_what_was_played(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.parquet"
    returns = record(Balancer(), CARTPOLE, 3, 0, path, explore=0.6)
    found = read(path, *spaces("CartPole-v1"))
    assert found.last.sum() == 3
    assert found.terminated.sum() == 3
    lengths = np.diff(np.flatnonzero(found.last), prepend=-1)
    assert lengths.tolist() == returns
    inside = ~found.last[:-1]
    np.testing.assert_array_equal(found.following[:-1][inside], found.observations[1:][inside])
    best = Balancer().act(found.observations)
    assert 0.5 < (best == found.actions).mean() < 0.85, "six in ten are random, half of these the best"


def test_the_seed_decides_a_recording(tmp_path: Path) -> None:
    one, same, other = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    for path, seed in ((one, 0), (same, 0), (other, 1)):
        record(SwingUp(), PENDULUM, 1, seed, path, explore=0.5)
    assert pq.read_table(one).equals(pq.read_table(same))
    assert not pq.read_table(one).equals(pq.read_table(other))


def test_continuous_actions_are_read_in_plus_minus_one_and_cut_episodes_end(tmp_path: Path) -> None:
    record(SwingUp(), PENDULUM, 2, 0, tmp_path / "a.parquet")
    found = read(tmp_path, *spaces("Pendulum-v1"))
    np.testing.assert_allclose(found.actions, SwingUp().act(found.observations), atol=1e-5)
    assert np.flatnonzero(found.last).tolist() == [199, 399]
    assert not found.terminated.any()


def test_returns_stop_at_the_end_of_an_episode() -> None:
    nothing = np.zeros((4, 1), np.float32)
    last = np.array([False, True, False, True])
    steps = Recorded(nothing, nothing, np.arange(1, 5, dtype=np.float32), nothing, last, last)
    assert steps.returns(0.5).tolist() == [2.0, 2.0, 5.0, 4.0]


def test_rllib_reads_it_too(tmp_path: Path) -> None:
    from ray.rllib.algorithms.bc import BCConfig
    from ray.rllib.offline.offline_prelearner import OfflinePreLearner

    record(Balancer(), CARTPOLE, 1, 0, tmp_path / "a.parquet")
    columns = pq.read_table(tmp_path / "a.parquet").to_pydict()
    batch = {name: np.array(values) for name, values in columns.items()}
    reader = OfflinePreLearner.__new__(OfflinePreLearner)
    reader.config = BCConfig()  # type: ignore[no-untyped-call]
    episodes = reader._map_to_episodes(batch)["episodes"]
    assert len(episodes) == 500
    assert episodes[7].get_observations(0).tolist() == columns["obs"][7]
    assert episodes[-1].is_truncated


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_text("eps_id,t"), "cannot be read as Parquet"),
        (
            lambda path: pq.write_table(pa.table({"obs": [[1.0]], "t": [0]}), path),
            "no column eps_id, actions",
        ),
        (lambda path: record(SwingUp(), PENDULUM, 1, 0, path), "observations should be 4 numbers"),
    ],
)
def test_a_wrong_file_is_named(write: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path)
    with pytest.raises(DataError, match=said) as told:
        read(path, *spaces("CartPole-v1"))
    assert str(path) in str(told.value)


def test_a_file_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "kind: rl\nname: x\nenvironment: {name: CartPole-v1}\n"
        "algorithm: {name: bc, episodes: a.parquet}\nstop: {epochs: 1}\n"
    )
    with pytest.raises(SpecError, match=r"job.yaml:4: algorithm.episodes: no such file: .*a\.parquet"):
        load(file)
    (tmp_path / "a.parquet").touch()
    assert load(file).job.algorithm.name == "bc"  # type: ignore[union-attr]
