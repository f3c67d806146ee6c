"""The peer of a dlsys run of several workers: LeNet-5 on digits, written by hand for torchrun.

As PyTorch's own tutorials write it (https://docs.pytorch.org/tutorials/beginner/ddp_series_multigpu.html):

    torchrun --standalone --nproc-per-node 2 torchrun_lenet.py --steps 300

The model, the data, the size of the global batch, the optimizer and the schedule are those of
`jobs/quickstart.yaml`, and so is what is done besides training: an evaluation and a checkpoint
after each epoch. The last line on stdout is rank 0's result as JSON.
With --save-seconds, a checkpoint is taken at the first epoch's end after that time.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from dlsys.spec.rows import Shape
from dlsys.zoo.vision.lenet5.model import LeNet5

_BATCH = 64
_WARM_UP = 50


def load() -> tuple[TensorDataset, TensorDataset]:
    found = load_digits()
    image = torch.from_numpy(found.images).float().div(16).unsqueeze(1)
    label = torch.from_numpy(found.target).long()
    train, valid = train_test_split(range(len(label)), test_size=0.2, random_state=0, stratify=found.target)
    return TensorDataset(image[train], label[train]), TensorDataset(image[valid], label[valid])


@torch.no_grad()
def accuracy(model: torch.nn.Module, loader: DataLoader[tuple[torch.Tensor, ...]]) -> float:
    model.eval()
    right = torch.zeros(2)
    for image, label in loader:
        right += torch.tensor([(model(image).argmax(1) == label).sum().item(), len(label)])
    dist.all_reduce(right)
    model.train()
    return float(right[0] / right[1])


def train(steps: int, save_seconds: float) -> None:
    """One worker of an initialised process group."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rank, size = dist.get_rank(), dist.get_world_size()
    train_set, valid_set = load()
    sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(train_set, shuffle=True)
    batches = DataLoader(train_set, batch_size=_BATCH // size, sampler=sampler)
    valid = DataLoader(valid_set, batch_size=_BATCH, sampler=DistributedSampler(valid_set, shuffle=False))
    workload = LeNet5(LeNet5.Options(), Shape(row={"image": (1, 8, 8), "label": ()}, classes=10))
    model = DistributedDataParallel(workload.build())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    checkpoint = os.path.join(tempfile.gettempdir(), f"torchrun-lenet-{os.environ['MASTER_PORT']}.pt")
    step, epoch = 0, 0
    warm, saved = 0.0, time.perf_counter()
    while step < steps:
        sampler.set_epoch(epoch)
        for image, label in batches:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(image), label)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            step += 1
            if step == _WARM_UP:
                warm = time.perf_counter()
            if step == steps:
                break
        epoch += 1
        reached = accuracy(model, valid)
        if rank == 0:
            print(f"epoch {epoch} step {step} loss {loss.item():.4f} accuracy {reached:.4f}", flush=True)
            if step == steps or time.perf_counter() - saved >= save_seconds:
                state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state, checkpoint)
                saved = time.perf_counter()
    loop_seconds = (time.perf_counter() - warm) / (steps - _WARM_UP)
    if rank == 0:
        os.unlink(checkpoint)
        print(json.dumps({"loop_seconds": loop_seconds, "accuracy": reached}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--save-seconds", type=float, default=0)
    arguments = parser.parse_args()
    dist.init_process_group("gloo")
    train(arguments.steps, arguments.save_seconds)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
