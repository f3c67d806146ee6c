"""A run's folder on several nodes and in an object store: a real S3 server, and a folder for each node."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dlsys.errors import UsageError
from dlsys.jobs.mirror import files as module
from dlsys.jobs.mirror.checkpoints import Checkpoints
from dlsys.jobs.mirror.files import Files
from dlsys.jobs.mirror.journal import StoreError
from dlsys.jobs.mirror.objects import Objects
from dlsys.paths import RunPaths, write_json
from dlsys.track.spool import Spool, records

RUN = "run-20260101-120000-abcd"


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    # moto tells times in whole seconds, but no test here writes one file twice with the same size.
    monkeypatch.setattr(module, "_APART", 0.0)


class Node:
    """A node with a folder of its own."""

    def __init__(self, home: Path, store: str) -> None:
        self.paths = RunPaths(home / "runs" / RUN)
        self.paths.make()
        self.objects = Objects(store)
        self.files = Files(self.paths, self.objects)
        self.checkpoints = Checkpoints(self.paths, self.objects, self.files)

    def save(self, step: int, text: str = "weights", *, best: bool = False) -> None:
        """A finished checkpoint, as far as the mirror looks into it."""
        place = self.paths.checkpoints / f"step-{step:010d}"
        place.mkdir()
        (place / "model.safetensors").write_text(text)
        manifest = {"files": {"model.safetensors": {"bytes": len(text), "sha256": text}}}
        (place / "manifest.json").write_text(json.dumps(manifest))
        if best:
            (self.paths.checkpoints / "best").write_text(place.name)

    def forget(self, step: int) -> None:
        shutil.rmtree(self.paths.checkpoints / f"step-{step:010d}")

    def steps(self) -> list[int]:
        return sorted(int(path.name[5:]) for path in self.paths.checkpoints.glob("step-*"))

    def stored(self) -> set[str]:
        return {path.removeprefix(f"runs/{RUN}/") for path in self.objects.files("", deep=True)}


@pytest.fixture
def a(store: str, tmp_path: Path) -> Node:
    return Node(tmp_path / "a", store)


@pytest.fixture
def b(store: str, tmp_path: Path) -> Node:
    return Node(tmp_path / "b", store)


class TestFiles:
    def test_what_one_writes_the_other_reads(self, a: Node, b: Node) -> None:
        write_json(a.paths.record, {"run_id": RUN})
        (a.paths.failures / "attempt-1").mkdir()
        write_json(a.paths.failures / "attempt-1" / "rank-0.json", {"rank": 0})
        assert a.files.push()
        b.files.pull(deep=True)
        assert json.loads(b.paths.record.read_text()) == {"run_id": RUN}
        assert (b.paths.failures / "attempt-1" / "rank-0.json").exists()

    def test_a_worker_is_told_no_more_than_it_must_know(self, a: Node, b: Node) -> None:
        write_json(a.paths.owner, {"fence": 1})
        write_json(a.paths.record, {})
        a.files.push()
        b.files.pull(deep=False)
        assert b.paths.owner.exists()
        assert not b.paths.record.exists()

    def test_secrets_and_notes_of_the_node_never_leave_it(self, a: Node) -> None:
        for name in ("secrets", "ballast", "owner.lock", "mlflow.json", "cursor.json", ".spec.yaml.17"):
            (a.paths.root / name).write_text("hunter2")
        (a.paths.spool / ".hidden").write_text("hunter2")
        a.paths.spec.write_text("kind: train")
        (a.paths.logs / "linked.log").symlink_to(a.paths.secrets)
        a.files.push()
        assert a.stored() == {"spec.yaml"}

    def test_nothing_is_sent_twice_or_back(self, a: Node, b: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        a.paths.spec.write_text("x")
        a.files.push()
        b.files.pull(deep=True)
        monkeypatch.setattr(Objects, "write", lambda *args: pytest.fail("sent again"))
        monkeypatch.setattr(Objects, "read", lambda *args: pytest.fail("fetched again"))
        for node in (a, b):
            assert node.files.push(all=True)
            node.files.pull(deep=True)

    def test_stop_comes_and_goes(self, a: Node, b: Node) -> None:
        stop = b.paths.root / "stop"
        (a.paths.root / "stop").touch()
        a.files.push()
        b.files.pull(deep=False)
        assert stop.exists()
        b.files.push(all=True)
        (a.paths.root / "stop").unlink()
        a.files.push()
        b.files.pull(deep=False)
        b.files.push(all=True)
        assert not stop.exists()
        assert a.stored() == set()

    def test_a_disk_that_lost_its_files_takes_none_from_the_store(self, a: Node) -> None:
        a.paths.spec.write_text("x")
        a.paths.log(0).write_text("said")
        a.files.push()
        a.paths.spec.unlink()
        a.paths.log(0).unlink()
        a.files.push()
        assert a.stored() == {"spec.yaml", "logs/rank-0.log"}
        a.files.pull(deep=True)
        assert a.paths.log(0).read_text() == "said"


class TestSpools:
    def test_a_reader_elsewhere_reads_on_where_it_was(self, a: Node, b: Node) -> None:
        """As the writer to MLflow does: by the byte."""
        spool = Spool(a.paths.spool / "rank-0.jsonl")
        there, offset, seen = b.paths.spool / "rank-0.jsonl", 0, []
        for step in range(4):
            spool.metrics(step, {"loss": 1.0})
            with open(a.paths.spool / "rank-0.jsonl", "ab") as file:
                file.write(b'{"torn' if step == 3 else b"")
            a.files.push()
            b.files.pull(deep=True)
            for record, end in records(there, offset):
                seen.append(record["s"])
                offset = end
        spool.close()
        assert seen == [0, 1, 2, 3]
        assert there.read_bytes().endswith(b"\n"), (
            "half a line would stay there when it is cut off at its writer"
        )

    def test_a_rank_goes_on_elsewhere_and_comes_back(self, a: Node, b: Node) -> None:
        for step, node in enumerate([a, b, a]):
            node.files.push(all=True)
            node.files.pull(deep=False, only=["spool/rank-0.jsonl"])
            spool = Spool(node.paths.spool / "rank-0.jsonl")
            spool.metrics(step, {"loss": 1.0})
            spool.metrics(0, {"loss": 2.0})
            spool.close()
            node.files.push(all=True)
        found = [record["s"] for record, _ in records(a.paths.spool / "rank-0.jsonl")]
        assert found == [0, 1, 2], "each once: a value that was recorded elsewhere is not recorded again"

    def test_a_node_that_was_cut_off_does_not_overwrite_what_took_its_place(self, a: Node, b: Node) -> None:
        path = a.paths.spool / "rank-0.jsonl"
        path.write_text('{"s":0}\n')
        a.files.push()
        with open(path, "a") as file:
            file.write('{"s":1,"mine":1}\n')  # never sent: the network is gone
        b.files.pull(deep=False, only=["spool/rank-0.jsonl"])
        with open(b.paths.spool / path.name, "a") as file:
            file.write('{"s":1}\n{"s":2}\n')
        b.files.push()
        a.files.push()
        assert [record.get("mine") for record, _ in records(path)] == [None] * 3
        a.files.push()
        assert a.objects.read(f"runs/{RUN}/spool/rank-0.jsonl").count(b"\n") == 3

    def test_a_mirror_killed_while_it_sends_knows_its_own_writing(self, a: Node, monkeypatch) -> None:
        path = a.paths.spool / "rank-0.jsonl"
        path.write_text('{"s":0}\n')
        write = Objects.write

        def killed(*args: object) -> None:
            write(*args)
            raise KeyboardInterrupt

        a.files.push()
        with open(path, "a") as file:
            file.write('{"s":1}\n')
        monkeypatch.setattr(Objects, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            a.files.push(all=True)
        monkeypatch.setattr(Objects, "write", write)
        with open(path, "a") as file:
            file.write('{"s":2}\n')
        a.files.pull(deep=True)
        a.files.push(all=True)
        assert [record["s"] for record, _ in records(path)] == [0, 1, 2]
        assert a.objects.read(f"runs/{RUN}/spool/rank-0.jsonl") == path.read_bytes()


class TestCheckpoints:
    def test_another_node_goes_on_from_them(self, a: Node, b: Node) -> None:
        a.save(10, best=True)
        a.save(20, "later")
        (a.paths.checkpoints / ".writing-0000000030-1").mkdir()
        a.checkpoints.push()
        b.checkpoints.pull(b.paths)
        assert b.steps() == [10, 20]
        assert (b.paths.checkpoints / "step-0000000020" / "model.safetensors").read_text() == "later"
        assert (b.paths.checkpoints / "best").read_text() == "step-0000000010"
        assert not any("writing" in path for path in a.stored())

    def test_what_was_recorded_before_one_is_there_before_it(self, a: Node) -> None:
        (a.paths.spool / "rank-0.jsonl").write_text('{"s":10}\n')
        a.save(10)
        a.checkpoints.push()
        assert "spool/rank-0.jsonl" in a.stored()

    def test_without_its_manifest_it_does_not_exist(self, a: Node, b: Node, monkeypatch) -> None:
        a.save(10)
        a.checkpoints.push()
        a.save(20)

        def cut(self: Objects, path: str, data: bytes) -> None:
            raise StoreError("the network is gone")

        with monkeypatch.context() as patch:
            patch.setattr(Objects, "write", cut)
            with pytest.raises(StoreError):
                a.checkpoints.push()
        assert "checkpoints/step-0000000020/model.safetensors" in a.stored()
        b.checkpoints.pull(b.paths)
        assert b.steps() == [10]
        a.checkpoints.push()
        b.checkpoints.pull(b.paths)
        assert b.steps() == [10, 20]

    def test_what_its_writer_prunes_is_pruned(self, a: Node, b: Node) -> None:
        a.save(10, best=True)
        a.save(20)
        a.checkpoints.push()
        a.save(30)
        a.forget(20)
        a.checkpoints.push()
        assert {path.split("/")[1] for path in a.stored()} == {"best", "step-0000000010", "step-0000000030"}
        # And by the one that took over.
        b.checkpoints.pull(b.paths)
        b.save(40)
        b.forget(10)
        b.checkpoints.push()
        assert {path.split("/")[1] for path in a.stored()} == {"best", "step-0000000030", "step-0000000040"}

    def test_a_disk_that_lost_them_takes_none_from_the_store(self, a: Node, b: Node) -> None:
        a.save(10)
        a.save(20)
        a.checkpoints.push()
        for step in (10, 20):
            a.forget(step)
        a.checkpoints.push()
        b.checkpoints.pull(b.paths)
        assert b.steps() == [10, 20]

    def test_a_node_that_was_cut_off_sends_none_that_are_of_the_past(self, a: Node, b: Node) -> None:
        a.save(10)
        b.save(20)
        b.checkpoints.push()
        a.checkpoints.push()
        assert not any("step-0000000010" in path for path in a.stored())
        a.checkpoints.pull(a.paths)
        assert a.steps() == [10, 20]

    def test_the_same_step_again_is_another_checkpoint(self, a: Node, b: Node) -> None:
        a.save(10, "damaged")
        a.checkpoints.push()
        b.checkpoints.pull(b.paths)
        a.forget(10)
        a.save(10, "mended")
        a.checkpoints.push()
        b.checkpoints.pull(b.paths)
        assert (b.paths.checkpoints / "step-0000000010" / "model.safetensors").read_text() == "mended"

    def test_an_older_state_takes_the_place_of_newer_ones_only_when_told(self, a: Node, b: Node) -> None:
        """A trial of a population takes over another one's state."""
        a.save(20)
        a.checkpoints.push()
        a.forget(20)
        a.save(10, "donor's")
        a.checkpoints.replace(a.paths)
        b.checkpoints.pull(b.paths)
        assert b.steps() == [10]


@pytest.mark.parametrize("kind", ["s3", "file", "memory"])
def test_every_kind_of_store_behaves_alike(kind: str, store: str, tmp_path: Path) -> None:
    """S3 by Arrow, a folder, and one that only fsspec knows."""
    objects = Objects({"s3": store, "file": f"file://{tmp_path}/there", "memory": "memory://there/x"}[kind])
    objects.check("runs")
    for path in ("a/one", "a/b/two", "a/b/c/three"):
        objects.write(path, path.encode())
    assert objects.files("a", deep=True).keys() == {"a/one", "a/b/two", "a/b/c/three"}
    assert objects.files("a", deep=False).keys() == {"a/one"}
    assert objects.files("nowhere", deep=True) == {}
    assert objects.folders("a") == ["b"]
    assert objects.read("a/b/two", 4) == b"two"
    assert {path: entry.size for path, entry in objects.entries(["a/one", "a/no"]).items()} == {"a/one": 5}
    (tmp_path / "here").write_bytes(b"x" * 100_000)
    objects.upload(tmp_path / "here", "big/file")
    objects.download("big/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"x" * 100_000
    objects.delete("a/one")
    objects.delete("a/one")
    objects.delete_folder("a/b")
    objects.delete_folder("a/b")
    assert objects.files("a", deep=True) == {}
    with pytest.raises(FileNotFoundError):
        objects.read("a/one")


def test_an_address_that_means_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="storage: nothing://x: "):
        Objects("nothing://x")
