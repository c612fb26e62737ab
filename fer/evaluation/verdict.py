"""What a report comes to, in sentences: against guessing, against people, and against what was published.

Written from metrics.json alone. A published number is compared only where rows, labels and training data are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer.data.seen import MANY
from fer.labels import EMOTIONS, OWN_LABELS, SUBSETS

# How many faces of each emotion FER2013's own splits hold, in the order of `EMOTIONS`. A split is known again by them.
_OFFICIAL = {
    "Training": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "PublicTest": (467, 56, 496, 895, 653, 415, 607),
    "PrivateTest": (491, 55, 528, 879, 594, 416, 626),
}

# Goodfellow et al., arXiv 1307.0414: small experiments; which faces they were is not said.
PEOPLE, PEOPLE_SPREAD = 0.65, 0.05
_OF_PEOPLE = f"{100 * PEOPLE:.0f} ± {100 * PEOPLE_SPREAD:.0f}\u00a0%"

_NONE_OF_THEM = "rows that are none of FER2013's splits"


@dataclass(frozen=True)
class Published:
    """An accuracy that somebody published.

    Attributes:
        subset: of `fer.labels.SUBSETS`.
        accuracy: as text, in percent.
        who: and with what.
        rows: which of FER2013's splits it is of; None where that is none of them, or not said.
        why: in that case, what is known of the rows.
    """

    subset: str
    accuracy: str
    who: str
    rows: str | None
    why: str = ""


_PUBLISHED = (
    Published("7", "73.28 %", "one VGG network, Khaireddin and Chen 2021, arXiv 2105.03588", "PrivateTest"),
    Published("7", "75.2 %", "an ensemble of networks, Pramerdorfer and Kampel 2016, arXiv 1612.02903", "PrivateTest"),
    Published("7", "67.94 %", "experiment=senet_7class", None, "a test split of which the rows are not said"),
    Published("7", "about 60 %", "experiment=cnn_7class", None, "a validation folder of which the rows are not said"),
    Published("4", "about 73 %", "experiment=resnet18_4class", None, "validation rows that are not said"),
    Published("5", "83.93 %", "experiment=resnet50_5class", None, "rows divided at random, copies on both sides"),
)


@dataclass(frozen=True)
class Bar:
    """A line of the verdict's chart; shares of 1, `low` and `high` the ends of an interval."""

    name: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    own: bool = False


@dataclass(frozen=True)
class Verdict:
    """The first screen of a report.

    Attributes:
        headline: the accuracy.
        basis: its interval, the rows, and by whose labels.
        bars: accuracies to compare.
        sentences: what they mean, each with a word that it is about.
        incomparable: why no published number can be compared with this report at all, or "".
        published: what others reached on these classes, on which rows, and if comparable, where this report stands.
    """

    headline: str
    basis: str
    bars: list[Bar]
    sentences: list[tuple[str, str]]
    incomparable: str
    published: list[str]


def verdict(report: Mapping[str, Any]) -> Verdict:
    """The verdict of a report.

    Args:
        report: content of metrics.json.
    """
    split, found = report["reported_split"], report[report["reported_split"]]
    accuracy, (low, high) = found["accuracy"], found["interval95"]["accuracy"]
    official = official_split(found["per_class"])
    rows = f"the {split} split of {source_names(report)}" + (f" (FER2013's {official})" if official else "")
    train, judged = report["labels"]["train"], report["labels"]["evaluation"]
    trained = "which labels it was trained on, the checkpoint does not say" if train is None else f"trained on {train}"
    most, images = max(((name, own["images"]) for name, own in found["per_class"].items()), key=lambda pair: pair[1])
    majority = images / found["images"]
    without, people = found["without_copies"], _why_not_people(report, official)

    bars = [Bar(f"always “{most}”", majority, _percent(majority))]
    if people is None:
        bars.append(Bar("people", PEOPLE, _OF_PEOPLE, PEOPLE - PEOPLE_SPREAD, PEOPLE + PEOPLE_SPREAD))
    bars.append(Bar("this report", accuracy, _percent(accuracy), low, high, own=True))
    if "accuracy" in without:
        lower, upper = without["interval95"]["accuracy"]
        bars.append(Bar("without copies", without["accuracy"], _percent(without["accuracy"]), lower, upper, own=True))

    sentences = [
        ("Guessing", _guessing(most, majority, accuracy, low)),
        ("People", _people(accuracy, low, high) if people is None else people),
        ("Copies", _copies(without, split)),
        ("Confidence", _calibration(found, split, any(each["temperature"] != 1 for each in report["checkpoints"]))),
    ]
    if report["data"] == "synthetic":
        sentences.append(("Drawn faces", "The program drew these faces: nothing follows for photographs."))
    if split == "val":
        caution = "Checkpoints are chosen on the val split, so these figures lean to the good side."
        sentences.append(("Caution", caution))
    known = report.get("trained_on", {}).get(split, 0)
    if known > MANY * found["images"]:
        memory = f"It, or what it began from, was trained on {known:,} of these {found['images']:,} faces"
        sentences.append(("Memory", f"{memory}: nothing follows for faces that it has not seen."))
    reasons = _other_data(report)
    return Verdict(
        headline=f"{_percent(accuracy)} of {found['images']:,} faces are named right",
        basis=f"95 % interval {_percent(low)} to {_percent(high)}, on {rows}, judged by {judged}; {trained}.",
        bars=bars,
        sentences=sentences,
        incomparable=f"Not comparable with this report: {'; '.join(reasons)}." if reasons else "",
        published=[
            _compared(each, accuracy, low, high, official, comparable=not reasons)
            for each in _PUBLISHED
            if set(SUBSETS[each.subset]) == set(report["classes"])
        ],
    )


def source_names(report: Mapping[str, Any]) -> str:
    """The data sets of a report, without the directories of whoever measured."""
    return ", ".join(Path(source).name for source in report.get("sources", [report["data"]]))


def official_split(per_class: Mapping[str, Any]) -> str | None:
    """Which of FER2013's splits has these numbers of "images" by class, each of its faces of these classes; or None."""
    return _official({name: own["images"] for name, own in per_class.items()})


def _official(counts: Mapping[str, int]) -> str | None:
    for split, official in _OFFICIAL.items():
        whole = dict(zip(EMOTIONS, official, strict=True))
        if all(whole.get(name) == count for name, count in counts.items()):
            return split
    return None


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"  # a line never ends before the sign


def _why_not_people(report: Mapping[str, Any], official: str | None) -> str | None:
    """A sentence that says why people are no measure for this report, or None."""
    reason = None
    if set(report["classes"]) != set(EMOTIONS):
        reason = "they chose among all seven classes"
    elif report["labels"]["evaluation"] != OWN_LABELS:
        reason = "they were judged by FER2013's own labels"
    elif official is None:
        reason = f"this report is of {_NONE_OF_THEM}"
    return reason and f"Not comparable with the {_OF_PEOPLE} of people on FER2013: {reason}."


def _guessing(most: str, majority: float, accuracy: float, low: float) -> str:
    text = f"Whoever always says “{most}”, the most frequent class here, is right on {_percent(majority)}"
    if low > majority:
        return f"{text}; this is {100 * (accuracy - majority):.1f} points more."
    return f"{text}; this is not clearly better."


def _people(accuracy: float, low: float, high: float) -> str:
    worst, best = PEOPLE - PEOPLE_SPREAD, PEOPLE + PEOPLE_SPREAD
    if low > best:
        place = "above their range"
    elif high < worst:
        place = "below their range"
    elif worst <= low and high <= best:
        place = "within their range"
    else:
        place = f"at the {'upper' if accuracy > PEOPLE else 'lower'} end of their range"
    return (
        f"{_OF_PEOPLE} on FER2013, in small experiments on faces that are not named (Goodfellow et al. 2013, arXiv "
        f"1307.0414). {_percent(accuracy)} is {place}; the labels are noisy, and right means as labelled."
    )


def _copies(without: Mapping[str, Any], split: str) -> str:
    complete = without.get("complete", True)  # reports before version 0.2 do not say
    text = f"{without['removed']:,} faces have an exact ({without['exact']:,}) or near copy among the training faces"
    if without["removed"] and "accuracy" not in without:
        text += ": all of them."
    elif without["removed"]:
        low, high = without["interval95"]["accuracy"]
        share = f"{_percent(without['accuracy'])} ({_percent(low)} to {_percent(high)})"
        text += f"; of the other {without['images']:,}, {share} are named right."
    elif complete:
        return f"No {split} face has an exact or near copy among the training faces."
    else:
        return f"No {split} face is known to have a copy among the training faces, but not all of these are at hand."
    return text if complete else f"{text} Not all training faces are at hand: there may be more."


def _calibration(found: Mapping[str, Any], split: str, fitted: bool) -> str:
    gap = 100 * (found["confidence"] - found["accuracy"])
    side = "high" if gap > 0 else "low"
    on = "the val rows of its training" if split == "test" else "a val split, perhaps these rows"
    temperature = f"The temperature was fitted on {on}." if fitted else "No temperature was fitted."
    return (
        f"Mean confidence is {_percent(found['confidence'])}, {abs(gap):.1f} points too {side}. "
        f"Level by level it misses the share of right answers by {100 * found['ece']:.1f} points on average (ECE); "
        f"with perfect calibration that would be {100 * found['calibration']['ece_expected']:.1f} on as many faces. "
        f"{temperature}"
    )


def _compared(
    published: Published, accuracy: float, low: float, high: float, official: str | None, *, comparable: bool
) -> str:
    said = f"{published.accuracy} on {published.rows or published.why}: {published.who}."
    if published.rows is None:
        return f"{said} Not comparable."
    if published.rows != official:
        return f"{said} Not comparable: this report is of {official or _NONE_OF_THEM}."
    if not comparable:
        return said
    number = float(published.accuracy.split()[0]) / 100
    if low <= number <= high:
        return f"{said} The same rows and training data: within the interval of this report."
    difference = 100 * abs(number - accuracy)
    return (
        f"{said} The same rows and training data: {difference:.1f} points {'above' if number > high else 'below'} us."
    )


def _other_data(report: Mapping[str, Any]) -> list[str]:
    """What is other than in publications, or not known, about labels and training data."""
    labels, training = report["labels"], report["training"]
    reasons = []
    if labels["evaluation"] != OWN_LABELS:
        reasons.append(f"it judges by {labels['evaluation']}")
    if training["counts"] is None or labels["train"] is None:
        reasons.append("the checkpoint does not say what it was trained on")
        return reasons
    if _official(training["counts"]) != "Training":
        reasons.append("the network was not trained on FER2013's Training rows, all of them and no others")
    if labels["train"] != OWN_LABELS:
        reasons.append(f"the network learnt from {labels['train']}")
    if training["beside"]:
        reasons.append(f"the network began from, or learnt from, {', '.join(training['beside'])}")
    return reasons
