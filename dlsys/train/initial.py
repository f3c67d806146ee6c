"""Weights that a model begins with, and parameters that are named by patterns: `init:`, `freeze:`, groups."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dlsys.data.files import listed
from dlsys.errors import UsageError
from dlsys.paths import RunPaths
from dlsys.registry import known
from dlsys.spec.train.initial import (
    ConstantWeights,
    IdentityWeights,
    Init,
    KaimingWeights,
    LayerWeights,
    NormalWeights,
    OrthogonalWeights,
    TruncatedNormalWeights,
    UniformWeights,
    XavierWeights,
)
from dlsys.spec.train.job import TrainJob
from dlsys.train.checkpoint.export import best_or_latest


def begin(model: nn.Module, job: TrainJob, folder: Path, *, fresh: bool) -> str:
    """Gives a new model the weights that the job names, and freezes what it freezes.

    Args:
        model: on the CPU, just built; changed in place.
        folder: where relative paths start.
        fresh: whether training begins here; else a checkpoint has the weights.

    Returns:
        A sentence about what was taken; empty where nothing was.

    Raises:
        UsageError: the weights are not there or do not fit; a pattern matches no parameter.
    """
    told = ""
    if job.init and fresh:
        taken: set[str] = set()
        sentences = []
        if job.init.run or job.init.file:
            taken, sentence = take(model, job.init, folder)
            sentences.append(sentence)
        told = "; ".join([*sentences, *draw(model, job.init.layers, taken)])
    names = [name for name, _ in model.named_parameters()]
    statistics = _statistics(model)
    of_groups = [pattern for group in job.optimizer.groups for pattern in group.match]
    for option, patterns, named in (
        ("freeze", job.freeze, [*names, *statistics]),
        ("optimizer.groups", of_groups, names),
    ):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in named):
                raise UsageError(f"{option}: no parameter is called {pattern!r}.{known(pattern, named)}")
    for name, parameter in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in job.freeze):
            parameter.requires_grad_(False)
    for name, module in statistics.items():
        if any(fnmatchcase(name, pattern) for pattern in job.freeze):
            module.register_forward_pre_hook(_measures)
    if job.freeze and not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError("freeze: nothing is left to train: leave some parameters out")
    return told


def _statistics(model: nn.Module) -> dict[str, nn.Module]:
    """The running means and variances of norms by their names, each with its norm."""
    return {
        f"{prefix}{'.' * bool(prefix)}{name}": module
        for prefix, module in model.named_modules()
        for name, _ in module.named_buffers(recurse=False)
        if name.startswith("running_")
    }


def _measures(module: nn.Module, _: object) -> None:
    """Has a norm take its running statistics, and leave them, whatever the model does: as when measured."""
    module.training = False


@torch.no_grad()
def draw(model: nn.Module, layers: Sequence[LayerWeights], taken: Collection[str]) -> Iterator[str]:
    """Gives parameters the numbers that a job says they begin with, from torch's global generator.

    Args:
        model: as `begin`.
        layers: what is said; of several that match a parameter, the first counts.
        taken: names of parameters that have others already, which they keep.

    Returns:
        A sentence for each of `layers`.

    Raises:
        UsageError: one matches no parameter, none that is left, or one of a shape that it cannot be for.
    """
    named = dict(model.named_parameters())
    done = set(taken)
    for place, told in enumerate(layers):
        where = f"init.layers[{place}]"
        for pattern in told.match:
            if not any(fnmatchcase(name, pattern) for name in named):
                raise UsageError(f"{where}: no parameter is called {pattern!r}.{known(pattern, named)}")
        matched = [name for name in named if any(fnmatchcase(name, pattern) for pattern in told.match)]
        drawn = [name for name in matched if name not in done]
        if not drawn:
            raise UsageError(
                f"{where}: what it matches has its weights already, from init.run, init.file or a rule "
                f"before: {listed(matched, ', ')}",
                hint="leave it out, put it first, or name the weights under init.leave",
            )
        for name in drawn:
            _fill(named[name], told, f"{where}: {told.name} of {name}")
        done.update(drawn)
        yield f"{told.name} begins {listed([_figures(name, named[name]) for name in drawn], ', ')}"


def _figures(name: str, weight: Tensor) -> str:
    return f"{name} (mean {weight.mean():.2g}, std {weight.std(correction=0):.2g})"


def _fill(weight: Tensor, told: LayerWeights, what: str) -> None:
    match told:
        case ConstantWeights():
            nn.init.constant_(weight, told.value)
        case NormalWeights():
            nn.init.normal_(weight, told.mean, told.std)
        case TruncatedNormalWeights():
            nn.init.trunc_normal_(weight, std=told.std, a=-2 * told.std, b=2 * told.std)
        case UniformWeights():
            nn.init.uniform_(weight, -told.bound, told.bound)
        case XavierWeights():
            _require(weight, 2, what)
            fill = nn.init.xavier_normal_ if told.name == "xavier-normal" else nn.init.xavier_uniform_
            fill(weight, told.gain)
        case KaimingWeights():
            _require(weight, 2, what)
            draws = nn.init.kaiming_normal_ if told.name == "kaiming-normal" else nn.init.kaiming_uniform_
            draws(weight, mode=told.mode, nonlinearity=told.nonlinearity)
        case OrthogonalWeights():
            _require(weight, 2, what)
            nn.init.orthogonal_(weight, told.gain)
        case IdentityWeights():
            _require(weight, 2, what)
            (nn.init.eye_ if weight.ndim == 2 else nn.init.dirac_)(weight)


def _require(weight: Tensor, dims: int, what: str) -> None:
    if weight.ndim < dims:
        raise UsageError(
            f"{what}: it has the shape {tuple(weight.shape)}, and {dims} dimensions or more are wanted",
            hint="match weights alone, as `conv*.weight` does",
        )


def take(model: nn.Module, init: Init, folder: Path) -> tuple[set[str], str]:
    """Gives a model the weights of another run or of a file; as `begin`.

    Returns:
        Names of what was taken, and a sentence about it.
    """
    given, name = _weights(init, folder)
    own = model.state_dict()
    taken: dict[str, Tensor] = {}
    for key, tensor in given.items():
        renamed = _renamed(key, init.rename)
        if any(fnmatchcase(renamed, pattern) for pattern in init.leave):
            continue
        if renamed not in own:
            raise UsageError(
                f"init: {name} has {renamed!r}, and the model has not.{known(renamed, own)}",
                hint="init.rename changes beginnings of names; init.leave leaves weights out, by patterns.",
            )
        if own[renamed].shape != tensor.shape:
            here, there = tuple(own[renamed].shape), tuple(tensor.shape)
            raise UsageError(
                f"init: {renamed} is of shape {there} in {name}, and of {here} in the model",
                hint=f"init.leave: ['{renamed}'] begins it anew, as a head for other classes.",
            )
        taken[renamed] = tensor
    model.load_state_dict(taken, strict=False)
    new = sorted(own.keys() - taken.keys())
    anew = f"; begun anew: {', '.join(new[:5])}{' …' if len(new) > 5 else ''}" if new else ""
    return set(taken), f"begins with {len(taken)} tensors of {name}{anew}"


def _weights(init: Init, folder: Path) -> tuple[Mapping[str, Tensor], str]:
    """The tensors by name, and what messages call them."""
    if init.run:
        paths = RunPaths.find(init.run)
        saved = best_or_latest(paths.checkpoints)
        return saved.weights, f"{paths.id}, step {saved.position.step}"
    path = folder / init.file
    try:
        if path.suffix == ".safetensors":
            return load_file(path), init.file
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, EOFError, ValueError) as error:
        raise UsageError(f"init: {init.file}: cannot be read: {str(error).splitlines()[0]}") from error
    except Exception as error:  # torch's unpickler has a type of its own for what is no tensor
        raise UsageError(
            f"init: {init.file}: holds more than tensors: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise UsageError(f"init: {init.file}: is no mapping of names to tensors, as `state_dict()` gives it")
    return found, init.file


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    """With the longest beginning that is renamed."""
    for old in sorted(rename, key=len, reverse=True):
        if name.startswith(old):
            return rename[old] + name[len(old) :]
    return name
