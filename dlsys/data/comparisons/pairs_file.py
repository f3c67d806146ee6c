"""Pairs of faces in the form of Labeled Faces in the Wild (Huang et al. 2007, http://vis-www.cs.umass.edu/lfw)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlsys.data.files import read_bytes
from dlsys.errors import DataError

_FORM = "three words (a name, two numbers) for a pair of one person, or four (a name, a number, twice)"


def named_pairs(
    path: str, folder: Path, images: Sequence[Path], source: str
) -> tuple[np.ndarray, np.ndarray]:
    """Reads `pairs.txt`, or one of its relatives for development.

    The first line says how many sets there are and how many pairs of each kind a set has, or only the latter.
    Then lines of a name and the numbers of two images, or of a name, a number, another name and its number,
    with tabs between them; image 7 of Ada_Smith is Ada_Smith/Ada_Smith_0007 with any ending.

    Args:
        path: the file, as the job says it.
        folder: where relative paths start.
        images: files of the images, each in the folder of its person.
        source: of the images, as messages say it.

    Returns:
        Places in `images` int64 (pairs, 2), and whether both are of one person, bool (pairs,).

    Raises:
        DataError: the file is missing, a line has another form, an image is not there, or there are fewer or
            more pairs than it says.
    """
    lines = read_bytes(path, folder).decode("utf-8", errors="replace").splitlines()
    head = (lines or [""])[0].split()
    if len(head) not in (1, 2) or not all(map(_is_number, head)):
        raise DataError(
            f"{path}:1: must say how many sets there are and how many pairs of each kind a set has, such as "
            f"'10\t300', got {(lines or [''])[0][:60]!r}"
        )
    places = {(image.parent.name, image.stem): place for place, image in enumerate(images)}
    pairs, same = [], []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        words = line.split("\t") if "\t" in line else line.split()
        words = [word.strip() for word in words]
        if len(words) == 3 and all(map(_is_number, words[1:])):
            named = [(words[0], words[1]), (words[0], words[2])]
        elif len(words) == 4 and all(map(_is_number, words[1::2])):
            named = [(words[0], words[1]), (words[2], words[3])]
        else:
            raise DataError(f"{path}:{number}: must be {_FORM}, got {line[:60]!r}")
        keys = [(name, f"{name}_{int(image):04d}") for name, image in named]
        for key in keys:
            if key not in places:
                raise DataError(
                    f"{path}:{number}: no readable image {'/'.join(key)}.* in {source}",
                    hint="put it there, or take the pair out and change the numbers of the first line",
                )
        pairs.append([places[key] for key in keys])
        same.append(len(words) == 3)
    wanted = 2 * int(np.prod([int(word) for word in head]))
    if len(pairs) != wanted or not wanted:
        raise DataError(f"{path}: the first line says {wanted} pairs in all, and there are {len(pairs)}")
    return np.array(pairs, np.int64), np.array(same)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()
