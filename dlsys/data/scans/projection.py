"""Points as an image seen from the sensor (spherical projection; Wu et al. 2018, arXiv:1710.07368, section
3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class View(NamedTuple):
    """What of the sphere an image shows.

    Attributes:
        lines, columns: its height and width.
        up, down: the highest and the lowest direction, in degrees above the horizon.
        width: degrees around straight ahead, which is the x axis; y is to the left, z up.
    """

    lines: int
    columns: int
    up: float
    down: float
    width: float

    def directions(self) -> np.ndarray:
        """The unit vector of each pixel's middle: (lines, columns, 3), the highest first, from left to
        right."""
        heights = self.up - (np.arange(self.lines) + 0.5) / self.lines * (self.up - self.down)
        turns = (0.5 - (np.arange(self.columns) + 0.5) / self.columns) * self.width
        pitch, yaw = np.meshgrid(np.radians(heights), np.radians(turns), indexing="ij")
        return np.stack([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], axis=-1)

    def pixels(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The points that the image shows, and the pixel of each: int64 (n,) each, pixels counted line by
        line.

        Of several in a pixel only the nearest is shown; a point at the sensor itself is none.

        Args:
            points: (points, 3).
        """
        distance = np.linalg.norm(points, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            pitch = np.degrees(np.arcsin(points[:, 2] / distance))
        yaw = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
        line = np.floor((self.up - pitch) / (self.up - self.down) * self.lines)
        column = np.floor((0.5 - yaw / self.width) * self.columns)
        if self.width == 360:
            column %= self.columns  # straight back is on either edge
        inside = (line >= 0) & (line < self.lines) & (column >= 0) & (column < self.columns) & (distance > 0)
        shown = np.flatnonzero(inside)
        shown = shown[np.argsort(distance[shown], kind="stable")]
        pixel = (line[shown] * self.columns + column[shown]).astype(np.int64)
        pixel, first = np.unique(pixel, return_index=True)
        return shown[first], pixel


def scan_of(points: np.ndarray, strength: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Points as an image: float32 (5, lines, columns) of x, y, z, strength and range, zeros where there is no
    point; and the point of each pixel, −1 for none, int64 (lines, columns).

    Args:
        points: (points, 3) in metres.
        strength: of each return, in 0…1.
    """
    shown, pixel = view.pixels(points)
    scan = np.zeros((5, view.lines * view.columns), dtype=np.float32)
    scan[:3, pixel] = points[shown].T
    scan[3, pixel] = strength[shown]
    scan[4, pixel] = np.linalg.norm(points[shown], axis=1)
    number = np.full(view.lines * view.columns, -1, dtype=np.int64)
    number[pixel] = shown
    return scan.reshape(5, view.lines, view.columns), number.reshape(view.lines, view.columns)
