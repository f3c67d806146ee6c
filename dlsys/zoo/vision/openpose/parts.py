"""Maps and fields of people, and people of maps and fields (Cao et al. 2017, arXiv:1611.08050, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Limbs = Sequence[tuple[int, int]]
# Places along a limb at which its field is read.
_PLACES = 10
# A limb's field must point along it, by so much at so great a share of these places.
_ALONG, _SHARE = 0.05, 0.8
# Peaks of a joint in an image, at most.
_MOST = 20
# Fewer joints are nobody.
_LEAST = 3


def _cells(size: tuple[int, int], keypoints: Tensor) -> Tensor:
    """The middles of a map's pixels, as x and y: (height, width, 2)."""
    y, x = (torch.arange(n, device=keypoints.device, dtype=keypoints.dtype) + 0.5 for n in size)
    return torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)


def maps_of(keypoints: Tensor, size: tuple[int, int], spread: float) -> Tensor:
    """A hill of 1 at each joint, the highest where several meet: (rows, joints, height, width).

    Args:
        keypoints: (rows, people, joints, 3), in pixels of the maps.
        size: height and width.
        spread: the hills' deviation.
    """
    away = _cells(size, keypoints) - keypoints[..., None, None, :2]
    hills = torch.exp(-(away**2).sum(-1) / (2 * spread**2)) * (keypoints[..., 2] > 0)[..., None, None]
    return hills.amax(1)


def fields_of(keypoints: Tensor, limbs: Limbs, size: tuple[int, int], breadth: float) -> Tensor:
    """The unit vector along each limb where it lies, the mean where several do: (rows, limbs, 2, height,
    width).

    Args:
        keypoints, size: as of `maps_of`.
        breadth: how far to each side of its middle a limb reaches.
    """
    starts, ends = (keypoints[:, :, [limb[end] for limb in limbs]] for end in (0, 1))
    along = ends[..., :2] - starts[..., :2]
    length = along.norm(dim=-1).clamp(min=1e-6)
    unit = along / length[..., None]
    away = _cells(size, keypoints) - starts[..., None, None, :2]
    lengthwise = (away * unit[..., None, None, :]).sum(-1)
    beside = (away[..., 0] * unit[..., None, None, 1] - away[..., 1] * unit[..., None, None, 0]).abs()
    marked = (starts[..., 2] > 0) & (ends[..., 2] > 0)
    inside = (lengthwise >= 0) & (lengthwise <= length[..., None, None]) & (beside <= breadth)
    inside = inside & marked[..., None, None]
    total = torch.einsum("npkhw,npkc->nkchw", inside.to(unit), unit)
    found: Tensor = total / inside.sum(1)[:, :, None].clamp(min=1)
    return found


def unmarked(keypoints: Tensor, size: tuple[int, int], margin: float) -> Tensor:
    """Where a joint may be that nobody has marked: in the box around the other joints of its person; bool
    (rows, joints, height, width).

    Args:
        keypoints, size: as of `maps_of`.
        margin: around the box.
    """
    marked = keypoints[..., 2] > 0
    low = torch.where(marked[..., None], keypoints[..., :2], torch.inf).amin(2) - margin
    high = torch.where(marked[..., None], keypoints[..., :2], -torch.inf).amax(2) + margin
    cells = _cells(size, keypoints)
    inside = ((cells >= low[:, :, None, None]) & (cells <= high[:, :, None, None])).all(-1)
    return (inside[:, :, None] & ~marked[..., None, None]).any(1)


def peaks_of(maps: Tensor, least: float) -> list[Tensor]:
    """The hilltops of each joint's map (joints, height, width): (n, 3) of x, y and height, the highest first.

    A top lies where the parabola through a pixel and its neighbours has its own.
    """
    highest = F.max_pool2d(maps[None], 3, 1, 1)[0]
    wide = F.pad(maps[None], (1, 1, 1, 1), mode="replicate")[0]
    found = []
    for joint in range(len(maps)):
        y, x = torch.where((maps[joint] == highest[joint]) & (maps[joint] >= least))
        height = maps[joint, y, x]
        offsets = []
        for before, after in (((y + 1, x), (y + 1, x + 2)), ((y, x + 1), (y + 2, x + 1))):
            low, high = wide[joint][before], wide[joint][after]
            bend = (2 * height - low - high).clamp(min=1e-6)
            offsets.append(((high - low) / (2 * bend)).clamp(-0.5, 0.5))
        tops = torch.stack([x + 0.5 + offsets[0], y + 0.5 + offsets[1], height], 1)
        found.append(tops[height.argsort(descending=True)[:_MOST]])
    return found


def people_of(maps: Tensor, fields: Tensor, limbs: Limbs, least: float) -> Tensor:
    """Who is in an image: float32 (people, joints, 3) of x and y in pixels of the maps and a score, 0 where a
    joint was not found.

    Of each limb's possible ends, those are joined between which its field points best, one after another;
    what shares a joint is one person.

    Args:
        maps: (joints, height, width).
        fields: (limbs, 2, height, width).
        limbs: the joints of each, in an order in which each but the first of a body begins at one before.
        least: how high a hill is a joint.
    """
    peaks = peaks_of(maps, least)
    # Of each joint's peaks, whose they are.
    owner: list[dict[int, int]] = [{} for _ in peaks]
    people: dict[int, dict[int, int]] = {}
    fresh = 0
    for number, (a, b) in enumerate(limbs):
        for one, other in _joined(peaks[a], peaks[b], fields[number]):
            first, second = owner[a].get(one), owner[b].get(other)
            if first is None and second is None:
                first, fresh = fresh, fresh + 1
                people[first] = {}
            elif first is not None and second is not None and first != second:
                if people[first].keys() & people[second].keys():
                    continue  # nobody has two of a joint
                for joint, peak in people.pop(second).items():
                    people[first][joint] = peak
                    owner[joint][peak] = first
            whose = first if first is not None else second
            assert whose is not None, "one of both ends is somebody's"
            for joint, peak in ((a, one), (b, other)):
                if people[whose].setdefault(joint, peak) == peak:
                    owner[joint][peak] = whose
    found = []
    for joints in people.values():
        if len(joints) >= min(_LEAST, len(peaks)):
            person = torch.zeros(len(peaks), 3)
            for joint, peak in joints.items():
                person[joint] = peaks[joint][peak]
            found.append(person)
    return torch.stack(found) if found else torch.zeros(0, len(peaks), 3)


def _joined(starts: Tensor, ends: Tensor, field: Tensor) -> list[tuple[int, int]]:
    """Which ends of a limb belong together: pairs of places in `starts` and `ends`, the best first."""
    if not len(starts) or not len(ends):
        return []
    along = ends[None, :, :2] - starts[:, None, :2]
    unit = along / along.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    share = (torch.arange(_PLACES) + 0.5) / _PLACES
    places = starts[:, None, None, :2] + along[:, :, None] * share[:, None]
    x = places[..., 0].long().clamp(0, field.shape[2] - 1)
    y = places[..., 1].long().clamp(0, field.shape[1] - 1)
    agreement = field[0][y, x] * unit[..., None, 0] + field[1][y, x] * unit[..., None, 1]
    fits = (agreement > _ALONG).float().mean(-1) >= _SHARE
    scores = agreement.mean(-1).masked_fill(~fits, 0.0)
    pairs: list[tuple[int, int]] = []
    used: tuple[set[int], set[int]] = (set(), set())
    for flat in scores.flatten().argsort(descending=True, stable=True).tolist():
        one, other = divmod(flat, len(ends))
        if scores[one, other] <= 0:
            break
        if one not in used[0] and other not in used[1]:
            used[0].add(one)
            used[1].add(other)
            pairs.append((one, other))
    return pairs
