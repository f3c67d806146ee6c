"""Which files of a working folder are packed, besides what is ignored: secrets, links, odd names."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from folders import Packing, fill, ignore, repository

from dlsys.errors import UsageError


class TestNever:
    def test_machinery_and_environments_stay(
        self, work: Path, packing: Packing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DLSYS_HOME", str(work / "keep" / "runs"))
        fill(work, "a.py", "keep/a", "keep/runs/x", ".dlsys/x", "lib/__pycache__/a.pyc", ".venv/bin/x")
        fill(work, "env/pyvenv.cfg", "env/bin/python", "other/.git/config")
        (work / "linked").symlink_to(work / "env")
        away = work.parent / "away"
        fill(away, "pyvenv.cfg")
        (work / "elsewhere").symlink_to(away)
        (work / "lib" / ".venv").symlink_to("/usr")
        ignore(work, "!*\n", ".dlsysignore")
        assert packing.names(work) == {".dlsysignore", "a.py", "keep/a"}
        assert packing.notes == []

    def test_what_is_no_file_stays(self, work: Path, packing: Packing) -> None:
        fill(work, "a.py")
        os.mkfifo(work / "pipe")
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(work, os.O_RDONLY)
            server.bind(f"/proc/self/fd/{here}/socket")
            os.close(here)
            assert packing.names(work) == {"a.py"}


SECRETS = [
    *(
        ".env",
        "conf/.env",
        ".env.production",
        "server.pem",
        "id_rsa",
        "ssh/id_ed25519.pub",
        ".aws/credentials",
    ),
    *(
        "home/.aws/credentials",
        ".netrc",
        "tls.key",
        "credentials.json",
        "hf_token",
        "token",
        "Token.txt",
        ".ENV",
    ),
]
OPEN = [
    ".env.example",
    "tokenizer.json",
    "tokens.txt",
    "credentials",
    "key.py",
    "my_id_rsa.md",
    "deep/token/a",
    ".envrc",
]


class TestSecrets:
    @pytest.mark.parametrize("in_git", [False, True])
    def test_they_stay_unless_one_asks(self, in_git: bool, work: Path, packing: Packing) -> None:
        fill(work, *SECRETS, *OPEN)
        if in_git:
            repository(work)
        assert packing.names(work) == set(OPEN)
        (note,) = packing.notes
        assert "conf/.env" in note
        assert "!.ENV into .dlsysignore" in note
        assert "7 more" in note

    @pytest.mark.parametrize("line", ["!.env", "!/conf/.env", "!conf/*"])
    @pytest.mark.parametrize("ignored", ["", ".env\n", "conf/\n"])
    @pytest.mark.parametrize("in_git", [False, True])
    def test_one_is_packed_on_purpose(
        self, line: str, ignored: str, in_git: bool, work: Path, packing: Packing
    ) -> None:
        fill(work, "a.py", "conf/.env", "tls.key")
        ignore(work, ignored)
        ignore(work, line, ".dlsysignore")
        if in_git:
            repository(work)
        assert packing.names(work) == {"a.py", "conf/.env", ".gitignore", ".dlsysignore"}
        assert "tls.key" in packing.notes[0]
        assert ".env" not in packing.notes[0].partition(";")[0]

    def test_a_folder_that_is_brought_back_brings_no_secrets(self, work: Path, packing: Packing) -> None:
        fill(work, "conf/.env", "conf/a")
        ignore(work, "!conf/\n", ".dlsysignore")
        assert packing.names(work) == {".dlsysignore", "conf/a"}


class TestLinks:
    @pytest.mark.parametrize("in_git", [False, True])
    def test_what_they_point_at_is_packed(self, in_git: bool, work: Path, packing: Packing) -> None:
        fill(work, "data/v2/x.csv", "data/v2/deep/y.csv", "run.sh", "data/v2/z.tmp")
        ignore(work, "*.tmp\n")
        (work / "data" / "latest").symlink_to("v2")
        (work / "data" / "v2" / "script").symlink_to(work / "run.sh")
        (work / "twice").symlink_to("data/latest")
        if in_git:
            repository(work)
        real = {"x.csv", "deep/y.csv", "script"}
        expected = {f"{place}/{name}" for place in ("data/v2", "data/latest", "twice") for name in real}
        assert packing.names(work) == {".gitignore", "run.sh"} | expected
        assert packing.content("twice/script") == b"run.sh"
        assert packing.content("twice/deep/y.csv") == b"data/v2/deep/y.csv"

    def test_those_that_lead_outside_are_refused_together(
        self, work: Path, packing: Packing, tmp_path: Path
    ) -> None:
        fill(tmp_path, "secret.txt", "work-too/x")
        fill(work, "a")
        (work / "absolute").symlink_to(tmp_path / "secret.txt")
        fill(work, "sub/")
        (work / "sub" / "relative").symlink_to("../../secret.txt")
        (work / "folder").symlink_to("../work-too")
        (work / "nowhere").symlink_to("/nonexistent/x")
        (work / "chain").symlink_to("absolute")
        with pytest.raises(UsageError) as refused:
            packing(work)
        lines = str(refused.value).splitlines()
        names = ["absolute", "chain", "folder", "nowhere", "sub/relative"]
        assert [line.partition(":")[0] for line in lines] == names
        assert all("outside" in line and ".dlsysignore" in line for line in lines)
        assert not packing.target.exists()
        ignore(work, "\n".join(names), ".dlsysignore")
        assert packing.names(work) == {"a", ".dlsysignore"}

    @pytest.mark.parametrize(
        "links", [{"loop": "."}, {"a/up": ".."}, {"a/b": "../c", "c/d": "../a"}, {"a/self": "../a"}]
    )
    def test_circles_are_refused(self, links: dict[str, str], work: Path, packing: Packing) -> None:
        fill(work, "a/x", "c/x")
        for name, target in links.items():
            (work / name).symlink_to(target)
        with pytest.raises(UsageError, match="without end"):
            packing(work)

    def test_those_that_point_at_nothing_packed_are_named(self, work: Path, packing: Packing) -> None:
        fill(work, "a", "build/x", ".env")
        ignore(work, "build/\n")
        (work / "gone").symlink_to("nothing")
        (work / "one").symlink_to("other")
        (work / "other").symlink_to("one")
        (work / "out").symlink_to("build")
        (work / "settings").symlink_to(".env")
        assert packing.names(work) == {"a", ".gitignore"}
        assert packing.notes[1].endswith(": gone, one, other, out, settings")

    def test_a_link_to_the_folder_is_the_folder(self, work: Path, packing: Packing, tmp_path: Path) -> None:
        fill(work, "a")
        (work / "b").symlink_to(work / "a")
        (tmp_path / "link").symlink_to(work)
        assert packing.names(tmp_path / "link") == {"a", "b"}


class TestNames:
    def test_odd_ones_travel(self, work: Path, packing: Packing) -> None:
        names = {
            "ü/日本.txt",
            "a\nb",
            " ",
            "-rf",
            "*.py",
            "[x]",
            "'\"",
            "a" * 255,
            "\u00e9",
            "e\u0301",
            "ab:c",
            "~",
            "#a",
        }
        fill(work, *names)
        assert packing.names(work) == names
        repository(work)
        assert packing.names(work) == names

    @pytest.mark.parametrize("name", [b"a\\b", b"c:d", b"\xff.txt", b"sub/a\\b"])
    def test_those_that_ray_would_skip_are_refused(self, name: bytes, work: Path, packing: Packing) -> None:
        (work / "sub").mkdir()
        with open(os.fsencode(work) + b"/" + name, "wb"):
            pass
        with pytest.raises(UsageError, match="rename it") as refused:
            packing(work)
        assert str(refused.value).isprintable()
