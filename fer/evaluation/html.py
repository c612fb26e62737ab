"""report.html: one self-contained page with every number and picture of a report. Knows nothing of networks or data."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; margin-bottom: 0.2em; } h2 { font-size: 1.2em; margin: 2em 0 0.4em; }
table { border-collapse: collapse; margin: 0.6em 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25em 0.7em; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; font-weight: 600; } th:first-child, td:first-child { text-align: left; }
td.text { text-align: left; white-space: normal; } small { color: #666; }
figure { margin: 1.2em 0 2em; } figure img { max-width: 100%; }
figcaption { color: #444; font-size: 0.92em; max-width: 52em; }
code, pre { font: 13px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { background: #f6f6f6; padding: 0.8em; overflow-x: auto; }
"""

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

# Heading and caption by the name of the picture, in the order of the page.
CAPTIONS = {
    "ensemble": (
        "Ensemble and members",
        "Left: the ensemble beside its members. Right: the share of images on which two members differ.",
    ),
    "confusion_matrix": ("Confusion matrix", "Rows are labels, columns predictions."),
    "per_class": ("Precision, recall and F1 by class", "Whiskers are 95 % bootstrap intervals over images."),
    "roc": ("ROC curves", "Each class against all others; dotted is guessing."),
    "precision_recall": (
        "Precision-recall curves",
        "Each class against all others; dotted is the share of the class, which guessing reaches.",
    ),
    "reliability": (
        "Reliability",
        "Of the predictions with a confidence, the share that is right; dotted is perfect calibration. Below, how many "
        "predictions have that confidence. The temperature was fitted on the validation split.",
    ),
    "groups": (
        "Accuracy by group",
        "With 95 % intervals; dotted is the accuracy of all. Gray groups have too few rows to read a gap from.",
    ),
    "abstention": (
        "Saying nothing when unsure",
        "Left: the share of wrong answers when only the surest are given; dotted, a network that is surest where it is "
        "right. Right: what a minimum confidence does. Crosses are the minimum confidences of the table.",
    ),
    "mistakes": (
        "Most confident mistakes",
        "The mistakes that the network is most sure of, with the row of the source. Some are mistakes of the label.",
    ),
    "predictions": ("Random faces", "A random draw; red is wrong."),
    "robustness": (
        "Corrupted faces",
        "Accuracy by severity; dotted is that of the clean faces. Below each curve, a face at the first, third and "
        "fifth severity. What each corruption is: fer/data/corruptions.py.",
    ),
    "corruptions": ("One face under every corruption", "Clean, then severities 1 to 5."),
    "grad_cam": (
        "Grad-CAM",
        "Red is what speaks for the predicted class. A red caption is a wrong prediction. A map shows where "
        "evidence was found, not that it is a good reason.",
    ),
}


def render(report: Mapping[str, Any], pictures: Mapping[str, bytes], settings: str, title: str) -> str:
    """The page.

    Args:
        report: content of metrics.json.
        pictures: PNG files by name, NAME_SPLIT with NAME of `CAPTIONS`.
        settings: of the run, as YAML.
        title: of the page.
    """
    split = report["reported_split"]
    columns = [(split, report[split])]
    if "accuracy" in report[split].get("cleaned", {}):
        columns.append((f"{split} cleaned", report[split]["cleaned"]))
    without = report[split]["without_copies"]
    if without["removed"] and "accuracy" in without:
        columns.append((f"{split} without copies", without))
    columns += [(name, report[name]) for name in ("val",) if name in report and name != split]
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p><small>{escape(_summary(report))}</small></p>",
        "<h2>Numbers</h2>",
        _numbers(columns),
        f"<p><small>In brackets: 95 % intervals, bootstrap over images. {escape(_copies(report, split))} "
        f"{escape(about_labels(report))}</small></p>",
        f"<h2>By class ({split})</h2>",
        _per_class(report[split]["per_class"]),
    ]
    if "members" in report[split]:
        body += ["<h2>Members</h2>", _members(report, split)]
    for name, grouping in report[split].get("groups", {}).items():
        body += [f"<h2>By {escape(name)} ({split})</h2>", _groups(grouping)]
    if "abstention" in report[split]:
        body += [f"<h2>Answers from a minimum confidence on ({split})</h2>", _abstention(report[split], split)]
    if "robustness" in report:
        body += [f"<h2>Corrupted faces ({split})</h2>", _robustness(report["robustness"])]
    for name, (heading, caption) in CAPTIONS.items():
        for where in (split, *(key for key in ("val", "test") if key != split)):
            if f"{name}_{where}" in pictures:
                body.append(_figure(pictures[f"{name}_{where}"], f"{heading} ({where})", caption))
    body += [
        "<h2>Where this comes from</h2>",
        _provenance(report),
        f"<details><summary>All settings</summary><pre>{escape(settings)}</pre></details>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    page = [
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head><body>',
        *body,
        "</body></html>\n",
    ]
    return "\n".join(page)


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


def _copies(report: Mapping[str, Any], split: str) -> str:
    without = report[split]["without_copies"]
    if not without["removed"]:
        return f"No {split} image has an exact or near copy among the training images."
    return (
        f"{without['removed']:,} of the {split} images have an exact ({without['exact']:,}) or near copy among the "
        f"training images; the column '{split} without copies' leaves them out."
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


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in header)
    lines = "\n".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table>"


def _numbers(columns: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    rows = [["images", *(f"{metrics['images']:,}" for _, metrics in columns)]]
    for key, name in METRICS.items():
        rows.append([name, *(_number(metrics[key], metrics["interval95"].get(key)) for _, metrics in columns)])
    return _table(["", *(name for name, _ in columns)], rows)


def _per_class(per_class: Mapping[str, Any]) -> str:
    keys = ("precision", "recall", "f1", "auroc", "average_precision")
    rows = [
        [name, f"{metrics['images']:,}", *(_number(metrics[key], metrics["interval95"][key], 3) for key in keys)]
        for name, metrics in per_class.items()
    ]
    return _table(["class", "images", "precision", "recall", "F1", "AUROC", "average precision"], rows)


def _members(report: Mapping[str, Any], split: str) -> str:
    keys = ("accuracy", "f1", "loss", "ece")
    metrics = report[split]
    rows = [
        ["ensemble", *(_number(metrics[key], metrics["interval95"].get(key)) for key in keys)],
        *([member["path"], *(_number(member[key]) for key in keys)] for member in metrics["members"]),
    ]
    disagreement = metrics["disagreement"]
    return _table(["", "accuracy", "F1, macro", "NLL", "ECE"], rows) + (
        f"<p>Not all members agree on {disagreement['any']:.1%} of the images; two members differ on "
        f"{disagreement['mean_of_pairs']:.1%} on average; at least one is right on {disagreement['one_right']:.1%}.</p>"
    )


def _groups(grouping: Mapping[str, Any]) -> str:
    groups = grouping["groups"]
    classes = list(next(iter(groups.values()))["recall"]) if groups else []
    rows = [
        [
            name,
            f"{own['images']:,}",
            _number(own["accuracy"], own["interval95"], 3),
            *(_number(of["recall"], of["interval95"], 3) for of in own["recall"].values()),
        ]
        for name, own in groups.items()
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
    return _table(["", "images", "accuracy", *(f"recall, {name}" for name in classes)], rows) + f"<p>{escape(text)}</p>"


def _abstention(metrics: Mapping[str, Any], split: str) -> str:
    found = metrics["abstention"]
    rows = []
    for wanted, judged in found["thresholds"].items():
        if judged is None:
            rows.append([f"{float(wanted):.0%}", "not reached", "-", "-"])
            continue
        shares = (_number(judged[key], judged["interval95"][key], 3) for key in ("accuracy", "coverage"))
        rows.append([f"{float(wanted):.0%}", _number(judged["confidence"], digits=3), *shares])
    where = (
        "fitted on the validation split; right and answered are of the test split, with Wilson intervals"
        if split == "test"
        else "fitted on the validation split; right and answered are of one half of it with what was fitted on the "
        "other, mean and spread of 95 % of 20 divisions"
    )
    return _table(["wanted", "minimum confidence", "right", "answered"], rows) + (
        f"<p><small>Minimum confidences are {where}. Area under the risk-coverage curve: {found['area']:.4f}, 0 for a "
        "network without mistakes.</small></p>"
    )


def _robustness(robustness: Mapping[str, Any]) -> str:
    rows = []
    for name, found in robustness["corruptions"].items():
        means = (sum(found[key]) / len(found[key]) for key in ("accuracy", "f1", "ece", "changed"))
        accuracies = (f"{value:.3f}" for value in found["accuracy"])
        amounts = ", ".join(f"{amount:g}" for amount in found["severities"])
        rows.append([f"{name.replace('_', ' ')}: {amounts}", *accuracies, *(f"{mean:.3f}" for mean in means)])
    header = ["", *(f"accuracy at {severity}" for severity in range(1, 6)), "mean", "F1", "ECE", "changed"]
    count = next(iter(robustness["corruptions"].values()))["n"]
    return _table(header, rows) + (
        f"<p>Accuracy {robustness['clean_accuracy']:.4f} on the same {count:,} faces as they are, "
        f"{robustness['mean_accuracy']:.4f} in the mean over corruptions and severities. F1, ECE and the share of "
        "answers that changed are means over severities. Only results with the same digest of the corruptions, "
        f"{escape(robustness['digest'])}, can be compared.</p>"
    )


def _labels(report: Mapping[str, Any]) -> str:
    """A checkpoint outside a run does not say what it was trained on."""
    train, evaluation = report["labels"]["train"], report["labels"]["evaluation"]
    return f"judged by {evaluation}" if train is None else f"trained on {train}, judged by {evaluation}"


def _excluded(exclude: Mapping[str, Any]) -> str:
    return f"{exclude['list']}, {', '.join(exclude['reasons'])}: {exclude['action']}"


def _left_out(left_out: Mapping[str, Any]) -> str:
    """What only one of network and data knows."""
    faces = [f"{count:,} faces of {name}" for name, count in left_out["faces"].items()]
    return ", ".join([*(f"the class {name}" for name in left_out["classes"]), *faces])


def _figure(png: bytes, name: str, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return (
        f'<h2>{escape(name)}</h2><figure><img alt="{escape(name)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _provenance(report: Mapping[str, Any]) -> str:
    rows = []
    for checkpoint in report["checkpoints"]:
        rows += [
            ["checkpoint", checkpoint["path"]],
            ["sha256", checkpoint["sha256"]],
            ["network", f"{checkpoint['network']}, epoch {checkpoint['epoch']}, {checkpoint['weights']} weights"],
            ["temperature", f"{checkpoint['temperature']:.4f}"],
        ]
    rows += [
        ["test-time augmentation", report["tta"]],
        ["data", f"{report['data']}, {report['division']}"],
        *([["left out", _left_out(report["left_out"])]] if "left_out" in report else []),
        ["labels", _labels(report)],
        *([["exclude", _excluded(report["exclude"])]] if report["exclude"] else []),
        ["seed", str(report["seed"])],
        ["versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())],
        ["commit", report["commit"] or "-"],
    ]
    lines = "\n".join(
        f'<tr><td>{escape(key)}</td><td class="text"><code>{escape(value)}</code></td></tr>' for key, value in rows
    )
    return f"<table><tbody>\n{lines}\n</tbody></table>"
