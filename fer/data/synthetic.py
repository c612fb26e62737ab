"""Faces that the program draws: seven emotions built from facial action units, for use without any download.

A face is a set of outlines on an egg-shaped head. Identity (head, hair, eyes, nose, mouth, glasses, beard) sets where
the outlines rest, action units of the Facial Action Coding System (FACS) move them, and the camera (pose, framing,
light, occlusion, blur, noise) says how they are seen. Knows nothing of torch, files or networks.

Face coordinates: x to the viewer's right, y down, z towards the viewer; the origin lies between the eyes, and a length
of 1 is about half the head's width. In the drawing code, `s` is the side (-1 the viewer's left, 1 the right), and
arrays are (faces, points of one curve).
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from fer.data.faces import SIZE, SPLIT_NAMES, TEST, TRAIN, VAL, Faces
from fer.errors import UserError
from fer.labels import EMOTIONS

Array = npt.NDArray[np.floating]
Pixels = npt.NDArray[np.uint8]
Traits = Mapping[str, Array]  # (N,), in the drawing functions (N, 1): a value per face, by trait
Actions = Mapping[int, Array]  # the same by action unit: 0 at rest, about 1 at most

ACTION_UNITS: Final = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    12: "lip corner puller",
    15: "lip corner depressor",
    16: "lower lip depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    25: "lips part",
    26: "jaw drop",
}

# Each emotion's prototype (Ekman & Friesen, Facial Action Coding System, 1978, and its Investigator's Guide, 2002):
# the units that every face shows, and units of the prototype's variants, each shown by half of the faces.
# The strengths and the halves are ours.
PROTOTYPES: Final[dict[str, tuple[dict[int, float], dict[int, float]]]] = {
    "angry": ({4: 1.0, 5: 0.5, 7: 0.8, 23: 0.9}, {10: 0.6, 17: 0.5, 25: 0.7}),
    "disgust": ({9: 1.0, 10: 0.9, 15: 0.6, 16: 0.4}, {4: 0.5, 17: 0.6, 25: 0.4}),
    "fear": ({1: 1.0, 2: 0.5, 4: 0.7, 5: 1.0, 20: 1.0, 25: 0.7}, {26: 0.35}),
    "happy": ({6: 0.9, 12: 1.0}, {25: 0.8, 26: 0.3}),
    "sad": ({1: 1.0, 4: 0.7, 15: 1.0}, {6: 0.3, 17: 0.7}),
    "surprise": ({1: 1.0, 2: 1.0, 5: 0.9, 25: 0.5, 26: 1.0}, {}),
    "neutral": ({}, {}),
}

# What differs between two faces of one emotion, and its range. A trait in (0, 1) without a unit picks among kinds.
TRAITS: Final[dict[str, tuple[float, float]]] = {
    # identity
    "head_width": (0.92, 1.08),
    "chin": (1.18, 1.36),
    "jaw": (0.2, 0.42),  # how much the face narrows towards the chin
    "skin": (80.0, 220.0),  # gray value
    "hair": (0.0, 1.0),  # from black to white; dark is commoner
    "hair_style": (0.0, 1.0),
    "hairline": (0.62, 1.0),
    "parting": (-0.6, 0.6),
    "eye_distance": (0.40, 0.47),
    "eye_size": (0.19, 0.235),
    "eye_opening": (0.075, 0.105),
    "eye_slant": (-0.03, 0.045),
    "iris": (24.0, 120.0),  # gray value
    "brow_height": (0.25, 0.34),
    "brow_thickness": (0.03, 0.065),
    "brow_arch": (0.02, 0.09),
    "brow_tone": (0.22, 0.6),  # as a share of the skin's gray value
    "nose_length": (0.36, 0.46),
    "nose_width": (0.14, 0.21),
    "mouth_height": (0.70, 0.82),
    "mouth_width": (0.29, 0.37),
    "mouth_curve": (-0.025, 0.025),  # of the resting mouth
    "lip_fullness": (0.6, 1.3),
    "lip_tone": (0.55, 0.9),
    "age": (0.45, 1.0),  # depth of lines and folds
    "glasses": (0.0, 1.0),
    "beard": (0.0, 1.0),
    # expression
    "intensity": (0.35, 1.0),
    "asymmetry": (-0.18, 0.18),
    "gaze_x": (-0.05, 0.05),
    "gaze_y": (-0.025, 0.015),
    # pose (radians) and framing (shares of the picture's side)
    "roll": (-0.32, 0.32),
    "yaw": (-0.45, 0.45),
    "pitch": (-0.25, 0.22),
    "scale": (0.86, 1.1),
    "shift_x": (-0.1, 0.1),
    "shift_y": (-0.09, 0.09),
    # light
    "light_x": (-1.0, 1.0),
    "light_y": (-1.0, 0.5),
    "light_hardness": (0.1, 0.75),  # the share of directed light
    "contrast": (0.8, 1.5),
    "gamma": (0.55, 1.2),
    # the rest of the picture, and the camera
    "background": (10.0, 245.0),
    "background_slope": (-90.0, 90.0),
    "background_angle": (0.0, 2 * math.pi),
    "occluder": (0.0, 1.0),
    "occluder_x": (0.0, 1.0),
    "occluder_y": (0.0, 1.0),
    "occluder_angle": (0.0, 1.0),
    "occluder_tone": (0.0, 255.0),
    "blur": (0.0, 1.0),
    "noise": (0.0, 1.0),
}

# Faces come in blocks of this many, so that face i depends on (seed, split, i) alone, and each block is balanced.
BLOCK: Final = 10 * len(EMOTIONS)
CANVAS: Final = 2 * SIZE  # faces are drawn at twice their size and averaged down
HEAD: Final = 0.45  # face coordinates to shares of the picture's side
SHIFT: Final = 4  # fractional bits of the pixel coordinates given to OpenCV

_RING: Final = np.linspace(0, 2 * math.pi, 14, endpoint=False, dtype=np.float32)[None]
_COS: Final = np.cos(_RING)
_SIN: Final = np.sin(_RING)


def make_faces(train: int, val: int, test: int, seed: int) -> Faces:
    """Draws a data set of `train` + `val` + `test` faces, in which every emotion is equally frequent in each split.

    Face i of a split depends on the seed, the split and i alone: the same seed gives the same faces, and a larger count
    begins with the smaller one's faces. (Bit for bit with the same NumPy and OpenCV on the same kind of processor.)

    Returns:
        `Faces` in the order train, val, test; rows are named "synthetic_train_000000" and so on.

    Raises:
        UserError: a negative count or seed, or no face at all.
    """
    counts = {TRAIN: train, VAL: val, TEST: test}
    for split, count in counts.items():
        if count < 0:
            raise UserError(f"synthetic faces: {count} {SPLIT_NAMES[split]} faces cannot be drawn; ask for 0 or more")
    if not any(counts.values()):
        raise UserError("synthetic faces: none were asked for; ask for at least one")
    if seed < 0:
        raise UserError(f"synthetic faces: the seed is {seed}; it must be 0 or more")
    images, labels, splits, rows = [], [], [], []
    for split, count in counts.items():
        for start in range(0, count, BLOCK):
            block_images, block_labels = _make_block(seed, split, start // BLOCK)
            images.append(block_images[: count - start])
            labels.append(block_labels[: count - start])
        splits.append(np.full(count, split, np.int8))
        rows += [f"synthetic_{SPLIT_NAMES[split]}_{i:06d}" for i in range(count)]
    return Faces(np.concatenate(images), np.concatenate(labels), np.concatenate(splits), np.array(rows, np.str_))


def _make_block(seed: int, split: int, block: int) -> tuple[Pixels, npt.NDArray[np.int64]]:
    rng = np.random.default_rng([seed, split, block])
    labels = np.concatenate([rng.permutation(len(EMOTIONS)) for _ in range(BLOCK // len(EMOTIONS))])
    traits = draw_traits(rng, BLOCK)
    actions = draw_actions(rng, labels, traits["intensity"])
    return render(traits, actions, rng), labels


def draw_traits(rng: np.random.Generator, count: int) -> dict[str, Array]:
    """Identity, pose, light and the rest of `count` faces: float32 (count,) by name, uniform in its range."""
    uniform = rng.random((len(TRAITS), count), np.float32)
    traits = {
        name: low + (high - low) * values for (name, (low, high)), values in zip(TRAITS.items(), uniform, strict=True)
    }
    # People mostly face the camera: large angles are rarer than small ones.
    for name in ("roll", "yaw", "pitch"):
        traits[name] = traits[name] * np.sqrt(rng.random(count, np.float32))
    return traits


def draw_actions(rng: np.random.Generator, labels: npt.NDArray[np.int64], intensity: Array) -> dict[int, Array]:
    """The strengths of the action units in faces that show `labels`: float32 (count,) by action unit.

    Every unit of the prototype scatters around its strength, and every face, neutral ones too, carries a little of
    everything, as resting faces do.
    """
    always, sometimes = np.zeros((2, len(EMOTIONS), len(ACTION_UNITS)), np.float32)
    for emotion, name in enumerate(EMOTIONS):
        for table, strengths in zip((always, sometimes), PROTOTYPES[name], strict=True):
            table[emotion] = [strengths.get(unit, 0.0) for unit in ACTION_UNITS]
    shape = (len(labels), len(ACTION_UNITS))
    shown = always[labels] + sometimes[labels] * (rng.random(shape, np.float32) < 0.5)
    scatter = 0.5 + 0.7 * rng.random(shape, np.float32)
    rest = 0.2 * rng.random(shape, np.float32) ** 2
    strengths = np.clip(shown * intensity[:, None] * scatter + rest, 0, 1.1)
    return {unit: strengths[:, column] for column, unit in enumerate(ACTION_UNITS)}


def outlines(traits: Traits, actions: Actions) -> dict[str, Array]:
    """Where the features of each face lie, before pose: (N, points, 3) in face coordinates, by feature.

    Features that come in pairs are named "left_..." and "right_..." as the viewer sees them.
    """
    t = {name: values[:, None] for name, values in traits.items()}
    a = {unit: values[:, None] for unit, values in actions.items()}
    found = _head(t, a) | _nose(t, a) | _mouth(t, a)
    for side, s in (("left", -1.0), ("right", 1.0)):
        pair = _eye(t, a, s) | _brow(t, a, s) | _cheek(t, a, s)
        found |= {f"{side}_{name}": points for name, points in pair.items()}
    count = len(traits["skin"])
    return {name: np.broadcast_to(points, (count, *points.shape[1:])) for name, points in found.items()}


def _on_head(x: Array, y: Array, lift: float = 0.0) -> Array:
    """Puts a flat curve onto the head's surface, or `lift` before it."""
    depth = 0.85 * np.sqrt(np.maximum(0.0, 1 - (x / 1.1) ** 2 - ((y - 0.15) / 1.55) ** 2)) + lift
    return np.stack(np.broadcast_arrays(x, y, depth), axis=-1)


def _row(*values: float) -> Array:
    return np.array([values], np.float32)


def _ramp(start: float, stop: float, points: int) -> Array:
    return np.linspace(start, stop, points, dtype=np.float32)[None]


def _closed(x: Array, y: Array, back_x: Array, back_y: Array, lift: float = 0.0) -> Array:
    """The outline that runs along one curve and then along another."""

    def joined(there: Array, back: Array) -> Array:
        faces = max(len(there), len(back))
        return np.concatenate([np.broadcast_to(part, (faces, part.shape[1])) for part in (there, back)], axis=1)

    return _on_head(joined(x, back_x), joined(y, back_y), lift)


def _between(x: Array, upper: Array, lower: Array, lift: float = 0.0) -> Array:
    """The area between two curves over the same x."""
    return _closed(x, upper, x[:, ::-1], lower[:, ::-1], lift)


def _head(t: Traits, a: Actions) -> dict[str, Array]:
    """Skull, jaw, neck, ears, hair, beard, and the forehead's lines."""
    ring = _ramp(0, 2 * math.pi * 31 / 32, 32)
    side, down = np.cos(ring), np.sin(ring)
    below = np.maximum(down, 0)
    width, chin = t["head_width"], t["chin"] + 0.16 * a[26]
    jaw_width = width * (1 - t["jaw"] * below**2)
    round_side = np.sign(side) * np.abs(side) ** (1 - 0.35 * below)  # a jaw is squarer than a skull
    skull = _ramp(math.pi * 1.06, math.pi * 1.94, 12)
    across = _ramp(0.93, -0.93, 12)
    hairline = -t["hairline"] * (1 - 0.9 * across**4) + 0.08 * np.cos(4 * (across - t["parting"]))
    fringe = -0.5 - 0.1 * np.cos(9 * across + 8 * t["parting"]) + 0.12 * np.abs(across - t["parting"])
    under = _ramp(0, math.pi, 17)
    low = np.maximum(0, np.sin(under))
    cheeks = _ramp(-1, 1, 9)
    wrinkle = _ramp(-0.5, 0.5, 7)
    bend = 0.06 * np.cos(5 * wrinkle) * (a[1] - a[2])
    lifted = 0.1 * wrinkle**2 - t["brow_height"] - 0.08 * a[2] - 0.06 * a[1] - bend
    return {
        "head": _on_head(jaw_width * round_side, np.where(down > 0, chin, 1.25) * down, -0.3),
        "neck": _on_head(_row(-0.62, 0.62, 0.71, -0.71), _row(0.8, 0.8, 2.4, 2.4), -0.6),
        "left_ear": _on_head(-width - 0.02 - 0.11 * _COS, 0.14 + 0.24 * _SIN, -0.35),
        "right_ear": _on_head(width + 0.02 + 0.11 * _COS, 0.14 + 0.24 * _SIN, -0.35),
        "hair_back": _on_head(1.22 * width * side, np.where(down > 0, 1.7, 1.45) * down, -0.7),
        "hair_top": _closed(1.1 * width * np.cos(skull), 1.4 * np.sin(skull), width * across, hairline, -0.05),
        "hair_fringe": _closed(1.1 * width * np.cos(skull), 1.4 * np.sin(skull), width * across, fringe, -0.05),
        "forehead_low": _on_head(wrinkle, lifted - 0.16),
        "forehead_high": _on_head(wrinkle, lifted - 0.28),
        "chin_boss": _on_head(0.2 * _COS, chin - 0.2 - 0.04 * a[17] + 0.09 * _SIN),
        "beard": _closed(
            width * (1 - t["jaw"] * low**2) * np.cos(under),
            0.25 + (chin - 0.22) * low,
            0.97 * width * cheeks,
            0.66 - 0.42 * np.abs(cheeks) ** 5,
            -0.05,
        ),
    }


def _eye(t: Traits, a: Actions, s: float) -> dict[str, Array]:
    """One eye: lids, iris between them, the skin around it, and glasses before it. `u` runs from the nose outwards."""
    more = 1 + s * t["asymmetry"]
    centre, size = t["eye_distance"], t["eye_size"]
    squint = np.clip(0.55 * a[6] + 0.6 * a[7] + 0.45 * a[9], 0, 0.95) * more
    # Raised inner brows alone let the outer lid sag, as in sadness.
    droop = np.clip(0.9 * a[1] - 0.9 * a[2] + 0.5 * a[15] - 0.9 * a[9] - 1.2 * a[5], 0, 1)
    height = t["eye_opening"] * (1 - 0.28 * squint) + 0.095 * a[5] * more - 0.02 * (a[4] + a[9]) - 0.035 * droop
    depth = 0.075 * (1 - 0.75 * squint) + 0.01 * a[5] - 0.05 * a[6]

    def lids(u: Array) -> tuple[Array, Array]:
        arch = np.maximum(0, 1 - np.abs(u) ** 2.2)
        slant = (0.03 * droop - t["eye_slant"]) * u
        upper = slant - np.maximum(height, 0.012) * arch * (1 - 0.35 * droop * u)
        return upper, np.maximum(slant + depth * arch, upper + 0.015 * arch)

    u = _ramp(-1, 1, 11)
    x = s * (centre + size * u)
    upper, lower = lids(u)
    gaze = centre + s * t["gaze_x"]
    inner = slice(1, -1)
    found = {
        "eye": _between(x, upper, lower),
        "upper_lid": _on_head(x, upper),
        "lower_lid": _on_head(x, lower),
        "lid_crease": _on_head(x, upper - 0.055 + 0.03 * a[5] + 0.02 * np.abs(u)),
        "pouch": _on_head(x[:, inner], (lower + 0.09 - 0.03 * np.abs(u) ** 2.2)[:, inner]),
        "glint": _on_head(s * gaze - 0.03, t["gaze_y"] - 0.025),
        "socket": _on_head(s * (centre + 1.35 * size * _COS), -0.10 + 0.17 * _SIN - 0.04 * a[2]),
        "crow_high": _on_head(s * (centre + size + _row(0.03, 0.15)), _row(-0.01, -0.09)),
        "crow_low": _on_head(s * (centre + size + _row(0.03, 0.15)), _row(0.025, 0.09)),
        "temple": _on_head(s * _row(0.74, 1.05), _row(-0.03, -0.08), 0.02),
        "glasses": _on_head(
            s * (centre + 0.31 * np.sign(_COS) * np.abs(_COS) ** 0.6),  # a rounded square
            0.04 + 0.25 * np.sign(_SIN) * np.abs(_SIN) ** 0.6,
            0.12,
        ),
    }
    for name, radius in (("iris", 0.095), ("pupil", 0.045)):
        # The lids cut it off: its outline is held between them.
        u = np.clip((gaze + radius * _COS - centre) / size, -1, 1)
        found[name] = _on_head(s * (centre + size * u), np.clip(t["gaze_y"] + radius * _SIN, *lids(u)))
    return found


def _brow(t: Traits, a: Actions, s: float) -> dict[str, Array]:
    """One eyebrow, a stroke through three points that the muscles move, and the frown line beside it."""
    more = 1 + s * t["asymmetry"]
    raise_inner, raise_outer = a[1] * more, a[2] * more
    # Where the inner brow is raised as well, the brow lowerer mostly draws it inwards.
    lower, resisted = a[4] * more, np.minimum(a[1], 1)
    inner = -0.20 * raise_inner + 0.20 * lower * (1 - 0.85 * resisted) + 0.11 * a[9]
    middle = -0.10 * raise_inner - 0.15 * raise_outer + 0.09 * lower * (1 - 0.5 * resisted) + 0.09 * a[9]
    outer = -0.13 * raise_outer - 0.03 * lower * (1 - resisted) + 0.04 * a[9]
    outer = outer + 0.05 * a[1] * np.maximum(0, 1 - 2 * a[2])  # oblique brows, as in sadness
    inner_x, outer_x = 0.15 - 0.07 * a[4], t["eye_distance"] + 0.30
    inner, outer = inner - t["brow_height"], outer - t["brow_height"] + 0.03
    middle = middle - t["brow_height"] - t["brow_arch"]
    u = _ramp(0, 1, 8)
    b0, b1, b2 = (1 - u) ** 2, 2 * u * (1 - u), u**2
    control = 2 * middle - 0.5 * (inner + outer)  # of the Bezier curve that passes through the middle
    x = s * (b0 * inner_x + b1 * (0.45 * inner_x + 0.55 * outer_x) + b2 * outer_x)
    y = b0 * inner + b1 * control + b2 * outer
    half = t["brow_thickness"] * (0.75 + 0.6 * u) * (1 - 0.8 * u**3)
    return {
        "brow": _between(x, y - half, y + half, 0.04),
        "frown": _on_head(s * (inner_x - _row(0.05, 0.04)), inner + _row(-0.10, 0.10)),
    }


def _nose(t: Traits, a: Actions) -> dict[str, Array]:
    """Nose, its shadows and wrinkles, and the glasses' bridge. Wrinkling pulls the nose up and spreads it."""
    wing_x, wing_y = _nose_wing(t, a)
    u = _ramp(-1, 1, 9)
    bridge = _ramp(-1, 1, 5)
    found = {
        "nose_base": _on_head(wing_x * u, wing_y + 0.045 - 0.05 * u**2 - 0.02 * np.cos(6 * u), 0.12),
        "nose_tip": _on_head(0.6 * wing_x * _COS, wing_y - 0.06 + 0.07 * _SIN, 0.25),
        "nose_ridge": _on_head(_row(-0.02, 0.02, 0.035, -0.035), _row(-0.05, -0.05, 0.27, 0.27), 0.2),
        "nose_bridge": _on_head(_row(-0.13, 0.13), _row(-0.02, -0.02), 0.15),
        "bridge_low": _on_head(0.12 * bridge, 0.12 + 0.05 * bridge**2, 0.12),
        "bridge_high": _on_head(0.12 * bridge, 0.05 * bridge**2, 0.12),
    }
    flare = _row(0.0, 0.06, 0.13)
    for side, s in (("left", -1.0), ("right", 1.0)):
        found[f"{side}_nostril"] = _on_head(s * (0.5 * wing_x + 0.04 * _COS), wing_y + 0.02 + 0.02 * _SIN, 0.15)
        found[f"{side}_nose_wrinkle"] = _on_head(s * (0.10 + flare), 0.10 + 1.1 * flare - 0.03 * a[9], 0.08)
        found[f"{side}_nose_side"] = _closed(
            s * _row(0.05, 0.10), _row(-0.12, -0.08), s * wing_x * _row(1.05, 0.5), wing_y - _row(0.0, 0.03), 0.1
        )
    return found


def _nose_wing(t: Traits, a: Actions) -> tuple[Array, Array]:
    return t["nose_width"] * (1 + 0.2 * a[9] + 0.08 * a[12]), t["nose_length"] - 0.09 * a[9] - 0.03 * a[10]


def _mouth(t: Traits, a: Actions) -> dict[str, Array]:
    """Lips, what is seen between them, and the folds that run from the nose to the mouth's corners."""
    u = _ramp(-1, 1, 15)  # from corner to corner
    hump = 1 - u**2
    # The jaw narrows the mouth to an O unless the lips are pulled apart; bared teeth square it.
    stretch = 0.24 * a[12] + 0.26 * a[20] - 0.10 * a[23] + 0.25 * a[23] * a[25] - 0.05 * a[17]
    stretch = stretch - 0.30 * a[26] * np.maximum(0, 1 - 1.3 * a[12] - 1.3 * a[20])
    half_width = t["mouth_width"] * (1 + stretch)
    corner = -0.19 * a[12] + 0.17 * a[15] + 0.12 * a[20] + 0.05 * a[23] + t["mouth_curve"]
    height = t["mouth_height"] + 0.09 * a[26] - 0.05 * a[17] - 0.04 * a[9] - 0.03 * a[10]
    line = height + corner * (1 + t["asymmetry"] * u) * np.abs(u) ** 1.7 - 0.05 * a[17] * hump
    opening = np.maximum(0, 1 - np.abs(u) ** (2.2 + 4 * np.minimum(a[20] + a[23], 1))) ** 0.5
    up = (0.025 * a[25] + 0.07 * a[26]) * opening + 0.10 * a[10] * hump
    down = (0.075 * a[25] + 0.27 * a[26] + 0.07 * a[16] * (0.4 + a[25])) * opening
    # While nothing parts the lips, the lower one follows the upper one.
    together = np.clip(1 - 2.5 * (a[25] + a[26]), 0, 1)
    upper_in = line - up
    lower_in = line + down * (1 - together) - up * together
    thin = np.clip(1 - 0.55 * a[23] - 0.25 * a[12] - 0.2 * a[20], 0.25, 1) * t["lip_fullness"]
    bow = 1 - 0.22 * np.exp(-((u / 0.18) ** 2))
    upper_out = upper_in - 0.085 * thin * bow * (1 - np.abs(u) ** 2.4)
    lower_out = lower_in + (0.125 * thin * (1 + 0.3 * a[17]) + 0.05 * a[16]) * (1 - np.abs(u) ** 2.6)
    x = half_width * u
    gap = lower_in - upper_in
    upper_teeth = upper_in + np.minimum(0.10 - 0.07 * np.minimum(a[26], 1) * np.maximum(0, 1 - a[12]), 0.8 * gap)
    lower_teeth = np.maximum(lower_in - 0.06 * (a[16] + a[20] + a[23]), upper_teeth)
    tongue = np.maximum(lower_in - 0.12, upper_in + 0.6 * gap)
    wing_x, wing_y = _nose_wing(t, a)
    whisker = _ramp(1, -1, 9)
    tips = wing_y + 0.12 + (0.08 + 0.4 * (corner + height - t["mouth_height"])) * whisker**2
    found = {
        "lips": _between(x, upper_out, lower_out, 0.05),
        "mouth": _between(x, upper_in, lower_in, 0.05),
        "mouth_line": _on_head(x, 0.5 * (upper_in + lower_in), 0.05),
        "upper_teeth": _between(0.93 * x, upper_in, upper_teeth, 0.05),
        "lower_teeth": _between(0.85 * x, lower_teeth, lower_in, 0.05),
        "tongue": _between(0.6 * x, tongue, lower_in, 0.05),
        "under_lip": _on_head(x[:, 4:11], lower_out[:, 4:11] + 0.045, 0.02),
        "moustache": _closed(
            1.1 * half_width * whisker, tips, -0.8 * half_width * whisker, upper_out[:, 3:12] + 0.01, 0.06
        ),
    }
    along = _row(0.0, 0.35, 0.7, 1.0)
    bulge = 0.05 * np.sin(math.pi * along) * (a[12] + a[9])
    for side, s, at in (("left", -1.0, slice(0, 1)), ("right", 1.0, slice(14, 15))):
        corner_y = line[:, at]
        found[f"{side}_corner"] = _on_head(s * (half_width + _row(-0.01, 0.05)), corner_y + 0.05 * a[15])
        found[f"{side}_fold"] = _on_head(
            s * (wing_x + 0.05 + (half_width + 0.09 - wing_x) * along + bulge),
            wing_y - 0.06 + (corner_y + 0.08 - wing_y) * along,
        )
    return found


def _cheek(t: Traits, a: Actions, s: float) -> dict[str, Array]:
    """One cheek's bulge and hollow."""
    return {
        "cheek": _on_head(s * (0.52 + 0.17 * _COS), 0.33 - 0.06 * a[6] + 0.12 * _SIN, 0.05),
        "hollow": _on_head(s * (0.72 + 0.12 * _COS), 0.62 + 0.22 * _SIN),
    }


def project(found: Mapping[str, Array], traits: Traits) -> dict[str, npt.NDArray[np.int32]]:
    """Turns the heads to their pose and puts them into the picture.

    Returns:
        The same features as int32 (N, points, 2): x, y on the canvas in units of 2**-SHIFT pixels.
    """
    xyz = np.concatenate(list(found.values()), axis=1)
    x, y, z = xyz[..., 0], xyz[..., 1] - 0.25, xyz[..., 2] - 0.4  # heads turn about their middle
    yaw, pitch, roll = (traits[name][:, None] for name in ("yaw", "pitch", "roll"))
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    y = y * np.cos(pitch) + z * np.sin(pitch)
    x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
    length = CANVAS * HEAD * traits["scale"][:, None]
    x = CANVAS * (0.5 + traits["shift_x"][:, None]) + length * x
    y = CANVAS * (0.5 + traits["shift_y"][:, None]) + length * y
    pixels = np.rint(np.stack([x, y], axis=-1) * 2**SHIFT).astype(np.int32)
    ends = np.cumsum([points.shape[1] for points in found.values()])[:-1]
    # OpenCV wants each face's points in one piece of memory.
    return {name: np.ascontiguousarray(part) for name, part in zip(found, np.split(pixels, ends, axis=1), strict=True)}


def render(traits: Traits, actions: Actions, rng: np.random.Generator) -> Pixels:
    """Draws the faces: uint8 (N, 48, 48). `rng` gives what has no name: clutter, hair strands, sensor noise."""
    features = project(outlines(traits, actions), traits)
    canvases = _backgrounds(traits)
    count = len(canvases)
    clutter = rng.random((count, 16)).tolist()
    values = np.stack(list(traits.values()), axis=1).tolist()
    strengths = np.stack(list(actions.values()), axis=1).tolist()
    pictures = np.empty((count, SIZE, SIZE), np.uint8)
    for i, canvas in enumerate(canvases):
        f = {name: points[i] for name, points in features.items()}
        t = dict(zip(traits, values[i], strict=True))
        _draw_clutter(canvas, clutter[i])
        _draw_face(canvas, f, t, dict(zip(actions, strengths[i], strict=True)))
        _draw_hair(canvas, f, t, clutter[i])
        _draw_occluder(canvas, f, t, clutter[i])
        pictures[i] = _scale_down(canvas, t["blur"])
    return _expose(pictures, traits, rng)


def _backgrounds(traits: Traits) -> Pixels:
    """Slopes of gray: uint8 (N, CANVAS, CANVAS)."""
    ramp = np.linspace(-1, 1, CANVAS, dtype=np.float32)
    slope, angle = traits["background_slope"][:, None], traits["background_angle"][:, None]
    columns = traits["background"][:, None] + slope * np.cos(angle) * ramp
    rows = slope * np.sin(angle) * ramp
    gray: Array = np.clip(columns[:, None, :] + rows[:, :, None], 0, 255)
    return gray.astype(np.uint8)


def _draw_clutter(canvas: Pixels, clutter: list[float]) -> None:
    """A box and a disc that may stand behind the head."""
    at = [int((CANVAS << SHIFT) * value) for value in clutter[:6]]
    if clutter[6] < 0.6:
        cv2.rectangle(canvas, (at[0], at[1]), (at[2], at[3]), 255 * clutter[7], -1, cv2.LINE_AA, SHIFT)
    if clutter[8] < 0.4:
        cv2.circle(canvas, (at[4], at[5]), at[0] // 2, 255 * clutter[9], -1, cv2.LINE_AA, SHIFT)


def _hair_tone(t: Mapping[str, float]) -> float:
    return 12 + 190 * math.pow(t["hair"], 2.5)


def _draw_face(
    canvas: Pixels, f: Mapping[str, npt.NDArray[np.int32]], t: Mapping[str, float], a: Mapping[int, float]
) -> None:
    """Draws head, features and glasses, from the back to the front."""

    def fill(name: str, tone: float) -> None:
        cv2.fillPoly(canvas, [f[name]], tone, cv2.LINE_AA, SHIFT)

    def stroke(name: str, tone: float, thickness: int = 1, closed: bool = False) -> None:
        cv2.polylines(canvas, [f[name]], closed, tone, thickness, cv2.LINE_AA, SHIFT)

    skin, hair = t["skin"], _hair_tone(t)
    if t["hair_style"] < 0.4:
        fill("hair_back", hair)
    fill("neck", 0.8 * skin)
    for side in ("left", "right"):
        fill(f"{side}_ear", 0.86 * skin)
    fill("head", skin)
    _shade_skin(canvas, f, t, a)

    stroke("nose_base", 0.7 * skin, 2)
    for side in ("left", "right"):
        fill(f"{side}_nostril", 0.36 * skin)

    if t["beard"] > 0.9:
        fill("beard", min(0.45 * hair + 0.3 * skin, 0.75 * skin))
    fill("lips", skin * t["lip_tone"])
    fill("mouth", 0.15 * skin + 8)
    parted, clenched = a[25] + a[26] > 0.4, max(a[16], a[20], a[23]) > 0.3
    if parted:
        fill("tongue", 0.45 * skin)
        fill("upper_teeth", 225 - 60 * max(0.0, a[26] - 0.4) * (1 - a[12]))  # a dropped jaw alone hides them
        if clenched:
            fill("lower_teeth", 205)
    if not parted or clenched:
        stroke("mouth_line", 0.3 * skin)
    for side in ("left", "right"):
        stroke(f"{side}_corner", 0.5 * skin)
    if t["beard"] > 0.84:
        fill("moustache", min(0.5 * hair + 0.25 * skin, 0.7 * skin))

    for side in ("left", "right"):
        fill(f"{side}_eye", min(240.0, 130 + 0.5 * skin))
        fill(f"{side}_iris", t["iris"])
        fill(f"{side}_pupil", 8)
        stroke(f"{side}_lid_crease", 0.7 * skin)
        stroke(f"{side}_lower_lid", 0.55 * skin)
        stroke(f"{side}_upper_lid", 0.2 * skin, 2)
        cv2.circle(canvas, f[f"{side}_glint"][0].tolist(), 12, 250, -1, cv2.LINE_AA, SHIFT)
        fill(f"{side}_brow", min(hair, t["brow_tone"] * skin))

    if t["glasses"] > 0.84:
        frame, thickness = (230.0, 1) if t["glasses"] > 0.97 else (25.0, 1 + (t["glasses"] > 0.9))
        for side in ("left", "right"):
            stroke(f"{side}_glasses", frame, thickness, closed=True)
            stroke(f"{side}_temple", frame, thickness)
        stroke("nose_bridge", frame, thickness)


def _shade_skin(
    canvas: Pixels, f: Mapping[str, npt.NDArray[np.int32]], t: Mapping[str, float], a: Mapping[int, float]
) -> None:
    """Softly darkens and lightens the skin: the resting face's relief, and the folds that the muscles press into it."""
    factor = np.full((SIZE, SIZE), 128, np.uint8)  # 128 leaves the skin as it is

    def area(name: str, change: float) -> None:
        cv2.fillPoly(factor, [f[name]], 128 + change, cv2.LINE_AA, SHIFT + 1)

    def crease(name: str, change: float, thickness: int = 1) -> None:
        cv2.polylines(factor, [f[name]], False, 128 + change, thickness, cv2.LINE_AA, SHIFT + 1)

    age, sides = t["age"], ("left", "right")
    for side in sides:
        area(f"{side}_hollow", -8)
        area(f"{side}_socket", -22 - 10 * a[4])
        area(f"{side}_cheek", 4 + 16 * a[6])
    area("left_nose_side" if t["light_x"] > 0 else "right_nose_side", -22)
    area("nose_ridge", 12)
    area("nose_tip", 10)
    area("chin_boss", 6 - 22 * a[17])
    crease("under_lip", -26 - 12 * a[17], 2)
    if 0.6 < t["beard"] < 0.84:  # stubble
        area("beard", -20)
    fold = 14 * age + 34 * max(a[12], a[9], 0.6 * a[10])
    for side in sides:
        crease(f"{side}_fold", -fold, 1 if fold < 30 else 2)
        if a[4] > 0.25:
            crease(f"{side}_frown", -60 * a[4] * age)
        if a[6] + a[7] > 0.3:
            crease(f"{side}_pouch", -22 * min(1.0, a[6] + 0.6 * a[7]) * (0.5 + age))
        if a[6] > 0.4:
            crease(f"{side}_crow_high", -40 * a[6] * age)
            crease(f"{side}_crow_low", -40 * a[6] * age)
        if a[9] > 0.25:
            crease(f"{side}_nose_wrinkle", -60 * a[9])
    if a[9] > 0.25:
        crease("bridge_low", -70 * a[9])
        crease("bridge_high", -70 * a[9])
    raised = max(a[1], a[2])
    if raised > 0.3:
        crease("forehead_low", -45 * raised * age)
        crease("forehead_high", -45 * raised * age)
    cv2.blur(factor, (2, 2), factor)
    cv2.multiply(canvas, cv2.resize(factor, (CANVAS, CANVAS), interpolation=cv2.INTER_LINEAR), canvas, 1 / 128)


def _draw_hair(
    canvas: Pixels, f: Mapping[str, npt.NDArray[np.int32]], t: Mapping[str, float], clutter: list[float]
) -> None:
    """Hair above the forehead, over it as a fringe, or none."""
    style, tone = t["hair_style"], _hair_tone(t)
    if style > 0.88:
        return
    hair = f["hair_fringe" if 0.2 < style < 0.45 else "hair_top"]
    cv2.fillPoly(canvas, [hair], tone, cv2.LINE_AA, SHIFT)
    for value in clutter[10:14]:
        crown = 1 + int(10 * value)
        strand = hair[[crown, 23 - crown]]  # the outline's points mirror each other: crown to hairline
        cv2.polylines(canvas, [strand], False, min(255.0, 1.3 * tone + 14), 1, cv2.LINE_AA, SHIFT)


def _draw_occluder(
    canvas: Pixels, f: Mapping[str, npt.NDArray[np.int32]], t: Mapping[str, float], clutter: list[float]
) -> None:
    """Puts something before one face in four: fingers, a bar, a lock of hair, or a caption."""
    kind, tone = t["occluder"], t["occluder_tone"]
    side, outwards = ("left", -1) if t["occluder_x"] < 0.5 else ("right", 1)
    if kind < 0.10:  # fingers on the cheek
        skin = t["skin"] * (0.8 + tone / 1000)
        tip = f[f"{side}_hollow"][0]
        reach = np.array([outwards * (12 + 48 * t["occluder_angle"]), 90])
        for finger in range(4):
            start = tip + np.array([outwards * (9 * finger - 4), 3 * (finger - 1) ** 2]) * 2**SHIFT
            line = np.stack([start, start + reach * 2**SHIFT]).astype(np.int32)
            cv2.polylines(canvas, [line], False, 0.55 * skin, 11, cv2.LINE_AA, SHIFT)
            cv2.polylines(canvas, [line], False, skin, 8, cv2.LINE_AA, SHIFT)
    elif kind < 0.14:  # a pole, a microphone's stand, a strap
        middle = CANVAS * np.array([0.1 + 0.8 * t["occluder_x"], 0.15 + 0.7 * t["occluder_y"]])
        angle = math.pi * t["occluder_angle"]
        along = 2 * CANVAS * np.array([math.cos(angle), math.sin(angle)])
        line = np.rint(np.stack([middle - along, middle + along]) * 2**SHIFT).astype(np.int32)
        cv2.polylines(canvas, [line], False, tone, 4 + int(6 * clutter[14]), cv2.LINE_AA, SHIFT)
    elif kind < 0.19:  # a lock of hair over an eye's outer half
        u = np.linspace(0, 1, 8)[:, None]
        crown, temple, tip = f["hair_top"][6], f[f"{side}_temple"][1], f[f"{side}_hollow"][0]
        spine = (1 - u) ** 2 * crown + 2 * u * (1 - u) * temple + u**2 * tip
        width = np.concatenate([outwards * 8 * 2**SHIFT * np.sin(math.pi * u) * (0.4 + 0.6 * u), 0 * u], axis=1)
        lock = np.rint(np.concatenate([spine - width, (spine + width)[::-1]])).astype(np.int32)
        cv2.fillPoly(canvas, [lock], _hair_tone(t), cv2.LINE_AA, SHIFT)
    elif kind < 0.25:  # a caption, as stock photographs carry
        at = (int(CANVAS * (0.5 * t["occluder_x"] - 0.1)), int(CANVAS * (0.2 + 0.75 * t["occluder_y"])))
        text = "".join(chr(ord("a") + int(26 * value)) for value in clutter[:9])
        cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4 + 0.3 * clutter[14], tone, 1, cv2.LINE_AA)


def _scale_down(canvas: Pixels, blur: float) -> npt.NDArray[Any]:
    """The camera's optics: half of the pictures are sharp, some out of focus, some enlarged from a smaller one."""
    if blur > 0.85:
        low = int(SIZE * (1 - 3 * (blur - 0.85)))
        return cv2.resize(cv2.resize(canvas, (low, low), interpolation=cv2.INTER_AREA), (SIZE, SIZE))
    small = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (3, 3), 2 * (blur - 0.25)) if blur > 0.5 else small


def _expose(pictures: Pixels, traits: Traits, rng: np.random.Generator) -> Pixels:
    """Lights the heads as egg-shaped Lambertian bodies, then applies contrast, gamma and sensor noise."""
    t = {name: values[:, None, None] for name, values in traits.items()}
    grid = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE - 0.5
    x, y = (grid[None, None, :] - t["shift_x"]), (grid[None, :, None] - t["shift_y"])
    cos, sin = np.cos(t["roll"]) / (HEAD * t["scale"]), np.sin(t["roll"]) / (HEAD * t["scale"])
    x, y = (x * cos + y * sin) / 1.15, (y * cos - x * sin) / 1.4
    z = np.sqrt(np.maximum(1 - x * x - y * y, 0.02))
    light_x, light_y, light_z = t["light_x"], t["light_y"], np.float32(0.9)
    brightness = 1.35 / np.sqrt(light_x**2 + light_y**2 + light_z**2)
    lambert = np.maximum(0, (x * light_x + y * light_y + z * light_z) * brightness)
    gray = pictures * (1 - t["light_hardness"] + t["light_hardness"] * lambert)
    gray = 255 * (np.clip((gray - 128) * t["contrast"] + 128, 0, 255) / 255) ** t["gamma"]
    gray = gray + (1 + 7 * t["noise"] ** 4) * rng.standard_normal(gray.shape, np.float32)
    exposed: Array = np.clip(np.rint(gray), 0, 255)
    return exposed.astype(np.uint8)
