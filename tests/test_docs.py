"""The documents say what is true: links lead somewhere, examples run, the reference is fresh."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from runner import Folder

from dlsys.cli import files
from dlsys.jobs.run import Ended
from dlsys.spec.reference import reference

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/*.md")),
]
README = (ROOT / "README.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Headings as GitHub links to them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target.read_text()), f"{link}: no such heading"


def test_the_reference_is_fresh() -> None:
    fresh = (ROOT / "docs" / "spec.md").read_text() == reference()
    assert fresh, "make it anew: python -m dlsys.spec.reference > docs/spec.md"


def test_the_quickstart_is_explained_as_it_is() -> None:
    ready = yaml.safe_load((ROOT / "jobs" / "quickstart.yaml").read_text())
    assert ready in [yaml.safe_load(block) for block in blocks(README, "yaml")]


def test_every_command_that_is_named_exists() -> None:
    from dlsys.cli.main import app

    known = {command.name for command in app.registered_commands}
    known |= {command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups}
    named = {
        verb
        for document in DOCUMENTS
        for block in blocks(document.read_text(), "sh")
        for verb in re.findall(r"(?:^|\s)dlsys ([a-z]+)", block)
    }
    assert named >= {"run", "check", "show", "runs", "ui"}
    assert named <= known


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = re.findall(r"(?:^|`)make ([a-z]+)", document.read_text(), re.MULTILINE)
        assert set(named) <= targets


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the README's `my_model.py`."""
    (module,) = [block for block in blocks(README, "python") if "class Perceptron" in block]
    (tmp_path / "my_model.py").write_text(module)
    (rows,) = [block for block in blocks(README, "python") if "def moons" in block]
    (tmp_path / "my_data.py").write_text(rows)
    texts = [f"{('fine', 'poor')[i % 2]} film {i % 7},{('up', 'down')[i % 2]}" for i in range(200)]
    (tmp_path / "reviews.csv").write_text("\n".join(["review,mood", *texts]))
    (hooks,) = blocks((ROOT / "docs" / "training.md").read_text(), "python")
    (tmp_path / "my_hooks.py").write_text(hooks)
    visits = [f"p{i // 3},{i * 7 % 50},{i % 2}" for i in range(60)]
    (tmp_path / "visits.csv").write_text("\n".join(["patient,age,ill", *visits]))
    for number in range(60):
        place = tmp_path / "pictures" / ("cat", "dog")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (70, 70), ("red", "blue")[number % 2]).save(place / f"{number}.png")
        clip = tmp_path / "videos" / ("run", "walk")[number % 2] / str(number)
        clip.mkdir(parents=True)
        for frame in range(20):
            Image.new("L", (8, 8), frame).save(clip / f"{frame}.png")
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{part}.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for module in ("my_model", "my_data", "my_hooks"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_job_files_in_documents_are_sound(document: Path, folder: Path) -> None:
    for block in blocks(document.read_text(), "yaml"):
        if block.startswith("kind: script"):
            (folder / "train.py").write_text("")
        if block.startswith(("kind: train", "kind: script")):
            (folder / "job.yaml").write_text(block)
            files.check("job.yaml")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("marks", "workers", "metric"),
    [("init_process_group", 2, "loss"), ("autolog", 1, "training_accuracy_score")],
)
def test_scripts_run(marks: str, workers: int, metric: str, folder: Path) -> None:
    from dlsys.jobs import run
    from dlsys.spec.script.load import of_command

    examples = blocks((ROOT / "docs" / "scripts.md").read_text(), "python")
    (text,) = [block for block in examples if marks in block and block.startswith("import")]
    # Python's end under gloo's threads aborts about once in a hundred times: they get time to end.
    (folder / "train.py").write_text(f"{text}\nimport time\ntime.sleep(0.5)\n")
    loaded = of_command(["python", "train.py"], None, [f"resources.workers={workers}"], folder)
    ended: Ended = run.execute(run.prepare(loaded), loaded.job, address=None)
    assert ended.error is None
    assert metric in ended.metrics


EXAMPLES = ["perceptron", "linear", "moods", "pictures", "moons"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_train(name: str, folder: Path) -> None:
    (text,) = [block for block in blocks(README, "yaml") if f"name: {name}\n" in block]
    user = Folder(folder)
    (folder / "job.yaml").write_text(text)
    done = user.dlsys("run", "job.yaml", "--json", "stop.epochs=2", "expect={}")
    assert done.code == 0, done.err
    metrics = json.loads(done.out)["metrics"]
    assert {"train/loss", "valid/accuracy", "test/accuracy"} <= metrics.keys()
    if name in ("perceptron", "linear"):
        assert metrics["valid/accuracy"] > 0.7  # the larger class alone is 0.63


def test_every_example_is_trained() -> None:
    jobs = [yaml.safe_load(block) for block in blocks(README, "yaml") if block.startswith("kind: train")]
    assert {job["name"] for job in jobs} == {*EXAMPLES, "quickstart"}
