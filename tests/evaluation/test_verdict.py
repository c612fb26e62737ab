"""The first screen of a report: what is compared, and what is not because rows, labels or training are other."""

from typing import Any

import pytest

from fer.evaluation.verdict import official_split, verdict
from fer.labels import EMOTIONS, SUBSETS

COUNTS = {
    "Training": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "PublicTest": (467, 56, 496, 895, 653, 415, 607),
    "PrivateTest": (491, 55, 528, 879, 594, 416, 626),
}


def counts(split: str, classes: tuple[str, ...] = EMOTIONS) -> dict[str, int]:
    return {name: count for name, count in zip(EMOTIONS, COUNTS[split], strict=True) if name in classes}


def report(split: str = "test", rows: str = "PrivateTest", accuracy: float = 0.7, **more: Any) -> dict[str, Any]:
    """What the verdict reads of a metrics.json, of a network that was trained as publications say."""
    classes = more.pop("classes", EMOTIONS)
    found = {
        "images": sum(counts(rows, classes).values()),
        "accuracy": accuracy,
        "confidence": accuracy + 0.03,
        "ece": 0.04,
        "calibration": {"ece_expected": 0.017},
        "interval95": {"accuracy": [accuracy - 0.015, accuracy + 0.015]},
        "per_class": {name: {"images": count} for name, count in counts(rows, classes).items()},
        "without_copies": {
            "removed": 4,
            "exact": 3,
            "complete": True,
            "images": sum(counts(rows, classes).values()) - 4,
            "accuracy": accuracy - 0.02,
            "interval95": {"accuracy": [accuracy - 0.04, accuracy]},
        },
    }
    return {
        "reported_split": split,
        split: found,
        "classes": list(classes),
        "data": "/somewhere/fer2013.csv",
        "labels": {"train": "the given labels", "evaluation": "the given labels"},
        "training": {"counts": counts("Training", classes), "beside": []},
        "checkpoints": [{"temperature": 0.8}],
        **more,
    }


def of(found: dict[str, Any]) -> dict[str, str]:
    return {about: text.replace("\u00a0", " ") for about, text in verdict(found).sentences}


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ({"removed": 0, "exact": 0}, "No test face has an exact or near copy among the training faces."),
        (
            {"removed": 0, "exact": 0, "complete": False},
            "No test face is known to have a copy among the training faces, but not all of these are at hand.",
        ),
        ({"complete": False}, "68.0 % (66.0 % to 70.0 %) are named right. Not all training faces are at hand"),
        ({"complete": True}, "68.0 % (66.0 % to 70.0 %) are named right."),
    ],
)
def test_copies_are_denied_only_where_the_training_faces_are_known(without: dict[str, Any], said: str) -> None:
    own = report()
    found = own["test"]["without_copies"]
    if without.get("removed") == 0:
        found.clear()
    found |= without
    text = of(own)["Copies"]
    assert said in text
    assert ("at hand" in text) == (not without.get("complete", True))


def test_it_says_what_was_measured_on_which_rows() -> None:
    found = verdict(report())
    assert found.headline.replace("\u00a0", " ") == "70.0 % of 3,589 faces are named right"
    basis = found.basis.replace("\u00a0", " ")
    assert "95 % interval 68.5 % to 71.5 %" in basis
    assert "the test split of fer2013.csv (FER2013's PrivateTest)" in basis
    assert "judged by the given labels; trained on the given labels" in basis
    said = of(report())
    assert "“happy”" in said["Guessing"]
    assert "24.5 %; this is 45.5 points more" in said["Guessing"]
    assert "4 faces have an exact (3) or near copy" in said["Copies"]
    assert "68.0 % (66.0 % to 70.0 %)" in said["Copies"]
    assert "73.0 %, 3.0 points too high" in said["Confidence"]
    assert "4.0 points on average (ECE); with perfect calibration that would be 1.7" in said["Confidence"]
    assert "The temperature was fitted on the val rows of its training." in said["Confidence"]
    assert "No temperature was fitted." in of(report(checkpoints=[{"temperature": 1.0}]))["Confidence"]
    assert "Caution" not in said
    assert "lean to the good side" in of(report("val", "PublicTest"))["Caution"]
    assert "nothing follows for photographs" in of(report(data="synthetic"))["Drawn faces"]
    assert [bar.name for bar in found.bars] == ["always “happy”", "people", "this report", "without copies"]


def test_several_sources_are_all_named() -> None:
    found = verdict(report(rows="Training", data="a/RAF-DB, b/CK+48", sources=["a/RAF-DB", "b/CK+48"]))
    assert "the test split of RAF-DB, CK+48" in found.basis


def test_no_better_than_guessing_is_said() -> None:
    assert "not clearly better" in of(report(accuracy=0.25))["Guessing"]


@pytest.mark.parametrize(
    ("accuracy", "place"),
    [(0.8, "above"), (0.7, "upper end of"), (0.66, "within"), (0.59, "lower end of"), (0.5, "below")],
)
def test_people(accuracy: float, place: str) -> None:
    said = of(report(accuracy=accuracy))["People"]
    assert "65 ± 5 % on FER2013" in said
    assert "1307.0414" in said
    assert f"{place} their range" in said


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (report(classes=SUBSETS["4"]), "all seven classes"),
        (report(labels={"train": "FER+ majority", "evaluation": "FER+ majority"}), "FER2013's own labels"),
        (report(rows="Training"), None),
    ],
)
def test_people_are_compared_only_on_what_they_saw(found: dict[str, Any], why: str | None) -> None:
    if why is None:
        found["test"]["per_class"]["happy"]["images"] -= 1
        why = "none of FER2013's splits"
    said = of(found)["People"]
    assert said.startswith("Not comparable with the 65 ± 5 %")
    assert why in said
    assert "people" not in [bar.name for bar in verdict(found).bars]


def test_a_published_number_is_compared_on_its_own_rows() -> None:
    found = verdict(report(accuracy=0.725))
    assert found.incomparable == ""
    assert "73.28 % on PrivateTest" in found.published[0]
    assert found.published[0].endswith("The same rows and training data: within the interval of this report.")
    assert found.published[1].endswith("2.7 points above us.")
    assert all(sentence.endswith("Not comparable.") for sentence in found.published[2:])
    better = verdict(report(accuracy=0.78))
    assert better.published[0].endswith("4.7 points below us.")


def test_other_rows_are_not_compared() -> None:
    found = verdict(report("val", "PublicTest"))
    assert found.incomparable == ""
    assert found.published[0].endswith("Not comparable: this report is of PublicTest.")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"training": {"counts": None, "beside": None}}, "does not say what it was trained on"),
        ({"labels": {"train": None, "evaluation": "the given labels"}}, "does not say what it was trained on"),
        ({"training": {"counts": counts("Training") | {"fear": 4000}, "beside": []}}, "all of them and no others"),
        (
            {"labels": {"train": "the given labels, and FER+'s votes", "evaluation": "the given labels"}},
            "learnt from the given labels, and FER+'s votes",
        ),
        ({"labels": {"train": "the given labels", "evaluation": "FER+ majority"}}, "judges by FER+ majority"),
        ({"training": {"counts": counts("Training"), "beside": ["weights of ImageNet"]}}, "weights of ImageNet"),
    ],
)
def test_other_data_are_not_compared_and_why(more: dict[str, Any], why: str) -> None:
    found = verdict(report(**more))
    assert why in found.incomparable
    assert not any("The same rows" in sentence for sentence in found.published)


def test_what_is_published_is_of_the_same_classes() -> None:
    assert [text.split(" on ")[0] for text in verdict(report(classes=SUBSETS["4"])).published] == ["about 73 %"]
    assert [text.split(" on ")[0] for text in verdict(report(classes=SUBSETS["5"])).published] == ["83.93 %"]
    assert verdict(report(classes=SUBSETS["5-surprise"])).published == []


def test_a_split_is_known_by_its_numbers_of_faces() -> None:
    for split in COUNTS:
        for classes in SUBSETS.values():
            whole = {name: {"images": count} for name, count in counts(split, classes).items()}
            if "contempt" in classes:
                whole["contempt"] = {"images": 7}
            assert official_split(whole) == (None if "contempt" in classes else split)
