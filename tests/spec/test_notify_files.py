"""`notify`: addresses that are secrets are refused, and none is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from dlsys.spec.load import LoadedSweep, load_any
from dlsys.spec.notify import Notify

TOKEN = "a1B2c3D4e5F6g7H8i9J0"


@pytest.mark.parametrize(
    "url",
    [
        f"https://hooks.slack.com/services/T01/B01/{TOKEN}",
        f"https://discord.com/api/webhooks/12345/{TOKEN}",
        "https://example.com/hook?key=abc",
        "https://me:abc@example.com/hook",
    ],
)
def test_a_secret_address_is_refused(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Notify(url=url)
    (error,) = refused.value.errors()
    assert "looks like a secret" in error["msg"]
    assert "abc" not in error["msg"]
    assert TOKEN not in error["msg"]


@pytest.mark.parametrize("url", ["https://ntfy.sh/my-training-runs", "http://127.0.0.1:8000/done"])
def test_a_plain_one_is_not(url: str) -> None:
    assert Notify(url=url).url == url


@pytest.mark.parametrize(
    "url", ["ftp://example.com", "example.com/hook", "http://", "http://[", "file:///etc"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValidationError, match="must be an address"):
        Notify(url=url)


@pytest.mark.parametrize("given", [{}, {"url": "http://x", "url_from": "X"}, {"url": "", "command": ()}])
def test_one_of_three(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="must say one of url, url_from and command"):
        Notify(**given)  # type: ignore[arg-type]


def test_a_sweep_tells_whom_its_job_tells(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        "kind: train\nname: j\nworkload: softmax-regression\ndata: {source: digits}\nbatch_size: 48\n"
        "optimizer: {name: sgd}\n"
        "stop: {epochs: 1}\nnotify: {url_from: OF_THE_JOB}\n"
    )
    sweep = (
        "kind: sweep\nname: s\njob: job.yaml\nmetric: valid/loss\nspace: {optimizer.lr: {choice: [0.1]}}\n"
        "trials: 1\n"
    )
    for more, told in (("", "OF_THE_JOB"), ("notify: {url_from: OF_THE_SWEEP}\n", "OF_THE_SWEEP")):
        (tmp_path / "sweep.yaml").write_text(sweep + more)
        loaded = load_any(tmp_path / "sweep.yaml")
        assert isinstance(loaded, LoadedSweep)
        assert loaded.sweep.notify == Notify(url_from=told)
