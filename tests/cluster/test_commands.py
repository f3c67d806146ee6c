"""Programs of other systems: what becomes of their words, their ports and their ends."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import psutil
import pytest

from dlsys.cluster.commands import answers, find, follow, free_port, run, tunnel
from dlsys.errors import RunError, UsageError

LISTEN = (
    "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"
)


def python(text: str, *arguments: object) -> list[str]:
    return [sys.executable, "-IS", "-c", text, *map(str, arguments)]


def test_a_program_beside_this_python_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("beside", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thing").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert find("thing", "") == str(tmp_path / "elsewhere" / "thing")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "beside" / "python"))
    assert find("thing", "") == str(tmp_path / "beside" / "thing")


def test_a_missing_program_is_named() -> None:
    with pytest.raises(UsageError, match="no-such-thing is not on this machine's PATH") as caught:
        find("no-such-thing", "Install it.")
    assert caught.value.hint == "Install it."


def test_run_gives_standard_output_alone() -> None:
    text = "import sys; print(sys.stdin.read()); print('noise', file=sys.stderr)"
    assert run(python(text), stdin="a\nb") == "a\nb\n"


def test_a_failure_is_told_in_the_programs_own_words() -> None:
    with pytest.raises(RunError, match="no such pod") as caught:
        run(python("raise SystemExit('no such pod')"), hints={"no such": "Make one."})
    assert caught.value.hint == "Make one."


def test_of_a_traceback_only_what_was_raised_is_told() -> None:
    with pytest.raises(RunError) as caught:
        run(python("1 / 0"))
    assert str(caught.value).endswith(": ZeroDivisionError: division by zero")


def test_a_failure_without_words() -> None:
    with pytest.raises(RunError, match="ended with exit code 3"):
        run(python("raise SystemExit(3)"))


def test_a_program_that_does_not_answer() -> None:
    with pytest.raises(RunError, match=r"no answer in 0 s"):
        run(python("import time; time.sleep(600)"), timeout=0.1)


def test_what_a_long_command_started_ends_with_it_when_it_is_interrupted(tmp_path: Path) -> None:
    text = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '600']);"
        "print(f'[1/2] started {child.pid}', flush=True); child.wait()"
    )
    children: list[psutil.Process] = []

    def say(line: str) -> None:
        children.append(psutil.Process(int(line.split()[-1])))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(python(text), tmp_path / "log", say)
    psutil.wait_procs(children, timeout=60)
    assert [child for child in children if child.is_running()] == []


def test_a_tunnel_is_open_within_its_context_alone() -> None:
    with tunnel(lambda port: python(LISTEN, port)) as port:
        socket.create_connection(("127.0.0.1", port), 10).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 10)


def test_a_tunnel_through_a_program_that_starts_another() -> None:
    wrapper = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    with tunnel(lambda port: python(wrapper, *python(LISTEN, port))) as port:
        socket.create_connection(("127.0.0.1", port), 10).close()


def test_a_port_that_another_process_was_quicker_to_take_is_not_ours() -> None:
    """Else the token would go to it."""
    thief = socket.socket()

    def command(port: int) -> list[str]:
        if thief.getsockname()[1] == 0:
            thief.bind(("127.0.0.1", port))
            thief.listen()
        return python("import time; time.sleep(600)")

    with thief, pytest.raises(RunError, match="it does not listen"), tunnel(command, patience=1):
        pass


def test_a_tunnel_that_ends_says_why() -> None:
    with (
        pytest.raises(RunError, match="no route"),
        tunnel(lambda port: python("raise SystemExit('no route')")),
    ):
        pass


def test_nothing_answers_where_nothing_listens() -> None:
    assert not answers(f"http://127.0.0.1:{free_port()}")
