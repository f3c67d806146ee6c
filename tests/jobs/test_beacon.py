"""A worker that does not see the run's folder says so before it trains."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from dlsys.errors import UsageError
from dlsys.jobs.launch.beacon import Beacon, beacon_of
from dlsys.jobs.mirror.objects import Objects


def test_who_sees_the_folder_is_silent_and_leaves_nothing(tmp_path: Path) -> None:
    with Beacon(tmp_path) as beacon:
        pickle.loads(pickle.dumps(beacon)).look("here")
    assert list(tmp_path.iterdir()) == []


def test_another_folder_of_that_name_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with Beacon(tmp_path / "here") as beacon:
        elsewhere = Beacon(tmp_path / "there", beacon.text)
        with pytest.raises(UsageError, match=r"10\.0\.0\.7 does not see .*there"):
            elsewhere.look("10.0.0.7")


def test_a_stale_file_is_noticed(tmp_path: Path) -> None:
    with Beacon(tmp_path) as beacon:
        (tmp_path / f".beacon-{beacon.text}").write_text("old")
        with pytest.raises(UsageError, match="sees something else"):
            beacon.look("here")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which root alone may")
def test_a_folder_that_cannot_be_written_is_noticed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with Beacon(tmp_path) as beacon:
        (tmp_path / f".beacon-{beacon.text}").chmod(0o644)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            try:
                beacon.look("here")
            except UsageError as error:
                os._exit(0 if "Permission denied" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_store_is_read_and_written_and_nothing_is_left_in_it(tmp_path: Path, store: str) -> None:
    with beacon_of(tmp_path / "run", store) as beacon:
        pickle.loads(pickle.dumps(beacon)).look("10.0.0.7")
    assert Objects(store).files("", deep=True) == {}


def test_a_store_that_a_node_does_not_reach_is_named_with_the_node(tmp_path: Path, store: str) -> None:
    with beacon_of(tmp_path / "run", store) as beacon:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            with pytest.raises(UsageError, match=rf"10\.0\.0\.7: {store}: .*NETWORK_CONNECTION"):
                beacon.look("10.0.0.7")
        elsewhere = beacon_of(tmp_path / "run", "s3://no-such-bucket/x")
        with pytest.raises(UsageError, match=r"10\.0\.0\.7: s3://no-such-bucket/x: "):
            elsewhere.look("10.0.0.7")
