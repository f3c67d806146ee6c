"""A working folder as a package: what is in it, what is not, and that Ray unpacks the same."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from folders import Packing, fill, ignore, repository

from dlsys.errors import UsageError


def tree(work: Path) -> dict[str, tuple[bytes, bool] | None]:
    """Files with their content and whether they may be run; empty folders as None."""
    found: dict[str, tuple[bytes, bool] | None] = {}
    for path in work.rglob("*"):
        if path.is_file():
            mode = path.stat().st_mode
            found[str(path.relative_to(work))] = (path.read_bytes(), bool(mode & stat.S_IXUSR))
        elif not any(path.iterdir()):
            found[str(path.relative_to(work))] = None
    return found


class TestZip:
    def test_the_same_content_gives_the_same_bytes(self, tmp_path: Path, packing: Packing) -> None:
        first, second = tmp_path / "one", tmp_path / "other"
        paths = ["train.py", "lib/a.py", "lib/b/c.txt", "z", "A"]
        fill(first, *paths)
        fill(second, *reversed(paths))
        os.utime(second / "z", (1, 1))
        (second / "z").chmod(0o600)
        (first / "lib").chmod(0o700)
        digest = packing(first).digest
        before = packing.target.read_bytes()
        package = packing(second)
        assert package.digest == digest
        assert packing.target.read_bytes() == before
        assert package.bytes == len(before)
        assert package.unpacked == sum(len(path) for path in paths)
        assert {entry.date_time[0] for entry in zipfile.ZipFile(package.path).infolist()} == {1980}
        (second / "z").chmod(0o700)
        assert packing(second).digest != digest

    def test_in_a_repository_or_not_the_package_is_the_same(self, work: Path, packing: Packing) -> None:
        ignore(work, "*.log\n")
        fill(work, "a.py", "b/c.py", "x.log")
        alone = packing(work).digest
        repository(work)
        assert packing(work).digest == alone

    def test_it_is_whole_and_its_owners(self, work: Path, packing: Packing, tmp_path: Path) -> None:
        fill(work, "train.py")
        packing.target.write_text("an older one")
        packing.target.chmod(0o644)
        packing(work)
        assert stat.S_IMODE(packing.target.stat().st_mode) == 0o600
        assert zipfile.ZipFile(packing.target).testzip() is None
        assert {path.name for path in tmp_path.iterdir()} == {"work", "package.zip"}

    def test_an_empty_folder(self, work: Path, packing: Packing) -> None:
        assert packing.names(work) == set()
        assert packing(work).unpacked == 0

    def test_a_package_beside_the_files_is_not_packed_itself(self, work: Path) -> None:
        fill(work, "train.py", "out/other.zip")
        packing = Packing(work / "out")
        assert packing.names(work) == {"train.py", "out/other.zip"}
        assert packing.names(work) == {"train.py", "out/other.zip"}

    @pytest.mark.parametrize(
        "paths", [["a/x", "a/b/y"], ["a/x", "top"], [], ["a/", "b/c/"], ["__MACOSX/x", "a/x"]]
    )
    @pytest.mark.parametrize("from_storage", [False, True])
    def test_ray_unpacks_the_same_tree(
        self, paths: list[str], from_storage: bool, work: Path, packing: Packing, tmp_path: Path
    ) -> None:
        from ray._private.runtime_env.packaging import unzip_package

        fill(work, *paths, "a/ümlaut 日本\n.txt", "a/run.sh", "a/--help", "a/ ")
        (work / "a" / "run.sh").chmod(0o755)
        packing(work)
        out = tmp_path / "out"
        unzip_package(str(packing.target), str(out), from_storage, unlink_zip=False)
        assert tree(out) == tree(work)

    def test_imports_are_light(self) -> None:
        look = "import sys, dlsys.jobs.package; print({'ray', 'torch', 'pydantic'} & sys.modules.keys())"
        done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
        assert done.stdout == "set()\n"


class TestSize:
    def test_too_large_a_folder_is_refused_with_what_is_big(self, work: Path, packing: Packing) -> None:
        fill(work, "src/a.py", "src/lib/b.py")
        packing(work)
        before = packing.target.read_bytes()
        for name, size in {
            "data/raw/x.bin": 3_000_000,
            "data/raw/y.bin": 1_000_000,
            "model.bin": 500_000,
        }.items():
            fill(work, name)
            (work / name).write_bytes(os.urandom(size))
        with pytest.raises(UsageError) as refused:
            packing(work, limit_mb=1)
        lines = str(refused.value).splitlines()
        assert "more than 1 MB" in lines[0]
        assert "max_package" in lines[0]
        assert "4.5 MB unpacked" in lines[0]
        assert [line.split()[-1] for line in lines[1:]] == [
            *("data/raw/", "data/raw/x.bin", "data/raw/y.bin", "model.bin", "src/")
        ]
        assert lines[1].split()[:2] == ["4.0", "MB"]
        assert ".dlsysignore" in refused.value.hint
        assert packing.target.read_bytes() == before
        assert len(list(packing.target.parent.iterdir())) == 2
        assert packing(work, limit_mb=5).bytes <= 5_000_000

    def test_the_list_of_files_counts_too(self, work: Path, packing: Packing) -> None:
        fill(work, *(f"{number:0200}" for number in range(2500)))
        for path in work.iterdir():
            path.write_text("")
        with pytest.raises(UsageError, match="more than 1 MB"):
            packing(work, limit_mb=1)

    def test_what_packs_well_is_taken(self, work: Path, packing: Packing) -> None:
        (work / "zeros").write_bytes(bytes(5_000_000))
        package = packing(work, limit_mb=1)
        assert package.bytes < 10_000
        assert package.unpacked == 5_000_000

    def test_a_hopeless_one_is_not_even_read(self, work: Path, packing: Packing) -> None:
        for number in range(20):  # 20 TB that are not there: to read them takes hours
            with open(work / f"{number}.bin", "wb") as file:
                file.truncate(10**12)
        with pytest.raises(UsageError, match=r"20\.0 TB"):
            packing(work)


class TestTroubles:
    def test_files_that_change_while_they_are_packed(
        self, work: Path, packing: Packing, tmp_path: Path
    ) -> None:
        fill(work, "a", "gone", "sub/gone", "shorter", "longer", "pipe", "link", ".env")
        fill(tmp_path, "outside")
        notes = []

        def change(note: str) -> None:
            """Selected, and not yet packed: the note about .env comes in between."""
            notes.append(note)
            if "secrets" in note:
                (work / "gone").unlink()
                shutil.rmtree(work / "sub")
                (work / "shorter").write_text("")
                (work / "longer").write_text("longer than before")
                (work / "pipe").unlink()
                os.mkfifo(work / "pipe")
                (work / "link").unlink()
                (work / "link").symlink_to(tmp_path / "outside")

        package = packing(work, note=change)
        assert notes[1].endswith(": gone, link, pipe, sub/gone")
        assert package.files == 3
        assert packing.content("longer") == b"longer than before"
        assert zipfile.ZipFile(packing.target).testzip() is None

    def test_a_file_that_never_ends_is_packed_as_it_was(self, work: Path, packing: Packing) -> None:
        log = work / "log"
        log.write_bytes(bytes(3 << 20))
        with open(log, "ab") as writing:
            grow = f"import os\nwhile True: os.write({writing.fileno()}, bytes(1 << 16))"
            process = subprocess.Popen([sys.executable, "-c", grow], pass_fds=[writing.fileno()])
        try:
            package = packing(work)
        finally:
            process.kill()
            process.wait()
        assert package.files == 1
        assert package.unpacked >= 3 << 20

    def test_all_that_cannot_be_read_is_named(self) -> None:
        with as_a_stranger(), tempfile.TemporaryDirectory() as name:
            place = Path(name)
            work = place / "work"
            fill(work, "a", "closed/b", "secret", "ignored")
            ignore(work, "ignored\n", ".dlsysignore")
            for path in ("closed", "secret", "ignored"):
                (work / path).chmod(0)
            try:
                with pytest.raises(UsageError) as refused:
                    Packing(place)(work)
            finally:
                (work / "closed").chmod(0o700)
        lines = str(refused.value).splitlines()
        assert [line.partition(":")[0] for line in lines] == ["closed/", "secret"]
        assert all("Permission denied" in line and ".dlsysignore" in line for line in lines)

    def test_a_place_that_cannot_be_written(self, work: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"nowhere/package\.zip: the package cannot be written"):
            Packing(tmp_path / "nowhere")(work)

    def test_no_folder(self, packing: Packing, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is no folder"):
            packing(tmp_path / "nothing")


@contextmanager
def as_a_stranger() -> Iterator[None]:
    """Root may read everything; someone else may not."""
    if os.geteuid():
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)
