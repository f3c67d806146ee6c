"""From a file and dotted overrides to a checked job, sweep or cluster, or to every problem at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from dlsys.errors import Problem, SpecError, UsageError
from dlsys.registry import did_you_mean
from dlsys.spec import baseline, files, yaml
from dlsys.spec.cluster import rules as cluster_rules
from dlsys.spec.cluster.providers import PROVIDERS, Cluster
from dlsys.spec.files import Files
from dlsys.spec.overrides import apply_overrides, as_given, changed, traced, without_effect
from dlsys.spec.rl import rules as rl_rules
from dlsys.spec.rl.job import Job, RLJob
from dlsys.spec.rules import Found
from dlsys.spec.script import load as scripts
from dlsys.spec.section import show
from dlsys.spec.sections import HARMLESS_AGENT, HARMLESS_JOB, HARMLESS_SWEEP, sections, told, without
from dlsys.spec.sweep import rules as sweep_rules
from dlsys.spec.sweep import trials as sweep_trials
from dlsys.spec.sweep.sweep import Sweep
from dlsys.spec.train import rules
from dlsys.spec.train.job import TrainJob

KINDS = ("train", "rl", "script", "sweep", "cluster")
_JOBS = ("train", "rl")


@dataclass(frozen=True)
class Loaded:
    """A checked file.

    Attributes:
        job: the job, all defaults filled in.
        source: the file's own text.
        path: the file, absolute; where it would lie, of a job that is none.
        overrides: what the command line changed, as given.
        folder: where the job's relative paths start, absolute.
    """

    job: Job
    source: str
    path: Path
    folder: Path
    overrides: tuple[str, ...] = ()

    @property
    def spec(self) -> Job:
        return self.job

    @property
    def training(self) -> TrainJob:
        """The job, which must be one of `kind: train`.

        Raises:
            UsageError: it is another.
        """
        if isinstance(self.job, RLJob):
            raise UsageError(f"{self.path}: is of kind: rl; this is for jobs of kind: train")
        return self.job

    @property
    def agent(self) -> RLJob | None:
        """The job, if it is one of `kind: rl`."""
        return self.job if isinstance(self.job, RLJob) else None


@dataclass(frozen=True)
class LoadedSweep:
    """A checked sweep.

    Attributes:
        sweep: the sweep, all defaults filled in.
        job: the job that trials train, with the sweep's overrides.
        source: the sweep file's own text.
        path: the sweep file, absolute.
        overrides: what the command line changed, as given.
        build: a trial's job from its settings; raises SpecError.
        written: what it builds on, as `Base` has it.
    """

    sweep: Sweep
    job: Loaded
    source: str
    path: Path
    overrides: tuple[str, ...]
    build: Callable[[Mapping[str, Any]], Job]
    written: dict[str, Any]

    @property
    def spec(self) -> Sweep:
        return self.sweep

    def trial(self, settings: Mapping[str, Any]) -> Loaded:
        """The job of one trial, as if the settings had been given on the command line.

        Raises:
            SpecError: the settings do not suit the job.
        """
        given = (*self.job.overrides, *as_given(settings))
        return replace(self.job, job=self.build(settings), overrides=given)


@dataclass(frozen=True)
class LoadedCluster:
    """A checked cluster file.

    Attributes:
        cluster: the cluster, of its provider's class, all defaults filled in.
        source: the file's own text.
        path: the file, absolute.
        overrides: what the command line changed, as given.
    """

    cluster: Cluster
    source: str
    path: Path
    overrides: tuple[str, ...] = ()

    @property
    def spec(self) -> Cluster:
        return self.cluster


AnyLoaded = Loaded | scripts.LoadedScript | LoadedSweep | LoadedCluster


def load(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), *, folder: Path | None = None
) -> Loaded:
    """Reads and checks a job file.

    Args:
        path: the file.
        overrides: `dotted.path=value`; the value is read as YAML.
        folder: where its relative paths start, if not where the file lies.

    Raises:
        SpecError: all problems of the file and of the overrides.
        UsageError: the file cannot be read, or is no job.
    """
    document, source = read(os.fspath(path))
    apply_overrides(document, overrides)
    kind = document.data.get("kind") if isinstance(document.data, dict) else None
    if kind not in _JOBS and kind in KINDS:
        raise UsageError(f"{os.fspath(path)}: is a {kind}; a job is wanted here (kind: train or rl)")
    return _loaded(document, source, overrides, folder)


def load_cluster(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> LoadedCluster:
    """Reads and checks a cluster file. As `load` otherwise."""
    if isinstance(found := load_any(path, overrides), LoadedCluster):
        return found
    raise UsageError(f"{os.fspath(path)}: is no cluster file (kind: cluster)")


def load_any(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    folder: Path | None = None,
    there: Files = "all",
) -> AnyLoaded:
    """Reads and checks a file of any kind. As `load` otherwise.

    Args:
        there: which of the files that a job reads must be there: all, none, or those by relative paths,
            which travel with it.
    """
    document, source = read(os.fspath(path))
    return check_any(document, source, overrides, folder=folder, there=there)


def check_any(
    document: yaml.Document,
    source: str,
    overrides: Sequence[str] = (),
    *,
    folder: Path | None = None,
    there: Files = "all",
) -> AnyLoaded:
    """The same of a document that is read already, with its own text."""
    apply_overrides(document, overrides)
    kind = _kind(document, KINDS)
    if kind == "sweep":
        return check_sweep(document, source, tuple(overrides), folder=folder, there=there)
    if kind == "cluster":
        return LoadedCluster(check_cluster(document), source, Path(document.file).resolve(), tuple(overrides))
    if kind == "script":
        return scripts.of_document(document, source, overrides, folder, there)
    return _loaded(document, source, overrides, folder, there)


def _loaded(
    document: yaml.Document,
    source: str,
    overrides: Sequence[str],
    folder: Path | None,
    there: Files = "all",
) -> Loaded:
    """A job, once nothing on the command line is without effect.

    A file may say such a thing: written out with all its defaults, as `dlsys show` does it, it always does.
    """
    full = Path(document.file).resolve()
    folder = (folder or full.parent).absolute()
    job = check(document)
    problems = told(document, [*_missing(job, folder, there), *baseline.check(document, job, check)])
    given = (text.partition("=")[0].strip() for text in overrides)
    problems += [Problem(document.changes, 0, key, said) for key, said in without_effect(job, given)]
    if problems:
        raise SpecError(problems)
    return Loaded(job, source, full, folder, tuple(overrides))


def _missing(job: Job, folder: Path, there: Files) -> Found:
    return iter(()) if there == "none" else files.missing(job, folder, relative_only=there == "relative")


def read(shown: str) -> tuple[yaml.Document, str]:
    """A file's document, and its own text.

    Raises:
        SpecError: it is no YAML.
        UsageError: it cannot be read.
    """
    try:
        with open(shown, "rb") as file:
            text = file.read(yaml.MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{shown}: cannot be read: {reason}") from error
    return yaml.read(text, shown), text.decode("utf-8-sig")


def check(document: yaml.Document) -> Job:
    """Validates a job: types, unknown keys, names, and the rules between fields.

    Raises:
        SpecError: all problems.
    """
    return _check_agent(document) if _kind(document, _JOBS) == "rl" else _check_training(document)


def _check_agent(document: yaml.Document) -> RLJob:
    job, wrong, broken = sections(document, RLJob)
    known = job or without(document.data, broken, RLJob, HARMLESS_AGENT)
    wrong += islice(rl_rules.check(known, broken), yaml.MAX_PROBLEMS)
    if problems := told(document, wrong):
        raise SpecError(problems)
    assert job is not None, "what pydantic refuses is a problem"
    return job


def _check_training(document: yaml.Document) -> TrainJob:
    job, wrong, broken = sections(document, TrainJob)
    known = job or without(document.data, broken, TrainJob, HARMLESS_JOB)
    wrong += islice(rules.check(known, broken), yaml.MAX_PROBLEMS)
    if problems := told(document, wrong):
        raise SpecError(problems)
    assert job is not None, "what pydantic refuses is a problem"
    return rules.resolve(job)


def check_sweep(
    document: yaml.Document,
    source: str,
    overrides: tuple[str, ...] = (),
    *,
    folder: Path | None = None,
    there: Files = "none",
) -> LoadedSweep:
    """Validates a sweep, the job that it names, and what its space makes of that job.

    Args:
        document: the sweep; its job's path is relative to the document's file.
        source: the sweep's own text.
        overrides: what was changed in the document, as given.
        folder: where the job's relative paths start, if not where its own file lies.
        there: as in `load_any`.

    Raises:
        SpecError: all problems.
    """
    _kind(document, ["sweep"])
    sweep, wrong, broken = sections(document, Sweep)
    known = sweep or without(document.data, broken, Sweep, HARMLESS_SWEEP)
    job: Loaded | None = None
    base: sweep_trials.Base | None = None
    elsewhere: list[Problem] = []
    if known is not None and not broken & {"job", "overrides", "tracking"}:
        try:
            job, base = _base(document.file, known, folder, there)
        except _WrongBase as error:
            wrong += error.wrong
            elsewhere = error.elsewhere
    if known is not None:
        wrong += islice(sweep_rules.check(known, base, broken), yaml.MAX_PROBLEMS)
    if problems := told(document, wrong) + elsewhere:
        raise SpecError(problems)
    assert sweep is not None, "what pydantic refuses is a problem"
    assert job is not None, "a job that could not be loaded is a problem"
    assert base is not None, "likewise"
    resolved, path = sweep_rules.resolve(sweep, base), Path(document.file).resolve()
    return LoadedSweep(resolved, job, source, path, overrides, base.build, base.written)


def check_cluster(document: yaml.Document) -> Cluster:
    """Validates a cluster, by its provider's class. As `check` otherwise."""
    _kind(document, ["cluster"])
    provider = document.data.get("provider")
    if not isinstance(provider, str) or provider not in PROVIDERS:
        raise SpecError(told(document, [(("provider",), _bad_choice(document.data, "provider", PROVIDERS))]))
    cluster, wrong, broken = sections(document, PROVIDERS[provider], owner=provider)
    if cluster is not None and not broken:
        wrong += islice(cluster_rules.check(cluster), yaml.MAX_PROBLEMS)
    if problems := told(document, wrong):
        raise SpecError(problems)
    assert cluster is not None, "what pydantic refuses is a problem"
    return cluster


class _WrongBase(Exception):
    """What is wrong with a sweep's job: in the sweep, and in the job's own file."""

    def __init__(self, wrong: Iterable[tuple[yaml.Path, str]], elsewhere: list[Problem]) -> None:
        super().__init__()
        self.wrong = list(wrong)
        self.elsewhere = elsewhere


def _base(file: str, sweep: Sweep, folder: Path | None, there: Files) -> tuple[Loaded, sweep_trials.Base]:
    """The job of a sweep with the sweep's overrides.

    Raises:
        _WrongBase: the job cannot be read or is wrong, by itself or with the overrides.
    """
    shown = os.path.join(os.path.dirname(file), sweep.job)
    folder = (folder or Path(shown).resolve().parent).absolute()
    try:
        document, source = read(shown)
        if problems := told(document, list(_missing(check(document), folder, there))):
            raise SpecError(problems)
    except SpecError as error:
        raise _WrongBase([], error.problems) from error
    except UsageError as error:
        raise _WrongBase([(("job",), str(error))], []) from error
    tracking = sweep.tracking.model_dump(exclude_unset=True) if sweep.tracking else {}
    given = {**{f"tracking.{key}": value for key, value in tracking.items()}, **sweep.overrides}
    places: dict[str, yaml.Path] = {key: ("overrides", key) for key in sweep.overrides}
    places |= {f"tracking.{key}": ("tracking", key) for key in tracking}

    def build(settings: Mapping[str, Any]) -> Job:
        return check(changed(document, {**given, **settings}))

    try:
        job = build({})
    except SpecError as error:
        raise _WrongBase(traced(error.problems, places, ("overrides",)), []) from error
    loaded = Loaded(job, source, Path(shown).resolve(), folder, tuple(as_given(given)))
    return loaded, sweep_trials.Base(job, changed(document, given).data, build)


def _kind(document: yaml.Document, known: Iterable[str]) -> str:
    """The document's kind.

    Raises:
        SpecError: it has none of these.
    """
    data = document.data
    problems = list(document.problems)
    if not isinstance(data, dict):
        if () not in document.unread:
            text = f"a job file is a mapping of keys to values, not {show(data)}"
            problems.append(document.problem((), text))
        raise SpecError(problems)
    kind = data.get("kind")
    if isinstance(kind, str) and kind in known:
        return kind
    if ("kind",) not in document.unread:
        problems.append(document.problem(("kind",), _bad_choice(data, "kind", known)))
    raise SpecError(problems)


def _bad_choice(data: dict[str, Any], key: str, choices: Iterable[str]) -> str:
    known = " or ".join(map(show, choices))
    if key not in data:
        return f"is required and missing: {known}"
    near = did_you_mean(data[key], choices) if isinstance(data[key], str) else ""
    return f"must be {known}, got {show(data[key])}{'.' if near else ''}{near}"
