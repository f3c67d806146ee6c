"""`dlsys doctor`: each check in a good and in a bad case. (The store's are in tests/track.)"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import typer

from dlsys.cli.doctor import tell
from dlsys.cluster.provider import Finding
from dlsys.jobs import doctor
from dlsys.jobs.doctor import leftovers, machine, software
from dlsys.paths import RunPaths, write_json
from dlsys.track import writer

Check = Callable[[], Iterator[Finding]]
RUN = "run-20261130-120000-abcd"


def states(check: Check) -> list[str]:
    return [finding.state for finding in check()]


def told(check: Check) -> str:
    return "\n".join(f"{finding.what} | {finding.mend}" for finding in check())


class TestSoftware:
    @pytest.fixture
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Makes a dlsys that needs this."""

        def install(*lines: str) -> None:
            folder = tmp_path / "site" / "dlsys-9.dist-info"
            folder.mkdir(parents=True)
            (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", "Name: dlsys", *lines, ""]))
            monkeypatch.syspath_prepend(str(folder.parent))

        return install

    def test_all_is_there(self, installed: Callable[..., None]) -> None:
        installed("Version: 9", "Requires-Python: >=3.11", "Requires-Dist: torch>=2.13,<2.14")
        assert states(software.python) == ["ok"]
        assert states(software.packages) == ["ok"]
        assert "1 packages" in told(software.packages)

    def test_python_is_too_old(self, installed: Callable[..., None]) -> None:
        installed("Version: 9", "Requires-Python: >=3.99")
        assert states(software.python) == ["wrong"]
        assert "Python >=3.99" in told(software.python)

    def test_packages_are_missing_or_others(self, installed: Callable[..., None]) -> None:
        needed = ["torch>=99", "no-such-package>=1", "rich>=14", 'other>=1; extra == "vision"']
        installed("Version: 9", *(f"Requires-Dist: {need}" for need in needed))
        assert states(software.packages) == ["wrong", "wrong"]
        assert "pip install 'torch>=99'" in told(software.packages)
        assert "no-such-package is missing" in told(software.packages)

    def test_extras(self, installed: Callable[..., None]) -> None:
        needed = ['rich>=99; extra == "vision"', 'no-such-package; extra == "language"', "numpy"]
        installed("Version: 9", *(f"Requires-Dist: {need}" for need in needed))
        assert states(software.extras) == ["warning", "ok", "ok", "ok"]
        assert "vision needs >=99" in told(software.extras)
        assert "language is not installed (no-such-package)" in told(software.extras)

    def test_programs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert states(software.programs) == ["warning", "warning"]
        for name in ("git", "g++"):
            (tmp_path / name).touch(0o755)
        assert states(software.programs) == ["ok", "ok"]


class TestMachine:
    def test_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert f"{len(os.sched_getaffinity(0))} CPU cores" in told(machine.processors)
        monkeypatch.setattr(machine, "_MEMORY", 1e6)
        assert states(machine.processors) == ["warning"]

    @pytest.mark.parametrize(("place", "state"), [("/dev/shm", "ok"), ("/proc", "wrong")])
    def test_shared_memory(self, place: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "_SHM", Path(place))
        monkeypatch.setattr(machine, "_SHARED", 0)
        assert states(machine.shared_memory) == [state]

    def test_open_files(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
            assert states(machine.open_files) == ["warning"]
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
            assert states(machine.open_files) == ["ok"]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def test_disks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "_DISK_WARN", 0)
        monkeypatch.setenv("DLSYS_HOME", str(tmp_path / "not" / "yet"))
        assert states(machine.disks) == ["ok", "ok"]
        assert not (tmp_path / "not").exists()
        monkeypatch.setenv("DLSYS_HOME", "/proc/dlsys")
        assert states(machine.disks) == ["wrong", "ok"]
        assert "Set DLSYS_HOME" in told(machine.disks)

    @pytest.mark.parametrize(("least", "state"), [(1e9, "wrong"), (0.0, "warning")])
    def test_a_disk_that_is_nearly_full(
        self, least: float, state: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, "_DISK_WARN", 1e9)
        monkeypatch.setattr(machine, "_DISK", least)
        assert states(machine.disks) == [state, state]

    def test_a_gpu_that_torch_does_not_see(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        if torch.cuda.is_available():
            assert "GPU 0 is" in told(machine.gpus)
            return
        assert states(machine.gpus) == ["ok"]
        monkeypatch.setattr(machine, "_GPUS", ("null",))  # a device that is there
        assert states(machine.gpus) == ["warning"]


class TestLeftovers:
    @pytest.fixture
    def run(self) -> RunPaths:
        """A run that has ended, and that MLflow has."""
        paths = RunPaths.create(RUN)
        write_json(paths.record, {"run_id": RUN})
        write_json(paths.outcome, {"status": "FINISHED"})
        write_json(paths.mlflow, {"state": writer._state(paths)})
        return paths

    def test_all_is_delivered(self, run: RunPaths) -> None:
        assert states(leftovers.runs) == ["ok"]

    def test_some_is_not(self, run: RunPaths) -> None:
        (run.spool / "rank-0.jsonl").write_text("{}\n")
        assert states(leftovers.runs) == ["warning"]
        assert f"{RUN}: MLflow does not have all of it | dlsys runs sync" in told(leftovers.runs)
        me = psutil.Process()
        write_json(run.owner, {"writer": [me.pid, me.create_time()]})
        assert states(leftovers.runs) == ["ok"], "its writer is at it"

    def test_one_that_nobody_drives(self, run: RunPaths) -> None:
        run.outcome.unlink()
        owner = {"pid": os.getpid(), "created": 1.0, "host": socket.gethostname(), "writer": None}
        write_json(run.owner, owner)
        assert states(leftovers.runs) == ["warning"]
        assert "nobody drives it" in told(leftovers.runs)

    def test_a_large_cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert states(leftovers.cache) == ["ok"]
        (tmp_path / "dlsys" / "tables").mkdir(parents=True)
        with open(tmp_path / "dlsys" / "tables" / "large.arrow", "wb") as file:
            file.truncate(30 * 10**9)  # it takes no room
        assert states(leftovers.cache) == ["warning"]

    def test_an_address_where_nothing_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "RAY_ADDRESS" not in told(leftovers.ray)
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        assert next(leftovers.ray()).state == "wrong"
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        assert next(leftovers.ray()).state == "ok"

    def test_a_node_without_its_head(self, tmp_path: Path) -> None:
        """What Ray calls `raylet` is any program here that is called so."""
        program = tmp_path / "raylet"
        program.symlink_to(Path(sys.executable).resolve())
        with socket.create_server(("127.0.0.1", 0)) as head:
            address = f"--gcs-address=127.0.0.1:{head.getsockname()[1]}"
            words = [str(program), "-SEc", "import sys; sys.stdin.read()", address]
            node = subprocess.Popen(words, stdin=subprocess.PIPE)
            try:
                assert f"process {node.pid} is" not in told(leftovers.ray)
                head.close()
                assert f"process {node.pid} is a node of a Ray whose head is gone" in told(leftovers.ray)
            finally:
                node.communicate()


class TestVerb:
    def test_one_check_that_fails_hides_no_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken() -> Iterator[Finding]:
            yield Finding(True, "one")
            raise RuntimeError("no such file")

        monkeypatch.setattr(doctor, "CHECKS", (broken, machine.open_files))
        one, failed, *others = doctor.examine()
        assert (one.what, failed.state) == ("one", "warning")
        assert "broken could not be looked at: no such file" in failed.what
        assert len(others) == 1

    def test_lines_and_exit_codes(self, capsys: pytest.CaptureFixture[str]) -> None:
        good = [Finding(True, "a"), Finding(False, "b", "mend it", serious=False)]
        tell(good)
        assert capsys.readouterr().out == "ok   a\nWARN b\n     mend it\n"
        with pytest.raises(typer.Exit) as ended:
            tell([*good, Finding(False, "c")], as_json=True)
        assert ended.value.exit_code == 1
        rows = json.loads(capsys.readouterr().out)
        assert [row["state"] for row in rows] == ["ok", "warning", "wrong"]
        assert rows[1]["mend"] == "mend it"

    def test_it_imports_nothing_that_takes_long(self) -> None:
        if any(any(Path("/dev").glob(name)) for name in machine._GPUS):
            pytest.skip("torch is asked about the GPU")
        code = (
            "import sys; from dlsys.jobs.doctor import examine; found = list(examine()); "
            "print([name for name in ('torch', 'ray', 'mlflow') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"
