"""Every error that dlsys raises on purpose.

    DlsysError                    exit code
    ├── UsageError                2    the command line or a file is wrong; nothing was started
    │   ├── SpecError             2    a job file is wrong: every problem in it, at once
    │   └── ResourceError         2    this machine or cluster cannot hold the job
    ├── RunError                  1    a run was started and failed
    │   ├── DataError             1    a data file is missing or damaged
    │   ├── WorkloadError         1    the user's own code raised
    │   ├── NonFiniteError        1    a NaN or an infinity in a loss or a gradient
    │   ├── HangError             1    no step finished within the watchdog's time
    │   ├── CheckpointError       1    no good checkpoint, or one could not be written
    │   ├── WorkerDiedError       1    a worker process died (retried, as hangs are)
    │   ├── OutOfMemoryError      1    a worker ran out of memory (retried while it comes further)
    │   ├── ExpectationError      1    the run ended, and its result fell short of `expect`
    │   └── FencedError           1    a newer owner has taken this run over
    ├── TrackingError             1    MLflow refused or could not be reached
    └── Interrupted               130  SIGINT; 143 after SIGTERM

Errors of Ray, torch, MLflow and the operating system are translated where they enter, with
`raise … from error`, so that nothing above needs to know those libraries' classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class DlsysError(Exception):
    """Base of all errors with a message meant for the user.

    Attributes:
        exit_code: the process's exit status when this error ends it.
        hint: one sentence that says how to mend it, or an empty string.
        run: the run that it ended, a `dlsys.Run`, where dlsys was called from Python.
    """

    exit_code = 1
    run: Any = None

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # The default pickling would lose keyword-only arguments, and errors cross process borders.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(cls: type[DlsysError], args: tuple[object, ...], state: dict[str, object]) -> DlsysError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(DlsysError):
    exit_code = 2


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in a file: where it is, and what the rule is.

    Attributes:
        file: the file's path as the user wrote it, or `command line`.
        line: the line, from 1; 0 where no line can be named.
        path: the dotted path of the value (`optimizer.lr`); empty for the whole file.
        text: what is wrong, the rule, and what was probably meant.
    """

    file: str
    line: int
    path: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.path}: {self.text}" if self.path else f"{place}: {self.text}"


class SpecError(UsageError):
    """All the problems of one job file.

    Attributes:
        problems: in the order of their lines; never empty.
    """

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ResourceError(UsageError):
    pass


class RunError(DlsysError):
    pass


class DataError(RunError):
    pass


class WorkloadError(RunError):
    """The user's code raised.

    Attributes:
        traceback: the user's own frames, formatted; frames of dlsys and torch are left out.
    """

    def __init__(self, message: str, *, traceback: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.traceback = traceback


class NonFiniteError(RunError):
    pass


class HangError(RunError):
    pass


class CheckpointError(RunError):
    pass


class WorkerDiedError(RunError):
    pass


class OutOfMemoryError(RunError):
    pass


class ExpectationError(RunError):
    pass


class FencedError(RunError):
    pass


class TrackingError(DlsysError):
    """MLflow refused or could not be reached.

    Attributes:
        lasting: whether waiting can change nothing.
    """

    def __init__(self, message: str, *, hint: str = "", lasting: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.lasting = lasting


class Interrupted(DlsysError):
    exit_code = 130

    def __init__(self, message: str = "interrupted", *, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code
