"""Windows whose pose comes close to a gesture that is held out: never prompted is not yet never made.

A hand that moves freely, or that goes from one gesture to the next, may pass through the pose of a gesture that no training
window is labelled with. Whoever claims that a gesture was never seen leaves such windows out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import POSE, GestureLibrary
from embridge_edge.learning.windows import Floats, Index, Mask, WindowSet, chunks


@dataclass(frozen=True)
class Near:
    """Poses and how close to one of them is too close.

    Attributes:
        poses: float32 `[g, 23]`, radians, NaN where free.
        near_rad: root mean square, over the angles that both poses know, at or below which a pose is near.
    """

    poses: npt.NDArray[np.float32]
    near_rad: float

    def __post_init__(self) -> None:
        if self.poses.ndim != 2 or self.poses.shape[1] != len(POSE):
            raise EdgeError(f"Poses to keep away from have shape {list(self.poses.shape)}; give [poses, {len(POSE)}].")
        if not np.isfinite(self.poses).any(axis=1).all():
            raise EdgeError("A pose to keep away from knows no angle; give one that does, or leave it out.")
        if not self.near_rad >= 0:
            raise EdgeError(f"near_rad is {self.near_rad:g}; give radians, 0 or more.")


def near_gestures(library: GestureLibrary, gestures: Sequence[str], near_rad: float) -> Near:
    """`Near` for the canonical poses of gestures.

    Raises:
        EdgeError: the library has no pose for one of them.
    """
    for name in gestures:
        if library.pose(name) is None:
            raise EdgeError(
                f"Gesture {name!r} has no pose in the library, so nothing can be kept away from it; leave it out of the "
                "held-out ones, or add its pose."
            )
    return Near(library.poses(gestures), near_rad)


def poses_near(windows: WindowSet, which: Index, poses: Floats, near_rad: float) -> Mask:
    """Whether the pose comes near one of `poses` anywhere in a window, or in the hop behind it, into which training moves it.

    Near is a root mean square of `near_rad` or less over the angles that both know; poses that know none in common are not
    near. A tracked hand without wrist angles is compared by its fingers alone, to which every gesture of the wrist is an
    open hand. The pose track is read in chunks, so that it may be a memory map.

    Args:
        which: int64 `[n]`, indices of windows; ascending ones are read the fastest.
        poses: float32 `[g, 23]`, radians, NaN where free.

    Returns: bool `[n]`.
    """
    near = np.zeros(len(which), np.bool_)
    for part in chunks(len(which)):
        first = windows.starts[which[part]] // windows.chain.hop
        moved = (windows.slack[which[part]] > 0).astype(np.int64)
        reach = np.arange(windows.frames + 1)
        frames, place = np.unique(
            first[:, None] + np.minimum(reach, windows.frames - 1 + moved[:, None]), return_inverse=True
        )
        near[part] = _any_near(windows.pose_track[frames], poses, near_rad)[place.reshape(len(first), -1)].any(axis=1)
    return near


def _any_near(track: Floats, poses: Floats, near_rad: float) -> Mask:
    """Whether each frame `[n, 23]` is near one of `poses`."""
    near = np.zeros(len(track), np.bool_)
    for pose in poses:
        away = np.square(track - pose)
        known = np.isfinite(away)
        count = known.sum(axis=1)
        near |= (count > 0) & (np.where(known, away, 0.0).sum(axis=1) <= near_rad**2 * count)
    return near
