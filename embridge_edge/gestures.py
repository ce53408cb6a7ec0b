"""The pose vector and the library that gives gestures a canonical pose.

The pose of a hand is 23 angles in radians: the 20 finger joints of emg2pose in its order, then three wrist
angles. Flexion, ulnar deviation and pronation are positive. An angle that nobody measured is NaN, and every loss
and score leaves it out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
FINGER_JOINTS = (
    "thumb_cmc_fe",
    "thumb_cmc_aa",
    "thumb_mcp_fe",
    "thumb_ip_fe",
    *(f"{finger}_{joint}" for finger in FINGERS[1:] for joint in ("mcp_aa", "mcp_fe", "pip_fe", "dip_fe")),
)
WRIST_ANGLES = ("wrist_flexion", "wrist_deviation", "wrist_pronation")
POSE = FINGER_JOINTS + WRIST_ANGLES

FULL_FLEXION_RAD: Mapping[str, float] = {
    "thumb_cmc_fe": 0.70,
    "thumb_mcp_fe": 0.96,
    "thumb_ip_fe": 1.40,
    **{
        f"{finger}_{joint}": angle
        for finger in FINGERS[1:]
        for joint, angle in (("mcp_fe", 1.57), ("pip_fe", 1.75), ("dip_fe", 1.22))
    },
}
"""Joint angles of a fully curled finger: the ranges of active motion of the AAOS (1965), rounded to a degree."""

# The active range of motion of the AAOS (1965), a little wider for abduction, where people vary.
_LIMITS: Mapping[str, tuple[float, float]] = {
    "thumb_cmc_fe": (-0.4, 0.9),
    "thumb_cmc_aa": (-0.3, 1.2),
    "thumb_mcp_fe": (-0.2, 1.0),
    "thumb_ip_fe": (-0.3, 1.5),
    **{f"{finger}_mcp_aa": (-0.45, 0.45) for finger in FINGERS[1:]},
    **{f"{finger}_mcp_fe": (-0.5, 1.62) for finger in FINGERS[1:]},
    **{f"{finger}_pip_fe": (-0.05, 1.85) for finger in FINGERS[1:]},
    **{f"{finger}_dip_fe": (-0.1, 1.35) for finger in FINGERS[1:]},
    "wrist_flexion": (-1.22, 1.40),
    "wrist_deviation": (-0.38, 0.60),
    "wrist_pronation": (-1.45, 1.45),
}
POSE_LIMITS_RAD = np.array([_LIMITS[name] for name in POSE])
"""Lowest and highest angle, float64 `[23, 2]`, radians."""

REST = "rest"
"""The gesture that comes between the others."""

AND = "+"
"""Joins the parts of a combination into its name: "flexion+pronation"."""

ATTRIBUTES: Mapping[str, str] = {
    "flexors": "the palmar muscles pull: the wrist bends forward, or fingers close",
    "extensors": "the dorsal muscles pull: the wrist bends back, or a finger stands out against others",
    "wrist_moves": "the wrist leaves its neutral posture",
    "wrist_flexed": "the palm comes towards the forearm",
    "wrist_extended": "the back of the hand comes towards the forearm",
    "thumb_side": "the hand tilts to the thumb's side (radial)",
    "little_side": "the hand tilts to the little finger's side (ulnar)",
    "forearm_turns": "the forearm leaves its neutral rotation",
    "palm_down": "the forearm is pronated",
    "palm_up": "the forearm is supinated",
    "fingers_move": "fingers leave their relaxed posture",
    "thumb_bent": "the thumb closes over the palm or towards a finger",
    "index_bent": "the index finger is bent",
    "middle_bent": "the middle finger is bent",
    "outer_bent": "ring and little finger are bent; they share tendons and muscle and hardly ever part",
    "thumb_out": "the thumb is held away from the palm",
    "index_out": "the index finger is held straight",
    "middle_out": "the middle finger is held straight",
    "spread": "neighbouring fingers are held apart",
}
"""The shipped vocabulary of attributes and what each says of a hand.

Some name what moves (wrist_moves), some where to (palm_up), some which side of the forearm pulls (flexors): the
coarse ones are what a gesture that nobody trained on shares with those that were. A library of one's own may use
other words.
"""

PoseArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Gesture:
    """A gesture's name, its canonical pose (float32 `[23]`, radians, NaN where free) and its attributes."""

    name: str
    pose: PoseArray
    attributes: tuple[str, ...]


@dataclass(frozen=True)
class GestureLibrary:
    """Gestures by name."""

    gestures: Mapping[str, Gesture]

    def gesture(self, name: str) -> Gesture | None:
        """A gesture, or None where the library does not know it.

        A combination of known ones, "flexion+pronation", needs no entry: its pose has the excursions of all its parts from
        rest (`combined_poses`), its attributes are those of all.
        """
        parts = name.split(AND)
        if name in self.gestures or len(parts) == 1:
            return self.gestures.get(name)
        known = [self.gestures[part] for part in parts if part in self.gestures]
        if REST not in self.gestures or len(known) < len(parts):
            return None
        pose = known[0].pose
        for part in known[1:]:
            pose = combined_poses(pose, part.pose, self.gestures[REST].pose)
        return Gesture(name, pose, tuple(dict.fromkeys(word for part in known for word in part.attributes)))

    def pose(self, name: str) -> PoseArray | None:
        """The canonical pose of a gesture, float32 `[23]` in radians, or None where the library does not know it."""
        gesture = self.gesture(name)
        return None if gesture is None else gesture.pose

    def poses(self, names: Sequence[str]) -> PoseArray:
        """Canonical poses of `names`, float32 `[names, 23]`; a row of NaN where the library knows none."""
        missing = np.full(len(POSE), np.nan, np.float32)
        found = [self.pose(name) for name in names]
        return (
            np.stack([missing if pose is None else pose for pose in found])
            if found
            else np.zeros((0, len(POSE)), np.float32)
        )

    def attribute_rows(self, names: Sequence[str]) -> tuple[tuple[str, ...], npt.NDArray[np.bool_]]:
        """Attributes of `names` as binary vectors.

        Returns: the vocabulary (every attribute that one of `names` has, in the order of first use) and bool
            `[names, vocabulary]`.

        Raises:
            EdgeError: the library lacks one of `names`.
        """
        found = [self.gesture(name) for name in names]
        unknown = [name for name, gesture in zip(names, found, strict=True) if gesture is None]
        if unknown:
            raise EdgeError(
                f"No attributes are known for {', '.join(unknown)}; give each a table with attributes in a gesture library."
            )
        own = [gesture.attributes for gesture in found if gesture is not None]
        vocabulary = tuple(dict.fromkeys(attribute for attributes in own for attribute in attributes))
        rows = [[attribute in attributes for attribute in vocabulary] for attributes in own]
        return vocabulary, np.array(rows, bool).reshape(len(names), len(vocabulary))


def combined_poses(first: PoseArray, second: PoseArray, rest: PoseArray) -> PoseArray:
    """Poses of combinations: the joints' excursions from rest add up, and end at the limits of active motion.

    Args:
        first, second: float32 `[..., 23]`, radians. rest: float32 `[23]`, the resting pose. NaN stays NaN.
    """
    return np.asarray(np.clip(first + second - rest, POSE_LIMITS_RAD[:, 0], POSE_LIMITS_RAD[:, 1]), np.float32)


def read_library(path: Path | None = None) -> GestureLibrary:
    """Read a gesture library; without a path, the one that is shipped.

    A gesture is a table: `curl` gives the flexion of fingers from 0 (straight) to 1 (full), `angles` single angles
    in radians, and `rest` is the pose that everything unnamed keeps.

    Raises:
        EdgeError: no TOML, or a joint, finger or key that does not exist.
    """
    try:
        text = (
            files("embridge_edge").joinpath("gestures.toml").read_text("utf-8")
            if path is None
            else path.read_text("utf-8")
        )
        tables = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise EdgeError(f"Gesture library {path}: {error}; write it like the shipped gestures.toml.") from None
    return GestureLibrary({name: _gesture(name, table, path) for name, table in tables.items()})


def _gesture(name: str, table: object, path: Path | None) -> Gesture:
    place = f"Gesture {name!r} in {path or 'the shipped library'}"
    if not isinstance(table, dict):
        raise EdgeError(f"{place} must be a table with curl, angles and attributes.")
    unknown = set(table) - {"curl", "angles", "attributes"}
    if unknown:
        raise EdgeError(f"{place}: unknown key {sorted(unknown)[0]!r}; use curl, angles or attributes.")
    curls, angles, attributes = table.get("curl", {}), table.get("angles", {}), table.get("attributes", [])
    if not (isinstance(curls, dict) and isinstance(angles, dict) and isinstance(attributes, list)):
        raise EdgeError(f"{place}: curl and angles must be tables and attributes a list; write it like gestures.toml.")
    pose = np.zeros(len(POSE), np.float32)
    for finger, curl in curls.items():
        if finger not in FINGERS:
            raise EdgeError(f"{place}: unknown finger {finger!r}; choose one of {', '.join(FINGERS)}.")
        if not (_is_number(curl) and 0 <= curl <= 1):
            raise EdgeError(f"{place}: curl of {finger} is {curl!r}; give 0 (straight) to 1 (full flexion).")
        for joint, full in FULL_FLEXION_RAD.items():
            if joint.startswith(finger):
                pose[POSE.index(joint)] = curl * full
    for angle, radians in angles.items():
        if angle not in POSE:
            raise EdgeError(f"{place}: unknown angle {angle!r}; choose one of {', '.join(POSE)}.")
        if not (_is_number(radians) and not abs(radians) > np.pi):  # NaN leaves an angle free
            raise EdgeError(f"{place}: {angle} is {radians!r}; give radians from −π to π.")
        pose[POSE.index(angle)] = radians
    return Gesture(name, pose, tuple(str(attribute) for attribute in attributes))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def pose_from_curls(curls: Mapping[str, npt.NDArray[np.float32]]) -> PoseArray:
    """Pose track from finger curls, float32 `[samples]` each, 1 straight and 0 fully curled.

    A curl c gives (1 − c) × full flexion in each flexion joint of its finger; everything else stays NaN.
    """
    samples = len(next(iter(curls.values())))
    pose = np.full((samples, len(POSE)), np.nan, np.float32)
    for finger, curl in curls.items():
        for joint, full in FULL_FLEXION_RAD.items():
            if joint.startswith(finger):
                pose[:, POSE.index(joint)] = (1.0 - curl) * full
    return pose


def pose_from_labels(
    labels: npt.NDArray[np.int16],
    names: Sequence[str],
    library: GestureLibrary,
    rate_hz: float,
    breaks: npt.NDArray[np.int64] | None = None,
    ramp_ms: float = 300.0,
) -> PoseArray:
    """Pose track for labelled EMG without tracking: canonical poses, joined by ramps where the label changes.

    The hand follows a prompt with a delay and needs time to move, so the pose goes from the old to the new one as a
    raised cosine over `ramp_ms` after the change; a change before the ramp's end starts another from where the hand is.
    A ramp ends at a clock jump. A gesture that the library does not know has a pose of NaN, and so has a ramp from or
    to it.

    Returns: float32 `[samples, 23]` in radians.
    """
    canonical = np.vstack([library.poses(names), np.full((1, len(POSE)), np.nan, np.float32)])
    track = canonical[labels]  # UNLABELLED, −1, is the row of NaN at the end
    ramp = max(1, round(ramp_ms * rate_hz / 1000.0))
    jumps = np.append(np.zeros(0, np.int64) if breaks is None else breaks, len(labels))
    for change in np.flatnonzero(labels[1:] != labels[:-1]) + 1:
        if change in jumps:
            continue
        stop = min(int(change) + ramp, int(jumps[np.searchsorted(jumps, change)]), len(labels))
        weight = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, stop - change + 1, dtype=np.float32) / ramp)
        before, after = track[change - 1].copy(), canonical[labels[change]]
        track[change:stop] = before + weight[:, None] * (after - before)
    return track
