import pytest

from fer.errors import UserError
from fer.labels import EMOTIONS, SUBSETS, emotion_from_spelling, emotions_with, resolve_classes, subset_name


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
