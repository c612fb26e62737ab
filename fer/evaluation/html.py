"""report.html: one self-contained page with every number and picture of a report. Knows nothing of networks or data."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fer.evaluation.verdict import verdict
from fer.labels import emotion_color

TEMPLATE = Path(__file__).with_name("report.html.jinja")

METRICS = {
    "accuracy": "accuracy",
    "f1": "F1, macro",
    "precision": "precision, macro",
    "recall": "recall, macro",
    "weighted_f1": "F1, weighted",
    "weighted_precision": "precision, weighted",
    "weighted_recall": "recall, weighted",
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC, one against the rest",
    "average_precision": "average precision",
    "loss": "negative log-likelihood",
    "brier": "Brier score",
    "ece": "ECE, 15 bins",
}

# The pictures of the training run, by the names of their files in plots/.
TRAINING = ("training_progress", "samples", "architecture")

# By the name of the picture: its heading, and how to read it.
CAPTIONS = {
    "training_progress": (
        "Training curves",
        "By epoch. Good training lifts val together with train; where train rises and val does not, the network learns "
        "its faces by heart. The dot is the epoch of best.ckpt.",
    ),
    "samples": (
        "Training faces",
        "Some faces of each class, each beside a copy as the network sees it in training: turned, shifted, covered. "
        "The expression should still be seen in the copy.",
    ),
    "architecture": (
        "The network",
        "From the face to the probabilities, block by block, with the shape that each passes on and its parameters.",
    ),
    "ensemble": (
        "Ensemble and members",
        "Left: the ensemble beside its members; it helps where its interval lies right of theirs. Right: the share of "
        "images on which two members differ; members that never differ add nothing.",
    ),
    "confusion_matrix": (
        "Confusion matrix",
        "A row says what the faces of one label were taken for; on the diagonal they were named right. Dark cells off "
        "the diagonal are classes that the network mixes up.",
    ),
    "per_class": (
        "Precision, recall and F1 by class",
        "Precision: how many of the faces that were called so are so. Recall: how many of those that are so were "
        "called so. F1 is low when either is. Whiskers are 95 % bootstrap intervals over images.",
    ),
    "roc": (
        "ROC curves",
        "Each class against all others: the closer to the upper left corner, the better; dotted is guessing. Circles "
        "and diamonds are the thresholds of the table above.",
    ),
    "precision_recall": (
        "Precision-recall curves",
        "Each class against all others: the closer to the upper right corner, the better; dotted is the share of the "
        "class, which guessing reaches.",
    ),
    "reliability": (
        "Reliability",
        "Bars on the dotted line are honest confidences: of the predictions with 80 %, 80 % are right. Bars below it "
        "are too sure, above it too modest. Underneath, how many predictions have that confidence. A temperature "
        "is fitted on the validation split.",
    ),
    "groups": (
        "Accuracy by group",
        "Intervals that do not overlap are a gap; dotted is the accuracy of all. Gray groups have too few rows to read "
        "a gap from.",
    ),
    "abstention": (
        "Saying nothing when unsure",
        "Left: the share of wrong answers when only the surest are given; dotted, a network that is surest where it is "
        "right. Right: what a minimum confidence does. Crosses are the minimum confidences of the table.",
    ),
    "mistakes": (
        "Most confident mistakes",
        "The mistakes that the network is most sure of, with the row of the source. Look for what they share; some are "
        "mistakes of the label.",
    ),
    "predictions": (
        "Random faces",
        "A random draw, to see what the faces are like; red with a cross is wrong, with the label below.",
    ),
    "robustness": (
        "Corrupted faces",
        "Accuracy by severity: a curve that falls early is a weakness; dotted is the accuracy on the clean faces. "
        "Below each curve, a face at the first, third and fifth severity. What each is: fer/data/corruptions.py.",
    ),
    "corruptions": (
        "One face under every corruption",
        "Clean, then severities 1 to 5: how much you yourself can still see.",
    ),
    "grad_cam": (
        "Grad-CAM",
        "Bright is what speaks for the predicted class. Red with a cross is a wrong prediction. A map shows where "
        "evidence was found, not that it is a good reason.",
    ),
}


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row says what it is about, and has the colour of its class in `colors`."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    colors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A picture with its heading and how to read it."""

    heading: str
    caption: str
    webp: str  # base64


Block = Table | Picture | str  # a text is a paragraph


@dataclass(frozen=True)
class Section:
    """A part of the page with a line in the table of contents."""

    heading: str
    blocks: Sequence[Block]


def render(report: Mapping[str, Any], pictures: Mapping[str, bytes], settings: str, title: str) -> str:
    """The page.

    Args:
        report: content of metrics.json.
        pictures: WebP files by name: those of `TRAINING`, and NAME_SPLIT with NAME of `CAPTIONS`.
        settings: of the run, as YAML.
        title: of the page.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    sections = [section for section in _sections(report, pictures) if section.blocks]
    return environment.get_template(TEMPLATE.name).render(
        title=title,
        verdict=verdict(report),
        sections=sections,
        provenance=_provenance(report),
        settings=settings,
    )


def _sections(report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Iterable[Section]:
    split = report["reported_split"]
    found = report[split]

    def drawn(*names: str) -> list[Block]:
        """The pictures of the reported split, and the confusion matrix of the other one."""
        places = [split, *(key for key in ("val", "test") if key != split)]
        return [
            _picture(pictures[f"{name}_{where}"], name, where)
            for name in names
            for where in places
            if f"{name}_{where}" in pictures
        ]

    yield Section("Training", [_picture(pictures[name], name) for name in TRAINING if name in pictures])
    yield Section("Numbers", [_summary(report), *_numbers(report, split)])
    yield Section("By class", [*_per_class(found["per_class"]), *drawn("per_class", "confusion_matrix")])
    yield Section(
        "Operating points", [*_operating_points(found["operating_points"], split), *drawn("roc", "precision_recall")]
    )
    unsure = _abstention(found, split) if "abstention" in found else []
    yield Section("Confidence", [*drawn("reliability"), *unsure, *drawn("abstention")])
    yield Section("Members", [*(_members(found) if "members" in found else []), *drawn("ensemble")])
    groups = [block for name, grouping in found.get("groups", {}).items() for block in _groups(name, grouping)]
    yield Section("Groups", [*groups, *drawn("groups")])
    corrupted = _robustness(report["robustness"]) if "robustness" in report else []
    yield Section("Corrupted faces", [*corrupted, *drawn("robustness", "corruptions")])
    yield Section("Faces", drawn("mistakes", "predictions", "grad_cam"))


def _picture(webp: bytes, name: str, where: str | None = None) -> Picture:
    heading, caption = CAPTIONS[name]
    return Picture(heading if where is None else f"{heading} ({where})", caption, base64.b64encode(webp).decode())


def _number(value: float | None, interval: Sequence[float] | None = None, digits: int = 4) -> str:
    """A value with its interval, as text."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval is not None else "")


def _summary(report: Mapping[str, Any]) -> str:
    split = report["reported_split"]
    return (
        f"{report[split]['images']:,} images of the {split} split of {report['data']}, classes "
        f"{', '.join(report['classes'])}; test-time augmentation: {report['tta']}"
    )


def about_labels(report: Mapping[str, Any]) -> str:
    """Whose labels the network was trained on and is judged by, and what the cleaned split leaves out."""
    exclude = report["exclude"]
    text = f"Labels: {_labels(report)}."
    if exclude is None:
        return text
    removed = report[report["reported_split"]]["cleaned"]["removed"]
    what = f"{removed:,} of the {report['reported_split']} images are" if removed else "None of its images is"
    return f"{text} {what} on {exclude['list']} for {', '.join(exclude['reasons'])}; 'cleaned' leaves them out."


def _numbers(report: Mapping[str, Any], split: str) -> list[Block]:
    columns = [(split, report[split])]
    if "accuracy" in report[split].get("cleaned", {}):
        columns.append((f"{split} cleaned", report[split]["cleaned"]))
    if "accuracy" in report[split]["without_copies"]:
        columns.append((f"{split} without copies", report[split]["without_copies"]))
    if split != "val" and "val" in report:
        columns.append(("val", report["val"]))
    rows = [["images", *(f"{metrics['images']:,}" for _, metrics in columns)]]
    for key, name in METRICS.items():
        rows.append([name, *(_number(metrics[key], metrics["interval95"].get(key)) for _, metrics in columns)])
    note = f"In brackets: 95 % intervals, bootstrap over images. {about_labels(report)}"
    return [Table(["", *(name for name, _ in columns)], rows), note]


def _colors(names: Iterable[str]) -> dict[str, str]:
    return {name: "#{:02x}{:02x}{:02x}".format(*emotion_color(name)) for name in names}


def _per_class(per_class: Mapping[str, Any]) -> list[Block]:
    keys = ("recall", "precision", "f1", "auroc", "average_precision")
    ordered = weakest_first(per_class)
    rows = [
        [name, f"{metrics['images']:,}", *(_number(metrics[key], metrics["interval95"][key], 3) for key in keys)]
        for name, metrics in ordered.items()
    ]
    header = ["class", "images", "recall", "precision", "F1", "AUROC", "average precision"]
    return [Table(header, rows, _colors(per_class)), "The class that is recognised least comes first."]


def weakest_first(per_class: Mapping[str, Any]) -> dict[str, Any]:
    """Classes by recall, those without images last."""
    return dict(sorted(per_class.items(), key=lambda item: (not item[1]["images"], item[1]["recall"])))


def _operating_points(points: Mapping[str, Any], split: str) -> list[Block]:
    rows = []
    for name, kinds in points["classes"].items():
        row = [name]
        for kind, goal in (("precision_90", "precision"), ("best_f1", "f1")):
            judged = kinds[kind]
            if judged is None:
                row += ["not reached", *["-"] * 4]
                continue
            shares = (_number(judged[key], digits=3) for key in (goal, "true_positive_rate", "false_positive_rate"))
            row += [_number(judged["threshold"], digits=3), f"{judged['called']:,}", *shares]
        rows.append(row)
    rates = ("true positive rate", "false positive rate")
    header = ["class", "at 90 % precision: threshold", "called", "precision", *rates]
    header += ["at best F1: threshold", "called", "F1", *rates]
    chosen_on = points["chosen_on"]
    own = chosen_on == split
    note = (
        "A face is called a class when that class has at least this probability, whatever the others have. Thresholds "
        f"were chosen on {'these same' if own else 'the'} {chosen_on} rows"
        f"{', so the figures lean to the good side' if own else f' and judged on {split}'}. True positive rate: the "
        "share of the class that is called so; false positive rate: the share of all other faces that is called so."
    )
    return [Table(header, rows, _colors(points["classes"])), note]


def _members(metrics: Mapping[str, Any]) -> list[Block]:
    keys = ("accuracy", "f1", "loss", "ece")
    rows = [
        ["ensemble", *(_number(metrics[key], metrics["interval95"].get(key)) for key in keys)],
        *([member["path"], *(_number(member[key]) for key in keys)] for member in metrics["members"]),
    ]
    disagreement = metrics["disagreement"]
    note = (
        f"Not all members agree on {disagreement['any']:.1%} of the images; two members differ on "
        f"{disagreement['mean_of_pairs']:.1%} on average; at least one is right on {disagreement['one_right']:.1%}."
    )
    return [Table(["", "accuracy", "F1, macro", "NLL", "ECE"], rows), note]


def _groups(name: str, grouping: Mapping[str, Any]) -> list[Block]:
    groups = grouping["groups"]
    classes = list(next(iter(groups.values()))["recall"]) if groups else []
    rows = [
        [
            group,
            f"{own['images']:,}",
            _number(own["accuracy"], own["interval95"], 3),
            *(_number(of["recall"], of["interval95"], 3) for of in own["recall"].values()),
        ]
        for group, own in groups.items()
    ]
    gap, text = grouping["largest_gap"], ""
    if gap is not None:
        text = (
            f"Largest gap in accuracy: {gap['better']} over {gap['worse']} by "
            f"{_number(gap['accuracy'], gap['interval95'], 3)}. "
        )
    if grouping["few"]:
        text += f"Too few rows to read a gap from: {', '.join(grouping['few'])}. "
    if grouping["without"]:
        text += f"{grouping['without']:,} rows are in no group."
    table = Table([f"by {name}", "images", "accuracy", *(f"recall, {label}" for label in classes)], rows)
    return [table, *([text] if text else [])]


def _abstention(metrics: Mapping[str, Any], split: str) -> list[Block]:
    found = metrics["abstention"]
    rows = []
    for wanted, judged in found["thresholds"].items():
        if judged is None:
            rows.append([f"{float(wanted):.0%}", "not reached", "-", "-"])
            continue
        shares = (_number(judged[key], judged["interval95"][key], 3) for key in ("accuracy", "coverage"))
        rows.append([f"{float(wanted):.0%}", _number(judged["confidence"], digits=3), *shares])
    where = (
        "the test split, with Wilson intervals"
        if split == "test"
        else "one half of it with what was fitted on the other, mean and spread of 95 % of 20 divisions"
    )
    note = (
        f"Minimum confidences are fitted on the validation split; right and answered are of {where}. Area under the "
        f"risk-coverage curve: {found['area']:.4f}, 0 for a network without mistakes."
    )
    return [Table(["wanted", "minimum confidence", "right", "answered"], rows), note]


def _robustness(robustness: Mapping[str, Any]) -> list[Block]:
    rows = []
    for name, found in robustness["corruptions"].items():
        means = (sum(found[key]) / len(found[key]) for key in ("accuracy", "f1", "ece", "changed"))
        accuracies = (f"{value:.3f}" for value in found["accuracy"])
        amounts = ", ".join(f"{amount:g}" for amount in found["severities"])
        rows.append([f"{name.replace('_', ' ')}: {amounts}", *accuracies, *(f"{mean:.3f}" for mean in means)])
    header = ["", *(f"accuracy at {severity}" for severity in range(1, 6)), "mean", "F1", "ECE", "changed"]
    count = next(iter(robustness["corruptions"].values()))["n"]
    note = (
        f"Accuracy {robustness['clean_accuracy']:.4f} on the same {count:,} faces as they are, "
        f"{robustness['mean_accuracy']:.4f} in the mean over corruptions and severities. F1, ECE and the share of "
        "answers that changed are means over severities. Only results with the same digest of the corruptions, "
        f"{robustness['digest']}, can be compared."
    )
    if robustness["mce"] is not None:
        note += (
            f" Mean corruption error: {robustness['mce']:.3f}; the network of experiment=cnn_7class has 1, and one "
            "that errs half as often on corrupted faces 0.5."
        )
    return [Table(header, rows), note]


def _labels(report: Mapping[str, Any]) -> str:
    """A checkpoint outside a run does not say what it was trained on."""
    train, evaluation = report["labels"]["train"], report["labels"]["evaluation"]
    return f"judged by {evaluation}" if train is None else f"trained on {train}, judged by {evaluation}"


def _left_out(left_out: Mapping[str, Any]) -> str:
    """What only one of network and data knows."""
    faces = [f"{count:,} faces of {name}" for name, count in left_out["faces"].items()]
    return ", ".join([*(f"the class {name}" for name in left_out["classes"]), *faces])


def _provenance(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for checkpoint in report["checkpoints"]:
        rows += [
            ("checkpoint", checkpoint["path"]),
            ("sha256", checkpoint["sha256"]),
            ("network", f"{checkpoint['network']}, epoch {checkpoint['epoch']}, {checkpoint['weights']} weights"),
            ("temperature", f"{checkpoint['temperature']:.4f}"),
        ]
        if "machine" in (made := checkpoint["provenance"]):
            rows.append(("training machine", str(made["machine"])))
    rows += [
        ("test-time augmentation", report["tta"]),
        ("data", f"{report['data']}, {report['division']}"),
        *([("left out", _left_out(report["left_out"]))] if "left_out" in report else []),
        ("labels", _labels(report)),
        ("seed", str(report["seed"])),
        ("versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())),
        ("commit", report["commit"] or "-"),
    ]
    if (exclude := report["exclude"]) is not None:
        rows.append(("exclude", f"{exclude['list']}, {', '.join(exclude['reasons'])}: {exclude['action']}"))
    return rows
