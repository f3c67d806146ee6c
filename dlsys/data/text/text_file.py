"""A text file."""

from __future__ import annotations

from pathlib import Path

from dlsys.data.dataset import Splits
from dlsys.data.files import read_bytes
from dlsys.data.text.windows import windows
from dlsys.errors import DataError
from dlsys.spec.data import TextFile


def text_file(options: TextFile, folder: Path) -> Splits:
    """A text file, every character as it stands (line ends too)."""
    data = read_bytes(options.path, folder)
    try:
        text = data.decode(options.encoding)
    except LookupError as error:
        raise DataError(
            f"{options.path}: data.encoding: no text encoding {options.encoding!r}",
            hint="say utf-8 or latin-1",
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{options.path}: byte {error.start}: 0x{data[error.start]:02x} is not {options.encoding} "
            f"({error.reason})",
            hint="name the file's encoding in data.encoding",
        ) from error
    except ValueError as error:
        raise DataError(f"{options.path}: is not {options.encoding}: {error}") from error
    return windows(text, options, options.path)
