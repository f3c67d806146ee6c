"""Checkpoints on disk.

A checkpoint is a folder of plain files, written beside its place, synced, listed with sizes and
SHA-256 in a manifest, and renamed into place. Nothing is read before the manifest has been held
against every file, so a torn, truncated or flipped checkpoint is named and the one before it is
used. Copying the state pauses training; writing goes on in a thread behind it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, TensorSpec, serialize_file
from safetensors.torch import load_file
from torch import Tensor

from dlsys.errors import CheckpointError, DlsysError, NonFiniteError
from dlsys.train.checkpoint.snapshot import Position, Saved
from dlsys.train.checkpoint.tree import flatten, unflatten

FORMAT = 1
_FILES = ("model.safetensors", "state.safetensors", "state.json")
_FOLDER = re.compile(r"step-(\d{10})")


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: where they are kept.
        keep: how many of the newest stay.
        before_commit: called before a finished checkpoint is renamed into place; raises when
            this process may no longer write (a newer owner has taken the run over).
        note: gets a sentence about each damaged checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 2,
        before_commit: Callable[[], None] = lambda: None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._before_commit = before_commit
        self._note = note
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._buffers: dict[str, Tensor] = {}

    # -- writing

    def save(self, saved: Saved, *, best: bool = False) -> None:
        """Copies the state and writes the copy behind training's back.

        Args:
            saved: the state; its tensors may change as soon as this returns.
            best: whether it becomes the best checkpoint.

        Raises:
            NonFiniteError, CheckpointError: the previous checkpoint was not written, as in `wait`.
        """
        self.wait()
        tied, unique = _untie(saved.model)
        tensors: dict[str, Tensor] = {}
        rest = {"optimizers": saved.optimizers, "carry": saved.carry, "ranks": saved.ranks}
        tree = flatten(rest, tensors, "")
        model = {name: self._copy(f"model:{name}", tensor) for name, tensor in unique.items()}
        state = {name: self._copy(f"state:{name}", tensor) for name, tensor in tensors.items()}
        document = {**saved.header(), "tied": tied, "tree": tree}

        step, trained = saved.position.step, _trained(saved)

        def work() -> None:
            try:
                _check_finite(model, trained, step)
                self._write(step, model, state, document, best)
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=work, name="dlsys-checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when everything handed to `save` is durable.

        Raises:
            NonFiniteError: a tensor held a NaN or an infinity; it was not written.
            CheckpointError: it could not be written; earlier checkpoints are whole.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if isinstance(error, DlsysError):
            raise error
        if isinstance(error, OSError | SafetensorError):
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise CheckpointError(
                f"a checkpoint could not be written to {self._folder}: {reason}",
                hint="Earlier checkpoints are whole; make room and run again with --resume.",
            ) from error
        if error is not None:
            raise error

    def _copy(self, name: str, tensor: Tensor) -> Tensor:
        # Buffers are used again: fresh memory costs more in page faults than the copy itself.
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = self._buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        return buffer.copy_(tensor.detach())

    def _write(
        self, step: int, model: dict[str, Tensor], state: dict[str, Tensor], document: Any, best: bool
    ) -> None:
        place = self._folder / _name(step)
        beside = self._folder / f".writing-{step:010d}-{os.getpid()}"
        shutil.rmtree(beside, ignore_errors=True)
        try:
            beside.mkdir(mode=0o700)
            _save(model, beside / _FILES[0])
            _save(state, beside / _FILES[1])
            (beside / _FILES[2]).write_text(json.dumps(document))
            files = {}
            for name in _FILES:
                _sync(beside / name)
                files[name] = {"bytes": (beside / name).stat().st_size, "sha256": _digest(beside / name)}
            manifest = {"format": FORMAT, "step": step, "best": best, "files": files}
            (beside / "manifest.json").write_text(json.dumps(manifest, indent=1))
            _sync(beside / "manifest.json")
            _sync(beside)
            self._before_commit()
            if place.exists():
                # Only a damaged one, or the same state again after a resume.
                os.rename(place, self._aside(place.name))
            os.rename(beside, place)
            if best:
                self._set_best(place.name)
            _sync(self._folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        self._prune()

    def _set_best(self, name: str) -> None:
        beside = self._folder / f".best-{os.getpid()}"
        beside.write_text(name)
        _sync(beside)
        os.replace(beside, self._folder / "best")

    def _aside(self, name: str) -> Path:
        return self._folder / f".old-{name}-{os.getpid()}"

    def _prune(self) -> None:
        best = self.best()
        for path in self.list()[: -self._keep]:
            if best is None or path != best:
                # Renamed first: a process killed while deleting must not leave half a checkpoint.
                os.rename(path, self._aside(path.name))
        for path in self._folder.glob(".old-*"):
            shutil.rmtree(path, ignore_errors=True)

    # -- reading

    def list(self) -> list[Path]:
        """The checkpoints' folders, oldest first; they may be damaged."""
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        return sorted(path for path in found if _FOLDER.fullmatch(path.name) and not path.is_symlink())

    @property
    def any(self) -> bool:
        """Whether there is a checkpoint, good or damaged."""
        return next(self._folder.glob("step-*"), None) is not None

    def best(self) -> Path | None:
        """The folder of the best checkpoint."""
        try:
            name = (self._folder / "best").read_text()
        except OSError:
            return None
        return self._folder / name if _FOLDER.fullmatch(name) else None

    def read_best(self, *, but: int) -> Saved | None:
        """The best checkpoint; None where there is none, or it is that of step `but`.

        Raises:
            CheckpointError: it is damaged.
        """
        path = self.best()
        return None if path is None or path.name == _name(but) else read(path)

    def latest(self) -> Saved | None:
        """The newest good checkpoint, or None when there is none at all.

        Raises:
            CheckpointError: there are checkpoints, and every one is damaged.
        """
        paths = self.list()
        for path in reversed(paths):
            try:
                return read(path)
            except CheckpointError as error:
                self._note(f"{error}; using the one before it")
        if paths:
            raise CheckpointError(
                f"all {len(paths)} checkpoints in {self._folder} are damaged",
                hint="Start a new run, or bring the files back from a copy.",
            )
        return None

    def tidy(self) -> None:
        """Removes what a killed process left behind."""
        for pattern in (".writing-*", ".old-*", ".best-*"):
            for path in self._folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _name(step: int) -> str:
    return f"step-{step:010d}"


def read(path: Path) -> Saved:
    """Reads one checkpoint after holding every file against the manifest.

    Raises:
        CheckpointError: damaged; the message names the file and what is wrong with it.
    """
    verify(path)
    try:
        document = json.loads((path / _FILES[2]).read_text())
        unique = load_file(path / _FILES[0])
        model = {**unique, **{name: unique[other] for name, other in document["tied"].items()}}
        rest = unflatten(document["tree"], load_file(path / _FILES[1]))
        return Saved(
            position=Position(**document["position"]),
            model=model,
            optimizers=rest["optimizers"],
            carry=rest["carry"],
            ranks=rest["ranks"],
            loop=document["loop"],
            scaler=document.get("scaler", {}),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this version: {error}") from error


def verify(path: Path) -> None:
    """Holds every file of a checkpoint against its manifest.

    Raises:
        CheckpointError: the first thing that is wrong.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        files, version = manifest["files"], manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}/manifest.json: missing or torn: {error}") from error
    if version != FORMAT:
        raise CheckpointError(f"{path}: format {version!r}; this dlsys reads format {FORMAT}")
    for name in _FILES:
        file, told = path / name, files.get(name)
        if not isinstance(told, dict) or file.is_symlink() or not file.is_file():
            raise CheckpointError(f"{file}: missing")
        size = file.stat().st_size
        if size != told.get("bytes"):
            raise CheckpointError(f"{file}: {size} bytes, the manifest says {told.get('bytes')}")
        if _digest(file) != told.get("sha256"):
            raise CheckpointError(f"{file}: its checksum differs from the manifest's")


def _trained(saved: Saved) -> set[str]:
    """The parameters that a run trains; of a run that does not say, everything."""
    groups = [group for state in saved.optimizers.values() for group in state.get("param_groups", ())]
    named = {name for group in groups for name in group["params"] if isinstance(name, str)}
    return named or set(saved.model)


def _check_finite(model: dict[str, Tensor], trained: set[str], step: int) -> None:
    """Buffers may hold infinities: a mask of attention does. What they spoil is seen in a loss."""
    for name in trained & model.keys():
        tensor = model[name]
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"step {step}: {name} is not finite; nothing was saved")


def _untie(model: dict[str, Tensor]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Names that share another one's storage, and the rest: tied parameters are saved once."""
    first: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    tied: dict[str, str] = {}
    unique: dict[str, Tensor] = {}
    for name, tensor in model.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and key in first:
            tied[name] = first[key]
        else:
            first[key] = name
            unique[name] = tensor
    return tied, unique


_SOMEWHERE = torch.zeros(1)  # an empty tensor points nowhere, and Rust wants no such pointers


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes contiguous tensors of the CPU, none of which shares another's memory.

    `safetensors.torch.save_file` first finds out that they are such, which takes longer than writing a
    small model, and takes Python from the thread that trains.
    """
    specs = {
        name: TensorSpec(
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tensor.shape,
            data_ptr=(tensor if tensor.numel() else _SOMEWHERE).data_ptr(),
            data_len=tensor.nbytes,
        )
        for name, tensor in tensors.items()
    }
    serialize_file(specs, path)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
