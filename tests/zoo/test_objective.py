"""What a job may say of a plain model's inputs, loss and metrics: the same for any number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import QUICK, job, train
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.errors import SpecError, UsageError
from dlsys.spec.rows import Shape
from dlsys.spec.train import objective as spec
from dlsys.zoo.load import load_workload
from dlsys.zoo.measures import Measures, torchmetrics
from dlsys.zoo.objective import loss_function

CLASSES = Shape(row={"features": (4,), "label": ()}, classes=3)
TARGETS = Shape(row={"features": (4,), "target": ()})
LOGITS, LABELS = torch.randn(20, 3, generator=torch.manual_seed(0)), torch.arange(20) % 3
VALUES, WANTED = torch.linspace(-2, 2, 20), torch.linspace(-1, 3, 20).flip(0)
BALANCED = torch.tensor([4, 4, 2.0]) / 3
COUNTS = {"target": {"counts": [1, 1, 2]}}


def plain(outputs: Tensor, label: Tensor, scale: float = 1.0) -> Tensor:
    return F.cross_entropy(outputs, label, reduction="none") * scale


def no_tensor(outputs: Tensor, label: Tensor) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (spec.CrossEntropy(name="cross-entropy"), F.cross_entropy(LOGITS, LABELS)),
        (
            spec.CrossEntropy(name="cross-entropy", label_smoothing=0.2),
            F.cross_entropy(LOGITS, LABELS, label_smoothing=0.2),
        ),
        (
            spec.CrossEntropy(name="cross-entropy", class_weights=(1.0, 0.0, 2.0)),
            (F.cross_entropy(LOGITS, LABELS, reduction="none") * torch.tensor([1.0, 0, 2])[LABELS]).mean(),
        ),
        (
            spec.CrossEntropy(name="cross-entropy", class_weights="balanced"),
            (F.cross_entropy(LOGITS, LABELS, reduction="none") * BALANCED[LABELS]).mean(),
        ),
        (spec.Focal(name="focal", gamma=0), F.cross_entropy(LOGITS, LABELS)),
        (
            spec.Hinge(name="hinge", way="one-vs-rest", margin=2.0, class_weights=(1.0, 0.0, 2.0)),
            (
                (2 - LOGITS * (2 * torch.eye(3)[LABELS] - 1)).clamp(min=0).sum(1)
                * torch.tensor([1.0, 0, 2])[LABELS]
            ).mean(),
        ),
        (spec.OwnLoss(name=f"{__name__}:plain", scale=3), 3 * F.cross_entropy(LOGITS, LABELS)),
    ],
)
def test_losses_of_classes(options: spec.Objective, expected: Tensor) -> None:
    found = loss_function(options, CLASSES, COUNTS)
    torch.testing.assert_close(found(LOGITS, LABELS), expected)
    # The mean over all rows is the mean of the means over equal parts: with weights too.
    halves = [found(LOGITS[part], LABELS[part]) for part in (slice(0, 10), slice(10, 20))]
    torch.testing.assert_close(sum(halves) / 2, found(LOGITS, LABELS))


def test_labels_may_be_shares_of_classes() -> None:
    shares = torch.softmax(LOGITS.flip(0), 1)
    found = loss_function(spec.CrossEntropy(name="cross-entropy"), CLASSES, {})
    torch.testing.assert_close(found(LOGITS, shares), F.cross_entropy(LOGITS, shares))


def test_focal_minds_certain_rows_less() -> None:
    loss = loss_function(spec.Focal(name="focal", gamma=2), CLASSES, {})
    p = LOGITS.softmax(1)[torch.arange(20), LABELS]
    torch.testing.assert_close(loss(LOGITS, LABELS), (-((1 - p) ** 2) * p.log()).mean())
    certain = torch.tensor([[200.0, 0, 0]], requires_grad=True)
    loss(certain, torch.tensor([0])).backward()
    assert certain.grad is not None
    assert certain.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (spec.SquaredError(name="mse"), F.mse_loss(VALUES, WANTED)),
        (spec.AbsoluteError(name="mae"), F.l1_loss(VALUES, WANTED)),
        (spec.Huber(name="huber", delta=0.5), F.huber_loss(VALUES, WANTED, delta=0.5)),
    ],
)
def test_losses_of_targets(options: spec.Objective, expected: Tensor) -> None:
    torch.testing.assert_close(loss_function(options, TARGETS, {})(VALUES[:, None], WANTED), expected)


@pytest.mark.parametrize(
    ("options", "shape", "said"),
    [
        (spec.SquaredError(name="mse"), CLASSES, r"loss\.name: mse is of a target, and these rows have feat"),
        (spec.Focal(name="focal"), TARGETS, r"loss\.name: focal is of classes, and these rows have features"),
        (spec.Focal(name="focal", class_weights=(1, 2)), CLASSES, "has 2 factors, and there are 3 classes"),
        (spec.Focal(name="focal", class_weights="balanced"), CLASSES, "does not count its classes"),
        (spec.OwnLoss(name=f"{__name__}:plain", sacle=3), CLASSES, r"loss\.sacle: unknown key.*mean 'scale'"),
        (spec.OwnLoss(name=f"{__name__}:plain", scale="x"), CLASSES, r"loss\.scale: must be a number"),
    ],
)
def test_a_loss_that_does_not_fit_is_told(options: spec.Objective, shape: Shape, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        loss_function(options, shape, {})


def test_a_loss_of_ones_own_gives_a_tensor() -> None:
    with pytest.raises(UsageError, match="no_tensor gives a float, and a tensor is wanted"):
        loss_function(spec.OwnLoss(name=f"{__name__}:no_tensor"), CLASSES, {})(LOGITS, LABELS)


WANTED_OF_CLASSES = {
    "f1": {"name": "F1Score", "average": "macro"},
    "kappa": "CohenKappa",
    "auc": {"name": "AUROC", "thresholds": 100},
}


def test_metrics_of_parts_are_those_of_the_whole() -> None:
    """Also where all scores of a part lie from 0 to 1, which torchmetrics would take for probabilities."""
    logits = torch.cat([LOGITS, LOGITS.clamp(0, 1)])
    labels = torch.cat([LABELS, LABELS])
    measures = Measures(WANTED_OF_CLASSES, CLASSES)
    sums: dict[str, Tensor] = {}
    for part in (slice(0, 20), slice(20, 27), slice(27, 40)):
        for name, value in measures.sums(logits[part], {"label": labels[part]}).items():
            sums[name] = sums.get(name, 0) + value.double()
    assert all(map(measures.owns, sums))
    found = measures.results(sums)
    assert measures.modes == {"f1": "max", "kappa": "max", "auc": "max"}
    of = torchmetrics.functional.classification
    probabilities = logits.softmax(1)
    assert found == pytest.approx(
        {
            "f1": float(of.multiclass_f1_score(probabilities, labels, 3, average="macro")),
            "kappa": float(of.multiclass_cohen_kappa(probabilities, labels, 3)),
            "auc": float(of.multiclass_auroc(probabilities, labels, 3, thresholds=100)),
        }
    )


def test_metrics_of_targets() -> None:
    measures = Measures({"mae": "MeanAbsoluteError"}, TARGETS)
    assert measures.modes == {"mae": "min"}
    found = measures.sums(VALUES[:, None], {"target": WANTED})
    sums = {name: value.double() for name, value in found.items()}
    assert measures.results(sums) == pytest.approx({"mae": float((VALUES - WANTED).abs().mean())})


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("F1Scroe", r"metrics\.x: torchmetrics has no 'F1Scroe'\. Did you mean 'F1Score'"),
        ("AUROC", r"metrics\.x: the state 'preds' of AUROC is no sum .* thresholds: 200"),
        ({"name": "F1Score", "avrage": "macro"}, r"metrics\.x: F1Score: "),
    ],
)
def test_metrics_that_cannot_be_are_told(told: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Measures({"x": told}, CLASSES)


class TwoInputs(nn.Module):
    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.dense = nn.Linear(size, 2)

    def forward(self, attention_mask: Tensor, input_ids: Tensor) -> Tensor:
        return self.dense((input_ids * attention_mask).float())


TWO = Shape(row={"input_ids": (8,), "attention_mask": (8,), "label": ()}, classes=2)
TEXTS = """
kind: train
name: test
workload: {workload}
model: {model}
inputs: {inputs}
data: {{source: texts, path: r.csv, text: words, target: y}}
batch_size: 16
optimizer: {{name: adam, lr: 0.01}}
stop: {{epochs: 5}}
metrics: {{f1: {{name: F1Score, average: macro}}}}
"""


def write_texts(folder: Path) -> None:
    generator = np.random.default_rng(0)
    words = [generator.choice(list("abcdefgh"), 8) for _ in range(200)]
    lines = [f"{' '.join(row)},{'yes' if 'a' in row else 'no'}" for row in words]
    (folder / "r.csv").write_text("\n".join(["words,y", *lines]))


def test_several_inputs_are_given_by_name(tmp_path: Path) -> None:
    write_texts(tmp_path)
    text = TEXTS.format(workload=f"{__name__}:TwoInputs", model="{}", inputs="[input_ids, attention_mask]")
    found = train(job(text), tmp_path)
    assert 0 <= found.result.metrics["valid/f1"] <= 1
    with pytest.raises(UsageError, match=r"inputs: rows have no 'inputs_ids'\. Did you mean 'input_ids'"):
        load_workload(f"{__name__}:TwoInputs", {}, TWO, ["inputs_ids"])


def test_a_classifier_of_transformers_learns_own_texts(tmp_path: Path) -> None:
    """No file of Python's: sizes come from the rows."""
    pytest.importorskip("transformers")
    write_texts(tmp_path)
    text = TEXTS.format(
        workload="transformers:BertForSequenceClassification",
        model="{hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}",
        inputs="[input_ids, attention_mask]",
    )
    found = train(job(text, "stop.epochs=12"), tmp_path)
    assert found.result.metrics["valid/accuracy"] > 0.8
    assert found.weights["bert.embeddings.word_embeddings.weight"].shape == (10, 32)
    assert found.weights["classifier.weight"].shape == (2, 32)
    with pytest.raises(UsageError, match=r"model\.hiden_size: unknown key: .* Did you mean 'hidden_size'"):
        load_workload("transformers:BertForSequenceClassification", {"hiden_size": 1}, CLASSES)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("loss={name: mse}",),
            "softmax-regression learns by cross-entropy or focal or hinge, got 'mse'",
        ),
        (("inputs=[image]",), "inputs: softmax-regression knows its inputs: leave it out"),
        (("metrics={loss: F1Score}",), "metrics.loss: is taken"),
        (("metrics={'a:b': F1Score}",), "metrics.a:b: is taken"),
        (("metrics={f1: {average: macro}}",), "metrics.f1: names no class of torchmetrics"),
        (("loss={name: nowhere:loss}",), "loss.name: no module 'nowhere'"),
        (("loss={name: cross_entropy}",), "loss.name: unknown 'cross_entropy'. Did you mean 'cross-entropy'"),
    ],
)
def test_what_a_workload_does_not_leave_open_is_told(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(SpecError) as found:
        job(QUICK, *overrides)
    assert said in str(found.value)


def test_a_classifier_of_the_catalogue_takes_loss_and_metrics(tmp_path: Path) -> None:
    smooth = "loss={name: cross-entropy, label_smoothing: 0.1}"
    found = train(job(QUICK, smooth, "metrics={f1: {name: F1Score, average: macro}}"), tmp_path / "a")
    plain = train(job(QUICK), tmp_path / "b")
    assert found.result.metrics["valid/loss"] > plain.result.metrics["valid/loss"]
    assert found.result.metrics["valid/f1"] == pytest.approx(found.result.metrics["valid/accuracy"], abs=0.1)
    with pytest.raises(UsageError, match=r"metrics\.accuracy: softmax-regression measures it already"):
        train(job(QUICK, "metrics={accuracy: Accuracy}"), tmp_path / "c")
