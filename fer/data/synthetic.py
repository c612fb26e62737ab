"""Faces that the program draws: seven emotions built from facial action units, for use without any download.

A face is a set of outlines on an egg-shaped head. Identity (head, hair, eyes, nose, mouth) sets where the outlines
rest, action units of the Facial Action Coding System (FACS) move them, and the camera (pose, framing, light, something
in the way, blur, noise) says how they are seen. Knows nothing of torch, files or networks.

Face coordinates: x to the viewer's right, y down, z towards the viewer; the origin lies between the eyes, and a length
of 1 is about half the head's width. In the drawing code, `s` is the side (-1 the viewer's left, 1 the right), and
arrays are (faces, points of one curve).
"""

import math
from collections.abc import Mapping
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from fer.data.faces import SIZE, SPLIT_NAMES, TEST, TRAIN, VAL, Faces
from fer.labels import EMOTIONS

Array = npt.NDArray[np.floating]
Pixels = npt.NDArray[np.uint8]
Traits = Mapping[str, Array]  # (N,), in the drawing functions (N, 1): a value per face, by trait
Actions = Mapping[int, Array]  # the same by action unit: 0 at rest, about 1 at most
Layers = Mapping[str, tuple[Array, int]]  # by feature: gray values (N,), and the line's width, 0 for an area

# 1 inner brow raiser, 2 outer brow raiser, 4 brow lowerer, 5 upper lid raiser, 6 cheek raiser, 7 lid tightener,
# 9 nose wrinkler, 10 upper lip raiser, 12 lip corner puller, 15 lip corner depressor, 16 lower lip depressor,
# 17 chin raiser, 20 lip stretcher, 23 lip tightener, 25 lips part, 26 jaw drop
ACTION_UNITS: Final = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 20, 23, 25, 26)

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

# What differs between two faces of one emotion, and its range.
TRAITS: Final[dict[str, tuple[float, float]]] = {
    # identity
    "head_width": (0.92, 1.08),
    "chin": (1.18, 1.36),
    "jaw": (0.2, 0.42),  # how much the face narrows towards the chin
    "skin": (80.0, 220.0),  # gray value
    "hair": (12.0, 200.0),  # gray value
    "hairline": (0.6, 1.2),  # the highest are bald
    "eye_distance": (0.40, 0.47),
    "eye_size": (0.19, 0.235),
    "eye_opening": (0.075, 0.105),
    "iris": (24.0, 120.0),  # gray value
    "brow_height": (0.25, 0.34),
    "brow_thickness": (0.03, 0.065),
    "brow_arch": (0.02, 0.09),
    "nose_length": (0.36, 0.46),
    "nose_width": (0.14, 0.21),
    "mouth_height": (0.70, 0.82),
    "mouth_width": (0.29, 0.37),
    "mouth_curve": (-0.025, 0.025),  # of the resting mouth
    "lip_fullness": (0.6, 1.3),
    "age": (0.45, 1.0),  # depth of lines and folds
    # expression
    "intensity": (0.35, 1.0),
    "asymmetry": (-0.18, 0.18),
    "gaze": (-0.05, 0.05),
    # pose (radians) and framing (shares of the picture's side)
    "roll": (-0.32, 0.32),
    "yaw": (-0.45, 0.45),
    "pitch": (-0.25, 0.22),
    "scale": (0.86, 1.1),
    "shift_x": (-0.1, 0.1),
    "shift_y": (-0.09, 0.09),
    # light, the rest of the picture, and the camera
    "light_x": (-1.0, 1.0),
    "light_y": (-1.0, 0.5),
    "light_hardness": (0.1, 0.75),  # the share of directed light
    "contrast": (0.8, 1.5),
    "gamma": (0.55, 1.2),
    "background": (10.0, 245.0),
    "background_slope": (-90.0, 90.0),
    "background_angle": (0.0, 2 * math.pi),
    "bar": (0.0, 4.0),  # below 1 something straight is in the way
    "bar_x": (0.1, 0.9),
    "bar_y": (0.1, 0.9),
    "bar_angle": (0.0, math.pi),
    "bar_tone": (0.0, 255.0),
    "blur": (0.0, 1.0),
    "noise": (0.0, 1.0),
}

# Faces come in blocks of this many, so that face i depends on (seed, split, i) alone, and each block is balanced.
BLOCK: Final = 10 * len(EMOTIONS)
CANVAS: Final = 2 * SIZE  # faces are drawn at twice their size and averaged down
HEAD: Final = 0.45  # face coordinates to shares of the picture's side
SHIFT: Final = 4  # fractional bits of the pixel coordinates given to OpenCV

_RING: Final = np.linspace(0, 2 * math.pi, 32, endpoint=False, dtype=np.float32)[None]
_COS: Final = np.cos(_RING)
_SIN: Final = np.sin(_RING)


def make_faces(train: int, val: int, test: int, seed: int) -> Faces:
    """Draws a data set of `train` + `val` + `test` faces, in which every emotion is equally frequent in each split.

    Face i of a split depends on the seed, the split and i alone: the same seed gives the same faces, and a larger count
    begins with the smaller one's faces. (Bit for bit with the same NumPy and OpenCV on the same kind of processor.)

    Returns:
        `Faces` in the order train, val, test; rows are named "synthetic_train_000000" and so on.
    """
    images, labels, splits, ids = [], [], [], []
    for split, count in ((TRAIN, train), (VAL, val), (TEST, test)):
        for start in range(0, count, BLOCK):
            rng = np.random.default_rng([seed, split, start // BLOCK])
            emotions = np.concatenate([rng.permutation(len(EMOTIONS)) for _ in range(BLOCK // len(EMOTIONS))])
            traits = draw_traits(rng, BLOCK)
            images.append(render(traits, draw_actions(rng, emotions, traits["intensity"]), rng)[: count - start])
            labels.append(emotions[: count - start])
        splits.append(np.full(count, split, np.int8))
        ids += [f"synthetic_{SPLIT_NAMES[split]}_{i:06d}" for i in range(count)]
    return Faces(np.concatenate(images), np.concatenate(labels), np.concatenate(splits), np.array(ids, np.str_))


def draw_traits(rng: np.random.Generator, count: int) -> dict[str, Array]:
    """Identity, pose, light and the rest of `count` faces: float32 (count,) by name, in its range."""
    uniform = dict(zip(TRAITS, rng.random((len(TRAITS), count), np.float32), strict=True))
    uniform["hair"] **= 2.5  # dark hair is commoner
    for name in ("roll", "yaw", "pitch"):  # people mostly face the camera
        uniform[name] = 0.5 + (uniform[name] - 0.5) * np.sqrt(rng.random(count, np.float32))
    return {name: low + (high - low) * uniform[name] for name, (low, high) in TRAITS.items()}


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
    found = _head(t, a) | _mouth(t, a)
    for side, s in (("left", -1.0), ("right", 1.0)):
        pair = _eye(t, a, s) | _brow(t, a, s) | _cheek(t, a, s)
        found |= {f"{side}_{name}": points for name, points in pair.items()}
    count = len(traits["skin"])
    return {name: np.broadcast_to(points, (count, *points.shape[1:])) for name, points in found.items()}


def _on_head(x: Array, y: Array, lift: float = 0.0) -> Array:
    """Puts a flat curve onto the head's surface, or `lift` before it."""
    depth = 0.85 * np.sqrt(np.maximum(0.0, 1 - (x / 1.1) ** 2 - ((y - 0.15) / 1.55) ** 2)) + lift
    return np.stack(np.broadcast_arrays(x, y, depth), axis=-1)


def _between(x: Array, upper: Array, lower: Array, lift: float = 0.0) -> Array:
    """The area between two curves over the same x."""
    x, upper, lower = np.broadcast_arrays(x, upper, lower)
    return _on_head(np.hstack([x, x[:, ::-1]]), np.hstack([upper, lower[:, ::-1]]), lift)


def _ramp(start: float, stop: float, points: int) -> Array:
    return np.linspace(start, stop, points, dtype=np.float32)[None]


def _head(t: Traits, a: Actions) -> dict[str, Array]:
    """Skull, jaw, neck, hair, chin, the forehead's lines, and the nose, which wrinkling pulls up and spreads."""
    below = np.maximum(_SIN, 0)
    chin = t["chin"] + 0.16 * a[26]
    across, u = _ramp(-0.95, 0.95, 13), _ramp(-1, 1, 9)
    wing_x, wing_y = _nose_wing(t, a)
    return {
        "neck": _between(0.66 * u, 0.8 + 0 * u, 2.4 + 0 * u, -0.6),
        "head": _on_head(
            t["head_width"] * (1 - t["jaw"] * below**2) * _COS, np.where(_SIN > 0, chin, 1.25) * _SIN, -0.3
        ),
        "hair": _between(
            1.06 * t["head_width"] * across,
            -1.4 * np.sqrt(1 - (0.95 * across) ** 2),
            -np.minimum(t["hairline"], 1.4 * np.sqrt(1 - across**2)) * (1 - 0.9 * across**4),
            -0.05,
        ),
        "forehead": _on_head(0.5 * u, 0.03 * u**2 - 0.2 - t["brow_height"] - 0.08 * a[2] - 0.06 * a[1]),
        "chin": _on_head(0.2 * _COS, chin - 0.2 - 0.04 * a[17] + 0.09 * _SIN),
        "nose_tip": _on_head(0.6 * wing_x * _COS, wing_y - 0.06 + 0.07 * _SIN, 0.25),
        "nose_base": _on_head(wing_x * u, wing_y + 0.045 - 0.05 * u**2 - 0.02 * np.cos(6 * u), 0.12),
        "nose_wrinkle": _on_head(0.14 * u, 0.1 + 0.05 * u**2, 0.12),
    }


def _nose_wing(t: Traits, a: Actions) -> tuple[Array, Array]:
    return t["nose_width"] * (1 + 0.2 * a[9] + 0.08 * a[12]), t["nose_length"] - 0.09 * a[9] - 0.03 * a[10]


def _eye(t: Traits, a: Actions, s: float) -> dict[str, Array]:
    """One eye: lids, iris between them, and the skin around it. `u` runs from the nose outwards."""
    centre, size = t["eye_distance"], t["eye_size"]
    squint = np.clip(0.55 * a[6] + 0.6 * a[7] + 0.45 * a[9], 0, 0.95) * (1 + s * t["asymmetry"])
    # Raised inner brows alone let the outer lid sag, as in sadness.
    droop = np.clip(0.9 * a[1] - 0.9 * a[2] + 0.5 * a[15] - 0.9 * a[9] - 1.2 * a[5], 0, 1)
    height = t["eye_opening"] * (1 - 0.28 * squint) + 0.095 * a[5] - 0.02 * (a[4] + a[9]) - 0.035 * droop
    depth = 0.075 * (1 - 0.75 * squint) + 0.01 * a[5] - 0.05 * a[6]

    def lids(u: Array) -> tuple[Array, Array]:
        arch = np.maximum(0, 1 - np.abs(u) ** 2.2)
        upper = 0.03 * droop * u - np.maximum(height, 0.012) * arch * (1 - 0.35 * droop * u)
        return upper, np.maximum(0.03 * droop * u + depth * arch, upper + 0.015 * arch)

    u = _ramp(-1, 1, 11)
    x = s * (centre + size * u)
    upper, lower = lids(u)
    # The lids cut off iris and pupil: their outlines are held between them.
    iris, pupil = (np.clip((s * t["gaze"] + radius * _COS) / size, -1, 1) for radius in (0.095, 0.045))
    return {
        "eye": _between(x, upper, lower),
        "iris": _on_head(s * (centre + size * iris), np.clip(0.095 * _SIN, *lids(iris))),
        "pupil": _on_head(s * (centre + size * pupil), np.clip(0.045 * _SIN, *lids(pupil))),
        "upper_lid": _on_head(x, upper),
        "lower_lid": _on_head(x, lower),
        "lid_crease": _on_head(x, upper - 0.055 + 0.03 * a[5] + 0.02 * np.abs(u)),
        "pouch": _on_head(x[:, 1:-1], (lower + 0.09 - 0.03 * np.abs(u) ** 2.2)[:, 1:-1]),
        "socket": _on_head(s * (centre + 1.35 * size * _COS), -0.10 + 0.17 * _SIN - 0.04 * a[2]),
    }


def _brow(t: Traits, a: Actions, s: float) -> dict[str, Array]:
    """One eyebrow, a stroke through three points that the muscles move, and the frown line beside it."""
    more = 1 + s * t["asymmetry"]
    # Where the inner brow is raised as well, the brow lowerer mostly draws it inwards.
    lower, resisted = a[4] * more, np.minimum(a[1], 1)
    inner = -0.20 * a[1] * more + 0.20 * lower * (1 - 0.85 * resisted) + 0.11 * a[9] - t["brow_height"]
    middle = (-0.10 * a[1] - 0.15 * a[2]) * more + 0.09 * lower * (1 - 0.5 * resisted) + 0.09 * a[9]
    middle = middle - t["brow_height"] - t["brow_arch"]
    outer = -0.13 * a[2] * more - 0.03 * lower * (1 - resisted) + 0.04 * a[9] - t["brow_height"] + 0.03
    outer = outer + 0.05 * a[1] * np.maximum(0, 1 - 2 * a[2])  # oblique brows, as in sadness
    inner_x, outer_x = 0.15 - 0.07 * a[4], t["eye_distance"] + 0.30
    u = _ramp(0, 1, 8)
    y = inner * (1 - u) * (1 - 2 * u) + middle * 4 * u * (1 - u) + outer * u * (2 * u - 1)  # through all three
    half = t["brow_thickness"] * (0.75 + 0.6 * u) * (1 - 0.8 * u**3)
    return {
        "brow": _between(s * (inner_x + (outer_x - inner_x) * u), y - half, y + half, 0.04),
        "frown": _on_head(s * (inner_x - 0.05 + 0 * u), inner + 0.2 * u - 0.1),
    }


def _cheek(t: Traits, a: Actions, s: float) -> dict[str, Array]:
    """One ear, one cheek, one nostril, and the fold that runs from the nose to the mouth's corner."""
    wing_x, wing_y = _nose_wing(t, a)
    corner_x, corner_y = _mouth_corner(t, a, s)
    u = _ramp(0, 1, 4)
    bulge = 0.05 * np.sin(math.pi * u) * (a[12] + a[9])
    return {
        "ear": _on_head(s * (t["head_width"] + 0.02 + 0.11 * _COS), 0.14 + 0.24 * _SIN, -0.35),
        "cheek": _on_head(s * (0.52 + 0.17 * _COS), 0.33 - 0.06 * a[6] + 0.12 * _SIN, 0.05),
        "nostril": _on_head(s * (0.5 * wing_x + 0.04 * _COS), wing_y + 0.02 + 0.02 * _SIN, 0.15),
        "fold": _on_head(
            s * (wing_x + 0.05 + (corner_x + 0.09 - wing_x) * u + bulge),
            wing_y - 0.06 + (corner_y + 0.08 - wing_y) * u,
        ),
    }


def _mouth_corner(t: Traits, a: Actions, s: float) -> tuple[Array, Array]:
    """How far out and how low the mouth's corner lies on a side; its middle lies at the height of side 0."""
    # The jaw narrows the mouth to an O unless the lips are pulled apart; bared teeth square it.
    stretch = 0.24 * a[12] + 0.26 * a[20] - 0.10 * a[23] + 0.25 * a[23] * a[25] - 0.05 * a[17]
    stretch = stretch - 0.30 * a[26] * np.maximum(0, 1 - 1.3 * a[12] - 1.3 * a[20])
    corner = -0.19 * a[12] + 0.17 * a[15] + 0.12 * a[20] + 0.05 * a[23] + t["mouth_curve"]
    height = t["mouth_height"] + 0.09 * a[26] - 0.05 * a[17] - 0.04 * a[9] - 0.03 * a[10]
    return t["mouth_width"] * (1 + stretch), height + abs(s) * corner * (1 + s * t["asymmetry"])


def _mouth(t: Traits, a: Actions) -> dict[str, Array]:
    """Lips, and what is seen between them. `u` runs from corner to corner."""
    u = _ramp(-1, 1, 15)
    hump = 1 - u**2
    half_width, height = _mouth_corner(t, a, 0)
    corners = np.where(u < 0, _mouth_corner(t, a, -1)[1], _mouth_corner(t, a, 1)[1]) - height
    line = height + corners * np.abs(u) ** 1.7 - 0.05 * a[17] * hump
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
    return {
        "lips": _between(x, upper_out, lower_out, 0.05),
        "mouth": _between(x, upper_in, lower_in, 0.05),
        "upper_teeth": _between(0.93 * x, upper_in, upper_teeth, 0.05),
        "lower_teeth": _between(0.85 * x, lower_teeth, lower_in, 0.05),
        "mouth_line": _on_head(x, 0.5 * (upper_in + lower_in), 0.05),
        "under_lip": _on_head(x[:, 4:11], lower_out[:, 4:11] + 0.045, 0.02),
    }


def project(found: Mapping[str, Array], traits: Traits) -> dict[str, npt.NDArray[np.int32]]:
    """Turns the heads to their pose and puts them into the picture.

    Returns:
        The same features as int32 (N, points, 2): x, y on the canvas in units of 2**-SHIFT pixels.
    """
    yaw, pitch, roll, scale, *shifts = (
        traits[name][:, None] for name in ("yaw", "pitch", "roll", "scale", "shift_x", "shift_y")
    )

    def seen(points: Array) -> npt.NDArray[np.int32]:
        x, y, z = points[..., 0], points[..., 1] - 0.25, points[..., 2] - 0.4  # heads turn about their middle
        x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
        y = y * np.cos(pitch) + z * np.sin(pitch)
        turned = (x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll))
        shares = [0.5 + shift + HEAD * scale * at for at, shift in zip(turned, shifts, strict=True)]
        return np.rint(CANVAS * 2**SHIFT * np.stack(shares, axis=-1)).astype(np.int32)

    return {name: seen(points) for name, points in found.items()}


def render(traits: Traits, actions: Actions, rng: np.random.Generator) -> Pixels:
    """Draws the faces: uint8 (N, 48, 48). `rng` gives the sensor's noise."""
    features = project(outlines(traits, actions), traits)
    canvases = _backgrounds(traits)
    skin = traits["skin"]
    _draw(canvases, features, {"neck": (0.8 * skin, 0), "ear": (0.86 * skin, 0), "head": (skin, 0)}, SHIFT)
    # The skin's relief is drawn apart and smaller, so that its edges are soft: 128 leaves the skin as it is.
    factors = np.full((len(canvases), SIZE, SIZE), 128, np.uint8)
    _draw(factors, features, _relief(traits, actions), SHIFT + 1)
    for canvas, factor in zip(canvases, factors, strict=True):
        soft = cv2.resize(cv2.blur(factor, (2, 2)), (CANVAS, CANVAS), interpolation=cv2.INTER_LINEAR)
        cv2.multiply(canvas, soft, canvas, 1 / 128)
    _draw(canvases, features, _features(traits, actions), SHIFT)
    tones = np.where(traits["bar"] < 1, traits["bar_tone"], np.nan)
    _draw(canvases, {"bar": _bars(traits)}, {"bar": (tones, 7)}, SHIFT)
    pictures = np.empty((len(canvases), SIZE, SIZE), np.uint8)
    for canvas, picture, blur in zip(canvases, pictures, traits["blur"].tolist(), strict=True):
        cv2.resize(canvas, (SIZE, SIZE), picture, interpolation=cv2.INTER_AREA)
        if blur > 0.5:
            cv2.GaussianBlur(picture, (3, 3), 2 * (blur - 0.25), picture)
    return _expose(pictures, traits, rng)


def _backgrounds(traits: Traits) -> Pixels:
    """Slopes of gray: uint8 (N, CANVAS, CANVAS)."""
    ramp = traits["background_slope"][:, None] * np.linspace(-1, 1, CANVAS, dtype=np.float32)
    angle = traits["background_angle"][:, None]
    columns, rows = (np.cos(angle) * ramp)[:, None, :], (np.sin(angle) * ramp)[:, :, None]
    return np.clip(traits["background"][:, None, None] + columns + rows, 0, 255).astype(np.uint8)


def _bars(traits: Traits) -> npt.NDArray[np.int32]:
    """Lines across the picture: int32 (N, 2, 2), as `project` has them."""
    middle = np.stack([traits["bar_x"], traits["bar_y"]], axis=1)
    reach = 2 * np.stack([np.cos(traits["bar_angle"]), np.sin(traits["bar_angle"])], axis=1)
    ends: Array = np.rint(CANVAS * 2**SHIFT * np.stack([middle - reach, middle + reach], axis=1))
    return ends.astype(np.int32)


def _relief(t: Traits, a: Actions) -> dict[str, tuple[Array, int]]:
    """The resting face's relief, and the folds that the muscles press into it; what is faint is left out."""
    age = t["age"]
    changes = {
        "socket": (-22 - 10 * a[4], 0),
        "cheek": (4 + 16 * a[6], 0),
        "nose_tip": (10 + 0 * age, 0),
        "chin": (6 - 22 * a[17], 0),
        "under_lip": (-26 - 12 * a[17], 2),
        "fold": (-14 * age - 34 * np.maximum(np.maximum(a[12], a[9]), 0.6 * a[10]), 1),
        "frown": (-60 * a[4] * age, 1),
        "pouch": (-22 * np.minimum(1.0, a[6] + 0.6 * a[7]) * (0.5 + age), 1),
        "nose_wrinkle": (-70 * a[9], 2),
        "forehead": (-45 * np.maximum(a[1], a[2]) * age, 1),
    }
    return {name: (np.where(abs(change) > 3, 128 + change, np.nan), width) for name, (change, width) in changes.items()}


def _features(t: Traits, a: Actions) -> dict[str, tuple[Array, int]]:
    """The features and the hair, from the back to the front."""
    skin = t["skin"]
    parted, clenched = a[25] + a[26] > 0.4, np.maximum(np.maximum(a[16], a[20]), a[23]) > 0.3
    return {
        "nose_base": (0.7 * skin, 2),
        "nostril": (0.36 * skin, 0),
        "lips": (0.72 * skin, 0),
        "mouth": (0.15 * skin + 8, 0),
        "upper_teeth": (np.where(parted, 225 - 60 * np.maximum(0, a[26] - 0.4) * (1 - a[12]), np.nan), 0),
        "lower_teeth": (np.where(parted & clenched, 205, np.nan), 0),
        "mouth_line": (np.where(parted & ~clenched, np.nan, 0.3 * skin), 1),
        "eye": (np.minimum(240, 130 + 0.5 * skin), 0),
        "iris": (t["iris"], 0),
        "pupil": (8 + 0 * skin, 0),
        "lid_crease": (0.7 * skin, 1),
        "lower_lid": (0.55 * skin, 1),
        "upper_lid": (0.2 * skin, 2),
        "brow": (np.minimum(t["hair"], 0.5 * skin), 0),
        "hair": (np.where(t["hairline"] < 1.1, t["hair"], np.nan), 0),
    }


def _draw(canvases: Pixels, features: Mapping[str, npt.NDArray[np.int32]], layers: Layers, shift: int) -> None:
    """Draws layer after layer, in all faces; where the gray value is none, nothing."""
    for name, (grays, width) in layers.items():
        for each in [each for each in (name, f"left_{name}", f"right_{name}") if each in features]:
            for canvas, points, gray in zip(canvases, features[each], grays.tolist(), strict=True):
                if math.isnan(gray):
                    continue
                if width:
                    cv2.polylines(canvas, [points], False, gray, width, cv2.LINE_AA, shift)
                else:
                    cv2.fillPoly(canvas, [points], gray, cv2.LINE_AA, shift)


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
