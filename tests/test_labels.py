import itertools

import numpy as np
import pytest

from fer.errors import UserError
from fer.labels import (
    ALL_EMOTIONS,
    EMOTION_COLORS,
    EMOTIONS,
    GRAY,
    SUBSETS,
    emotion_color,
    emotion_from_spelling,
    emotions_with,
    resolve_classes,
    subset_name,
)

# From linear RGB to what is left of it without one kind of cones: Machado, Oliveira and Fernandes, A
# Physiologically-based Model for Simulation of Color Vision Deficiency, 2009, severity 1.0.
SIGHT = {
    "all three kinds": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def test_subsets_are_those_of_the_published_systems() -> None:
    assert resolve_classes(7) == resolve_classes("7") == EMOTIONS
    assert resolve_classes(4) == ("angry", "happy", "sad", "neutral")
    assert resolve_classes(5) == ("angry", "fear", "happy", "sad", "neutral")
    assert resolve_classes(8) == (*EMOTIONS, "contempt")
    assert resolve_classes("5-surprise") == ("angry", "happy", "sad", "surprise", "neutral")


def test_a_list_of_names_keeps_its_order_and_takes_other_spellings() -> None:
    assert resolve_classes(["neutral", "Happiness", "ANGER", "Contempt"]) == ("neutral", "happy", "angry", "contempt")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (6, "5-surprise"),
        ("five", "5-surprise"),
        (["happy", "sadd"], "did you mean sad"),
        (["happy", "boredom"], r"the emotions are .*, contempt; data\.other_emotions=true takes other names"),
        (["happy", "joy"], "happy twice"),
        (["happy"], "at least two"),
    ],
)
def test_a_mistake_names_the_way_out(classes: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_classes(classes)  # type: ignore[arg-type]


def test_other_emotions_are_taken_where_that_is_asked_for() -> None:
    assert resolve_classes(["2_Bored", "joy"], other_emotions=True) == ("bored", "happy")
    assert emotion_from_spelling("3-Bored", emotions_with(("bored", "happy"))) == "bored"
    for classes in (["bored", "BORED"], ["happy", " 3 "], ["happy", "sad,bored"]):
        with pytest.raises(UserError, match=r"bored twice|' 3 ' is no emotion|'sad,bored' is no emotion"):
            resolve_classes(classes, other_emotions=True)


@pytest.mark.parametrize(
    ("name", "emotion"),
    [
        ("Anger", "angry"),
        ("0_fearful", "fear"),
        (" surprised ", "surprise"),
        ("3-Happy", "happy"),
        ("JOY", "happy"),
        ("Afraid", "fear"),
        ("calm", "neutral"),
        ("Contempt", "contempt"),
        ("bored", None),
    ],
)
def test_folder_spellings(name: str, emotion: str | None) -> None:
    assert emotion_from_spelling(name) == emotion


def test_subset_name_is_the_reverse() -> None:
    for name, classes in SUBSETS.items():
        assert subset_name(classes) == name
    assert subset_name(("sad", "happy")) == "sad+happy"


def lab(color: tuple[float, ...], sight: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of an sRGB colour, 0 to 255, as `sight` leaves it."""
    encoded = np.array(color) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    xyz = to_xyz @ (sight @ linear).clip(0, 1) / (0.95047, 1, 1.08883)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def ciede2000(one: np.ndarray, two: np.ndarray) -> float:
    """The difference of two colours in CIELAB; 1 is hardly seen side by side (CIE 142-2001)."""
    mean = (np.hypot(*one[1:]) + np.hypot(*two[1:])) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25**7))
    (light, a, b), (light2, a2, b2) = one * (1, stretch, 1), two * (1, stretch, 1)
    chroma, chroma2 = np.hypot(a, b), np.hypot(a2, b2)
    hue, hue2 = np.degrees(np.arctan2(b, a)), np.degrees(np.arctan2(b2, a2))
    turn = (hue2 - hue + 180) % 360 - 180
    middle, chromas, h = (light + light2) / 2, (chroma + chroma2) / 2, hue + turn / 2
    wave = 1 + sum(
        factor * np.cos(np.radians(times * h + shift))
        for factor, times, shift in ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    )
    twist = 2 * np.sqrt(chromas**7 / (chromas**7 + 25**7))
    twist *= -np.sin(np.radians(60 * np.exp(-((((h % 360) - 275) / 25) ** 2))))
    in_light = (light2 - light) / (1 + 0.015 * (middle - 50) ** 2 / np.sqrt(20 + (middle - 50) ** 2))
    in_chroma = (chroma2 - chroma) / (1 + 0.045 * chromas)
    in_hue = 2 * np.sqrt(chroma * chroma2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chromas * wave)
    return float(np.sqrt(in_light**2 + in_chroma**2 + in_hue**2 + twist * in_chroma * in_hue))


def test_the_difference_of_colours_is_that_of_the_standard() -> None:
    """Pairs of Sharma, Wu and Dalal, The CIEDE2000 Color-Difference Formula, 2005, table 1."""
    for one, two, expected in (
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ):
        assert ciede2000(np.array(one), np.array(two)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("shade", [1.0, 0.85])  # the darker one is drawn on white
def test_colours_of_emotions_are_told_apart_by_everybody(sight: str, shade: float) -> None:
    assert set(EMOTION_COLORS) == set(ALL_EMOTIONS)
    colors = {name: lab(tuple(shade * part for part in color), SIGHT[sight]) for name, color in EMOTION_COLORS.items()}
    colors["uncertain"] = lab(tuple(shade * part for part in GRAY), SIGHT[sight])
    closest = min((ciede2000(colors[a], colors[b]), a, b) for a, b in itertools.combinations(colors, 2))
    assert closest[0] > 12, closest


def test_a_class_that_is_no_emotion_is_gray() -> None:
    assert emotion_color("boredom") == GRAY
    assert emotion_color("contempt") == EMOTION_COLORS["contempt"]
