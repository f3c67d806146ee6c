"""Canaries in every place where a secret can be: nothing that dlsys, MLflow or Ray keeps has them."""

from __future__ import annotations

import hashlib
import io
import os
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_fixture import Cluster, local_cluster
from runner import JOB, MODULE, Folder

from dlsys.errors import UsageError
from dlsys.jobs import secrets
from dlsys.jobs.submission import Options, common, refuse_secrets
from dlsys.paths import read_json
from dlsys.track.mask import is_secret, mask_settings

CANARY = "c4n4ry-5ecret"
SECRETS = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD")
# What each worker and the driver have of the secret, in a form that is none.
TOLD = """
import hashlib


def digest():
    return hashlib.sha256(os.environ.get("HF_TOKEN", "").encode()).hexdigest()


class Telling(Mine):
    def build(self):
        with open(os.path.join(os.environ["TELL"], f"rank-{rank()}"), "w") as file:
            file.write(digest())
        return super().build()
"""


def telling(*folders: Path | str) -> dict[str, str]:
    """The files below these folders that have a canary, also in zip files, and what is around it."""
    found = {}
    for folder in folders:
        for path in Path(folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                if zipfile.is_zipfile(io.BytesIO(data)):
                    with zipfile.ZipFile(io.BytesIO(data)) as archive:
                        data = b"".join(map(archive.read, archive.namelist()))
                if (place := data.find(CANARY.encode())) >= 0:
                    found[str(path)] = data[max(0, place - 80) : place + 40].decode(errors="replace")
    return found


def test_names_of_secrets_and_of_other_things() -> None:
    for name in (*SECRETS, "WANDB_API_KEY", "db_password", "model.api_key", "AWS_ACCESS_KEY"):
        assert is_secret(name), name
    for name in ("TOKENIZERS_PARALLELISM", "model.tokenizer", "data.max_tokens", "PATH", "AWS_ACCESS_KEY_ID"):
        assert not is_secret(name), name


def test_a_job_files_settings_are_masked_by_name() -> None:
    text = f"model:\n  api_key: {CANARY}\n  width: 3\nx: {{hub_token: {CANARY}, seed: 1}}\n"
    assert mask_settings(text) == "model:\n  api_key: ***\n  width: 3\nx: {hub_token: ***, seed: 1}\n"
    command = f"python train.py --api-key {CANARY} --hub_token={CANARY} --max-tokens 5 --use-token --lr 0.1"
    masked = "python train.py --api-key *** --hub_token=*** --max-tokens 5 --use-token --lr 0.1"
    assert mask_settings(command) == masked
    for words in (f"- --auth-token\n- {CANARY}\n- x\n", f"[--auth-token, '{CANARY}', x]"):
        assert mask_settings(words) == words.replace(CANARY, "***")
    assert mask_settings("dlsys submit --secret NAME") == "dlsys submit --secret NAME"
    assert mask_settings(f"dlsys run x.yaml model.api_key={CANARY}") == "dlsys run x.yaml model.api_key=***"


@pytest.mark.parametrize("text", [f"HF_TOKEN={CANARY}", f"DATA=https://me:{CANARY}@example.org/x"])
def test_env_takes_no_secrets(text: str) -> None:
    with pytest.raises(UsageError, match="looks like a secret") as caught:
        common(Options(env=(text,)))
    assert CANARY not in str(caught.value)
    assert "--secret " in caught.value.hint


@pytest.mark.parametrize("word", [f"--password={CANARY}", f"HF_TOKEN={CANARY}", f"s3://me:{CANARY}@host/x"])
def test_a_commands_words_are_no_place_for_secrets(word: str) -> None:
    with pytest.raises(UsageError, match="looks like a secret") as caught:
        refuse_secrets(["python", "train.py", word])
    assert CANARY not in str(caught.value)


def test_a_command_may_talk_of_tokens() -> None:
    refuse_secrets(["python", "-c", "token = next(tokens)", "--max_tokens=5", "--tokenizer=gpt2"])


def test_a_secret_is_taken_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    value = "a b'c\"$HOME\\\nd"
    monkeypatch.setenv("HF_TOKEN", value)
    made = common(Options(secrets=("HF_TOKEN",)))
    assert made["secrets"] == {"HF_TOKEN": value}
    secrets.keep(tmp_path / "secrets", made["secrets"])
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("HF_TOKEN", "another")
    secrets.enter(tmp_path / "secrets")
    assert os.environ["HF_TOKEN"] == value
    read = os.popen(f'{secrets.entered(tmp_path / "secrets")} printf %s "$HF_TOKEN"').read()
    assert read == value
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UsageError, match="HF_TOKEN: is not set here"):
        secrets.of_environment(["HF_TOKEN"])


def test_a_run_here_keeps_no_secret_but_the_address_that_its_file_gives(folder: Folder) -> None:
    (folder.path / "job.yaml").write_text(f"{JOB.strip()[:-1]}, uri: 'http://me:{CANARY}@127.0.0.1:9'}}\n")
    environment = {name: f"{CANARY}-{name}" for name in SECRETS}
    done = folder.dlsys("run", "job.yaml", "stop={steps: 3}", **environment)
    assert done.code == 0, done.err
    assert CANARY not in done.out + done.err
    # docs/tracking.md: who may read a run's folder may read the address of its store.
    kept = {folder.run.source, folder.run.spec, folder.run.record}
    assert telling(folder.path / ".dlsys").keys() == {str(path) for path in kept}
    assert folder.run.root.stat().st_mode & 0o777 == 0o700


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        for name in SECRETS[:1] + SECRETS[2:]:
            patch.setenv(name, f"{CANARY}-{name}")
        folder = tmp_path_factory.mktemp("cluster")
        with local_cluster(folder) as made:
            (folder / ".env").write_text(f"PASSWORD={CANARY}\n")
            (folder / "mine.py").write_text(MODULE + TOLD)
            (folder / "job.yaml").write_text(JOB.replace("mine:Mine", "mine:Telling"))
            yield made


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_on_a_cluster_has_its_secret_and_nothing_keeps_it(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = f"{CANARY}-'HF'"
    monkeypatch.setenv("HF_TOKEN", value)
    tell = cluster.folder / "told"
    tell.mkdir()
    overrides = ("resources.workers=2", "strategy.name=ddp", "stop={steps: 3}", "resources.cpus=1")
    options = ("--secret", "HF_TOKEN", "--env", f"TELL={tell}", "-d")
    train = cluster.dlsys("submit", *options, "job.yaml", *overrides).stdout.strip()
    script = 'while [ ! -e "$TELL/go" ]; do sleep 0.1; done; printf %s "$HF_TOKEN" > "$TELL/command"'
    command = cluster.dlsys("submit", *options, "--", "sh", "-c", script).stdout.strip()
    cluster.wait_for(train, ["SUCCEEDED"], 120)
    cluster.wait_for(command, ["RUNNING"], 60)
    state = cluster.paths.read_state()
    assert telling(cluster.folder, state["temp"]).keys() == {
        str(cluster.folder / ".env"),
        str(cluster.run(command).secrets),
    }, "while a job has not ended, one file has its secret"
    assert cluster.run(command).secrets.stat().st_mode & 0o777 == 0o600
    asked = urllib.request.Request(
        f"{state['dashboard']}/api/jobs/", headers={"Authorization": f"Bearer {cluster.paths.read_token()}"}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        known = answer.read().decode()
    assert command in known
    assert CANARY not in known
    (tell / "go").touch()
    cluster.wait_for(command, ["SUCCEEDED"], 60)
    assert (tell / "command").read_text() == value
    (tell / "command").unlink()
    digest = hashlib.sha256(value.encode()).hexdigest()
    assert [(tell / f"rank-{rank}").read_text() for rank in (0, 1)] == [digest] * 2
    assert telling(cluster.folder, state["temp"]).keys() == {str(cluster.folder / ".env")}
    assert read_json(cluster.run(train).submission)["secrets"] == ["HF_TOKEN"]
    again = cluster.dlsys("jobs", "retry", command, check=False)
    assert again.returncode == 2
    assert "submit it again with --secret" in again.stderr
