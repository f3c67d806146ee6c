"""One epoch of softmax regression on digits by hand: what both peers of a sweep train."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional

_BATCH = 64


def train(lr: float) -> float:
    """The validation accuracy after one epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = load_digits()
    rows = torch.from_numpy(found.data).float().div(16)
    labels = torch.from_numpy(found.target).long()
    picked, held = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=found.target)
    model = torch.nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    order = torch.tensor(picked)[torch.randperm(len(picked))]
    for batch in order.split(_BATCH):
        optimizer.zero_grad()
        functional.cross_entropy(model(rows[batch]), labels[batch]).backward()
        optimizer.step()
    with torch.no_grad():
        return float((model(rows[held]).argmax(1) == labels[held]).float().mean())
