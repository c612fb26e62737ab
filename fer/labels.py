"""The seven emotions of FER2013 and the eighth of FER+: names, colours, subsets that people train on, spellings.

Knows nothing of images, files or networks, and imports neither NumPy nor torch.
"""

import re
import unicodedata
from collections.abc import Sequence
from difflib import get_close_matches

from fer.errors import UserError

# FER2013's own order: the position is the code in the CSV's `emotion` column (Goodfellow et al., arXiv 1307.0414).
EMOTIONS: tuple[str, ...] = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

# FER+ has votes for one more (Barsoum et al., arXiv 1608.01041), AffectNet and CK+ have faces of it; FER2013's own
# labels never say it.
CONTEMPT = "contempt"
ALL_EMOTIONS: tuple[str, ...] = (*EMOTIONS, CONTEMPT)

Color = tuple[int, int, int]  # red, green, blue

# One palette for boxes, curves, bars and pages. Bright enough to bear black text and to stand out from a dark plate;
# told apart, also from GRAY, by people who lack one of the three kinds of cones.
EMOTION_COLORS: dict[str, Color] = {
    "angry": (208, 67, 79),
    "disgust": (156, 205, 141),
    "fear": (121, 95, 225),
    "happy": (236, 208, 48),
    "sad": (100, 162, 255),
    "surprise": (209, 136, 19),
    "neutral": (7, 231, 252),
    CONTEMPT: (158, 105, 134),
}
GRAY: Color = (190, 190, 190)

# What the ten people of FER+ could say of a face.
VOTED_ON: tuple[str, ...] = (*ALL_EMOTIONS, "unknown", "not a face")

OWN_LABELS = "the given labels"  # how reports call those that a data set comes with

SUBSETS: dict[str, tuple[str, ...]] = {
    "4": ("angry", "happy", "sad", "neutral"),
    "5": ("angry", "fear", "happy", "sad", "neutral"),
    "5-surprise": ("angry", "happy", "sad", "surprise", "neutral"),
    "7": EMOTIONS,
    "8": ALL_EMOTIONS,
}

# Spellings seen in Kaggle's folder copies of FER2013, in FER+ and in related data sets.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "angry": ("anger",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid", "scared"),
    "happy": ("happiness", "joy", "joyful"),
    "sad": ("sadness",),
    "surprise": ("surprised",),
    "neutral": ("neutrality", "calm", "normal"),
    CONTEMPT: ("contemptuous",),
}
_EMOTION_OF_SPELLING = {spelling: emotion for emotion, others in _SPELLINGS.items() for spelling in (emotion, *others)}


def emotion_from_spelling(name: str, emotions: Sequence[str] = ALL_EMOTIONS) -> str | None:
    """The emotion that a folder or column calls `name` ("Anger", "3_happy", "fearful"), or None.

    Args:
        name: in any case, and behind any number.
        emotions: `ALL_EMOTIONS`, and others that are looked for besides (see `emotions_with`).
    """
    word = _word(name)
    return _EMOTION_OF_SPELLING.get(word, word if word in emotions else None)


def emotion_color(emotion: str) -> Color:
    """The colour that stands for an emotion in every picture, plot and page; gray for a class that is none."""
    return EMOTION_COLORS.get(emotion, GRAY)


def emotions_with(classes: Sequence[str]) -> tuple[str, ...]:
    """`ALL_EMOTIONS`, and behind them those of the classes that are others."""
    return (*ALL_EMOTIONS, *(name for name in classes if name not in ALL_EMOTIONS))


def _word(name: str) -> str:
    # macOS takes letters with accents apart in the names of folders.
    return unicodedata.normalize("NFC", name).strip().lower().lstrip("0123456789_-. ")


def is_class_name(name: object) -> bool:
    """Whether a network's class may be called so: files may say anything, and names go to terminals, tables and plots,
    where they are no escape sequence, formula or markup. Exported files list them between commas.
    """
    return (
        isinstance(name, str)
        and name.isprintable()
        and name.strip() == name != ""
        and name[0] not in "=+-@"
        and not set(name) & set(",[]$")
    )


def _other(name: str) -> str | None:
    """An emotion that is none of ours; None for what is no word."""
    word = _word(name)
    return word if re.fullmatch(r"\w[\w -]*", word) else None


def resolve_classes(classes: int | str | Sequence[str], other_emotions: bool = False) -> tuple[str, ...]:
    """The class names, in training order, of a subset's name or of an explicit list.

    Args:
        classes: 4, 5, 7, 8 (int or str), "5-surprise", or at least two different emotion names.
        other_emotions: names of a list that are none of `ALL_EMOTIONS` are taken, too, in lower case.

    Raises:
        UserError: an unknown subset or emotion, a repeated name, or fewer than two.
    """
    if isinstance(classes, int | str):
        subset = SUBSETS.get(str(classes))
        if subset is None:
            raise UserError(
                f"data.classes={classes} is no subset: choose {', '.join(SUBSETS)}, "
                "or a list such as data.classes=[happy,sad,neutral]"
            )
        return subset
    names: list[str] = []
    for given in classes:
        emotion = emotion_from_spelling(str(given)) or (_other(str(given)) if other_emotions else None)
        if emotion is None:
            near = get_close_matches(str(given).lower(), ALL_EMOTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the emotions are {', '.join(ALL_EMOTIONS)}"
            more = "" if other_emotions else " data.other_emotions=true takes other names, too"
            raise UserError(f"data.classes: {given!r} is no emotion; {hint}{'' if near else ';'}{more}")
        if emotion in names:
            raise UserError(f"data.classes names {emotion} twice; name each class once")
        names.append(emotion)
    if len(names) < 2:
        raise UserError("data.classes needs at least two emotions to tell apart")
    return tuple(names)


def subset_name(classes: Sequence[str]) -> str:
    """The short name of resolved classes, for titles and directories: "7", "5-surprise", or the names joined by "+"."""
    return next((name for name, members in SUBSETS.items() if members == tuple(classes)), "+".join(classes))
