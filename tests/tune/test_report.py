"""The page that a sweep leaves: what it says is what the ledger says, and it opens without a network."""

from __future__ import annotations

import base64
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sweeps import CONDITIONAL
from synthetic import SPACE, by_lr, direct, train

from dlsys.tune import axes, summary
from dlsys.tune.director import Director, Order
from dlsys.tune.importance import importance
from dlsys.tune.report import write_report


def page(director: Director, folder: Path, **told: Any) -> tuple[str, ElementTree.Element]:
    """The page's text as a reader has it, and its elements; it must be well-formed to have any."""
    path = write_report(director, folder, **told)
    root = ElementTree.fromstring(path.read_text(encoding="utf-8").removeprefix("<!DOCTYPE html>\n"))
    return " ".join(" ".join(root.itertext()).split()), root


def titles(root: ElementTree.Element) -> list[str]:
    return ["".join(found.itertext()) for found in root.iter("h2")]


def rows(root: ElementTree.Element, title: str) -> list[list[str]]:
    """The table whose first column has a title: its rows."""
    for table in root.iter("table"):
        if next(table.iter("th")).text == title:
            return [[cell.text or "" for cell in row.iter("td")] for row in table.iter("tr")][1:]
    raise AssertionError(f"no table of {title}")


def test_a_whole_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    director = train(direct(tmp_path / "ledger"), monkeypatch)
    text, root = page(director, tmp_path / "out", run="made-up-1", status="FINISHED")
    best = director.best
    assert best is not None
    assert best.value is not None
    assert f"The best valid/accuracy is {best.value:.4g} , of trial {best.number} after 9 epochs." in text
    assert f"The test set was touched once, by trial {best.number}: test/accuracy 0.875." in text
    assert "made-up-1" in text
    assert f"Trial {best.number} leads 30 measured trials with {best.value:.4g}" in titles(root)
    assert "What mattered most was optimizer.lr" in titles(root)
    top = rows(root, "trial")
    assert [row[0] for row in top] == [str(trial.number) for trial in director.ranked()[:10]]
    assert top[0][:4] == [str(best.number), "done", "9", f"{best.value:.4g}"]
    assert f"{best.settings['optimizer.lr']:.4g}" in top[0]
    reached = [[row[0], row[1]] for row in rows(root, "epoch")]
    assert reached == [[str(rung.epoch), str(rung.trials)] for rung in summary.rungs(director)]
    assert ["1", "30"] in reached


def test_it_stands_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    _, root = page(train(direct(tmp_path / "ledger"), monkeypatch), out)
    assert {path.name for path in out.iterdir()} == {
        "report.html",
        *(f"{name}.png" for name in ("progress", "curves", "settings", "importance")),
    }
    for path in out.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert not list(root.iter("script"))
    images = list(root.iter("img"))
    assert len(images) == 4
    for image in images:
        head, _, body = image.attrib["src"].partition(",")
        assert head == "data:image/svg+xml;base64"
        assert image.attrib["alt"]
        ElementTree.fromstring(base64.b64decode(body))
    assert not re.search(r"(?:src|href)=\"(?!data:)|url\(|@import", (out / "report.html").read_text())


def test_the_smallest_is_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loss(order: Order, epoch: int) -> float:
        return 1e9 if order.trial == 3 else 1 - by_lr(order, epoch)

    director = direct(tmp_path / "ledger", metric="valid/loss", mode="min")
    train(director, monkeypatch, loss)
    text, _ = page(director, tmp_path / "out")
    least = min(report.value for report in director.history if report.epoch == 9)
    assert f"The best valid/loss is {least:.4g}" in text
    assert "1 far worse value is outside of the picture." in text
    steps = summary.steps(director)
    assert [step.best for step in steps] == sorted((step.best for step in steps), reverse=True)
    assert steps[-1].best == least


def test_keys_that_only_some_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    director = direct(tmp_path / "ledger", space=CONDITIONAL)
    train(director, monkeypatch, lambda order, epoch: order.settings["model.dropout"] + epoch / 10)
    _, root = page(director, tmp_path / "out")
    trials = {str(number): trial for number, trial in director.trials.items()}
    for row in rows(root, "trial"):
        optimizer = trials[row[0]].settings["optimizer"]
        momentum = f"{optimizer['momentum']:.4g}" if "momentum" in optimizer else "–"
        assert row[6:9] == [optimizer["name"], f"{optimizer['lr']:.4g}", momentum]


def test_axes_are_shared_by_name_and_scale() -> None:
    found = axes.axes(direct_space(CONDITIONAL))
    assert [axis.name for axis in found.values()][:3] == ["optimizer", "optimizer.lr", "optimizer.momentum"]
    lr = found["optimizer.lr", "log"]
    assert lr.ends == (1e-5, 1.0), "from the lowest end of all options to the highest"
    assert lr.where(1e-5) == 0
    assert lr.where(10**-2.5) == pytest.approx(0.5)
    assert found["optimizer", "choice"].options == ("sgd", "adam", "lamb")
    drawn = dict(
        axes.drawn(direct_space(CONDITIONAL)["optimizer"], {"name": "lamb", "lr": 0.01}, "optimizer")
    )
    assert drawn == {("optimizer", "choice"): "lamb", ("optimizer.lr", "log"): 0.01}


def direct_space(told: dict[str, Any]) -> Any:
    from dlsys.spec.sweep import space

    return space.parse(told)[0]


def test_columns_are_those_of_the_cube() -> None:
    from dlsys.spec.sweep import space

    tree = direct_space(CONDITIONAL)
    owners = axes.columns(tree)
    assert len(owners) == space.width(tree)
    a, b = space.sample(tree, 0, 0), space.sample(tree, 0, 0)
    b["model.depth"] = 1 if a["model.depth"] > 1 else 2
    pairs = zip(owners, space.to_cube(tree, a), space.to_cube(tree, b), strict=True)
    assert {owner for owner, x, y in pairs if x != y} == {("model.depth", "linear")}


def test_what_matters_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = importance(train(direct(tmp_path / "ledger", trials=60), monkeypatch))
    assert (told.epoch, told.trials) == (1, 60), "half of the trials came no further"
    assert next(iter(told.shares)) == ("optimizer.lr", "log")
    assert told.shares["optimizer.lr", "log"] > 0.9
    assert sum(told.shares.values()) == pytest.approx(1)
    assert told.explained > 0.5


def test_chance_is_not_taken_for_importance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chance(order: Order, epoch: int) -> float:
        return (order.trial * 0.618) % 1

    director = train(direct(tmp_path / "ledger", scheduler={"name": "fifo"}), monkeypatch, chance)
    told = importance(director)
    assert told.shares == {} or told.explained < 0.2
    assert bool(told.reason) == (not told.shares)


def test_few_trials_tell_no_importance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, root = page(train(direct(tmp_path / "ledger", trials=9), monkeypatch), tmp_path / "out")
    assert "Which settings mattered cannot be told" in titles(root)
    assert not (tmp_path / "out" / "importance.png").exists()


def test_no_trial(tmp_path: Path) -> None:
    text, root = page(direct(tmp_path / "ledger"), tmp_path / "out")
    assert "No trial was measured, so there is nothing to compare yet." in text
    assert "The test set has not been touched." in text
    assert "No trial was begun." in text
    assert not list(root.iter("img"))


def test_one_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    director = train(direct(tmp_path / "ledger", trials=1), monkeypatch, orders=1)
    text, root = page(director, tmp_path / "out")
    assert "No trial has been trained to its end." in text
    assert "The best trial" in titles(root)
    assert len(list(root.iter("img"))) == 3


def test_all_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    director = direct(tmp_path / "ledger", trials=4)
    train(director, monkeypatch, lambda order, epoch: "KeyError: '<lr> & \x1b[31mred'")
    text, root = page(director, tmp_path / "out", status="FAILED")
    assert "No trial was measured" in text
    assert rows(root, "status") == [["failed", "4"]]
    assert rows(root, "crashes") == [["8", "4", "0, 1, 2, 3", "KeyError: '<lr> & [31mred'"]]
    assert "8 crashes" in titles(root)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers(
    worst: float, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(order: Order, epoch: int) -> float:
        return worst if order.trial % 3 == 0 else by_lr(order, epoch)

    director = train(direct(tmp_path / "ledger", mode=mode), monkeypatch, some)
    text, root = page(director, tmp_path / "out")
    assert len(list(root.iter("img"))) >= 3
    if math.isnan(worst):
        lost = sum(math.isnan(report.value) for report in director.history)
        assert f"{lost} values that are NaN cannot be shown." in text


def test_nothing_but_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    director = train(direct(tmp_path / "ledger", trials=3), monkeypatch, lambda order, epoch: math.nan)
    text, root = page(director, tmp_path / "out")
    assert "all that were measured are NaN" in text
    assert not list(root.iter("img"))


@pytest.mark.parametrize(
    "scheduler", [{"name": "median"}, {"name": "pbt", "mutate": ["optimizer.lr"]}, {"name": "fifo"}]
)
def test_every_scheduler(scheduler: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    director = train(direct(tmp_path / "ledger", scheduler=scheduler, trials=12), monkeypatch)
    _, root = page(director, tmp_path / "out")
    assert len(list(root.iter("img"))) >= 3
    assert sum(int(row[1]) for row in rows(root, "status")) == 12


def test_an_extended_sweep_tells_that_it_was_tested_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    director = train(direct(tmp_path / "ledger", trials=9), monkeypatch)
    director.extend(15)
    text, _ = page(train(director, monkeypatch), tmp_path / "out")
    first, second = director.testers
    told = f"touched 2 times, for the sweep was extended: first by trial {first}, then by {second}"
    assert told in text


def test_pauses_are_no_training_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that is taken up a year later has not trained for a year."""
    path = tmp_path / "ledger"
    train(direct(path, trials=6), monkeypatch)
    text = path.read_text().splitlines(keepends=True)
    late = [re.sub(r'"time":1', '"time":2', line) for line in text[len(text) // 2 :]]
    path.write_text("".join([*text[: len(text) // 2], *late]))
    director = direct(path, trials=6)
    steps = summary.steps(director)
    assert max(report.time for report in director.history) - min(r.time for r in director.history) > 9e8
    total = sum(report.seconds for report in director.history)
    assert total / 2 <= steps[-1].seconds <= total, "two workers"
    assert steps[-1].epochs == director.epochs == total


def test_a_rebuilt_sweep_gives_the_same_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_report(train(direct(tmp_path / "ledger"), monkeypatch), tmp_path / "a")
    again = write_report(direct(tmp_path / "ledger"), tmp_path / "b")
    assert again.read_text() == written.read_text()


def test_a_thousand_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    director = train(
        direct(tmp_path / "ledger", trials=1000, space={**SPACE, **CONDITIONAL_REST}), monkeypatch
    )
    text, _ = page(director, tmp_path / "out")
    assert "1,000 of 1,000" in text
    size = (tmp_path / "out" / "report.html").stat().st_size
    assert size < 8e6, "thousands of curves are drawn as pixels"


CONDITIONAL_REST = {
    key: value for key, value in CONDITIONAL.items() if key not in ("optimizer", "model.width")
}
