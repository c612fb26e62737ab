"""Pictures of a report. Draws with matplotlib, without a display; knows nothing of networks or of what files mean."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter
from torch import Tensor
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

from fer import abstention
from fer.calibration import ECE_BINS, calibration_error
from fer.labels import emotion_color
from fer.sheets import Images, Labels, Sheet, caption

Array = npt.NDArray[np.float64]

_DPI = 110
_COLOURS = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]  # of networks
_POINTS = {"precision_90": ("o", "90 % precision"), "best_f1": ("D", "best F1")}
_EDGE = [withStroke(linewidth=2.5, foreground="dimgray")]  # so that bright lines are seen on white


def confusion_matrix(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Figure:
    """Counts on the left, shares of each row on the right (recall on the diagonal); labels are rows."""
    counts = np.asarray(matrix)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 0.62 * len(classes) + 1.7
    figure = _figure(2 * side + 1.2, side + 0.5, title)
    for axis, text, what in zip(
        figure.subplots(1, 2),
        ([[f"{value:,}" for value in row] for row in counts], [[f"{value:.0%}" for value in row] for row in share]),
        ("images", "share of the label's images"),
        strict=True,
    ):
        image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(counts.shape):
            colour = "white" if share[row, column] > 0.5 else "black"
            axis.text(column, row, text[row][column], ha="center", va="center", color=colour, fontsize=9)
        axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(classes)), classes)
        axis.set_xlabel("predicted")
        axis.set_title(what, fontsize=10)
    figure.axes[0].set_ylabel("label")
    figure.colorbar(image, ax=figure.axes, shrink=0.8, format=PercentFormatter(1), label="share of the label's images")
    return figure


def roc_curves(
    probabilities: Tensor, targets: Tensor, per_class: Mapping[str, Any], points: Mapping[str, Any], title: str
) -> Figure:
    """Each class against the rest: how many of its images are found, at how many false alarms.

    Args:
        probabilities: float (N, C).
        targets: int64 (N,).
        per_class: as in metrics.json, in the order of the columns.
        points: by class what is marked on its curve, as `fer.evaluation.metrics.judge_thresholds` returns it.
    """
    figure, axis = _square(title)
    axis.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle=":")
    for index, (name, metrics) in enumerate(per_class.items()):
        if metrics["auroc"] is not None:
            false, true, _ = binary_roc(probabilities[:, index], (targets == index).long())
            label = f"{name} {metrics['auroc']:.3f}"
            axis.plot(false, true, color=_colour(name), path_effects=_EDGE, label=label)
            for kind, (marker, _) in _POINTS.items():
                if (point := points[name][kind]) is not None:
                    place = point["false_positive_rate"], point["true_positive_rate"]
                    axis.plot(*place, marker, color=_colour(name), markeredgecolor="black", markersize=7, zorder=3)
    axis.set_xlabel("false positive rate")
    axis.set_ylabel("true positive rate (recall)")
    curves, _ = axis.get_legend_handles_labels()
    marks = [Line2D([], [], marker=m, color="gray", linestyle="", label=text) for m, text in _POINTS.values()]
    figure.legend(handles=[*curves, *marks], title="area under the curve", loc="outside right center", frameon=False)
    return figure


def precision_recall_curves(probabilities: Tensor, targets: Tensor, per_class: Mapping[str, Any], title: str) -> Figure:
    """Each class against the rest; dotted is what guessing reaches, the share of the class.

    Args: as for `roc_curves`, without points.
    """
    figure, axis = _square(title)
    for index, (name, metrics) in enumerate(per_class.items()):
        if metrics["average_precision"] is not None:
            precision, recall, _ = binary_precision_recall_curve(probabilities[:, index], (targets == index).long())
            colour, label = _colour(name), f"{name} {metrics['average_precision']:.3f}"
            axis.step(recall, precision, color=colour, where="pre", path_effects=_EDGE, label=label)
            axis.axhline(metrics["images"] / len(targets), color=colour, linewidth=1.2, linestyle=":")
    axis.set_xlabel("recall")
    axis.set_ylabel("precision")
    figure.legend(title="average precision", loc="outside right center", frameon=False)
    return figure


def reliability(before: Array, after: Array, targets: Labels, temperature: str, title: str) -> Figure:
    """How often predictions of a confidence are right, before and after temperature scaling.

    Args:
        before, after: float (N, C), probabilities.
        targets: int64 (N,).
        temperature: as text.
    """
    figure = _figure(9.6, 5.6, title)
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[4, 1])
    for column, (probabilities, name) in enumerate(
        ((before, "before, temperature 1"), (after, f"after, temperature {temperature}"))
    ):
        top, bottom = axes[0, column], axes[1, column]
        confidence, right = abstention.answers(probabilities, targets)
        inner_edges = np.linspace(0, 1, ECE_BINS + 1)[1:-1]
        place = np.digitize(confidence, inner_edges)
        count = np.bincount(place, minlength=ECE_BINS)
        some = count > 0
        accuracy = np.bincount(place, right, ECE_BINS)[some] / count[some]
        mean = np.bincount(place, confidence, ECE_BINS)[some] / count[some]
        centres = (np.arange(ECE_BINS) + 0.5) / ECE_BINS
        top.bar(centres[some], accuracy, 0.9 / ECE_BINS, color="tab:blue", alpha=0.75, label="accuracy")
        top.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle=":")
        top.plot(mean, accuracy, ".", color="black", markersize=5, label="mean confidence of the bin")
        top.set_ylim(0, 1)
        top.set_title(f"{name}: ECE {calibration_error(confidence, right):.3f}", fontsize=10)
        bottom.bar(centres, count / len(targets), 0.9 / ECE_BINS, color="tab:gray")
        bottom.set_xlim(0, 1)
        bottom.set_xlabel("confidence")
        bottom.yaxis.set_major_formatter(PercentFormatter(1))
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("images")
    axes[0, 0].legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def risk_coverage(confidence: Array, right: npt.NDArray[np.bool_], thresholds: Mapping[str, Any], title: str) -> Figure:
    """How often answers are wrong when only the surest are given, and what each minimum confidence does.

    Args:
        confidence: float (N,).
        right: (N,).
        thresholds: as in metrics.json: by share of right answers, None or "confidence", "accuracy" and "coverage".
    """
    confidences, coverage, risk = abstention.risk_coverage(confidence, right)
    figure = _figure(9.6, 4.4, title)
    left, axis = figure.subplots(1, 2)
    left.plot(coverage, risk, color="tab:blue", linewidth=1.3)
    best = np.maximum(0, 1 - right.mean() / np.maximum(coverage, 1e-9))
    left.plot(coverage, best, color="gray", linewidth=0.8, linestyle=":")
    left.set_xlabel("answered (coverage)")
    left.set_ylabel("wrong among the answers (risk)")
    axis.plot(confidences, 1 - risk, color="tab:blue", linewidth=1.3, label="right among the answers")
    axis.plot(confidences, coverage, color="tab:orange", linewidth=1.3, label="answered")
    axis.set_xlabel("minimum confidence")
    axis.legend(frameon=False, loc="lower left", fontsize=9)
    for wanted, found in thresholds.items():
        if found is not None and found["accuracy"] is not None:
            place = found["coverage"], 1 - found["accuracy"]
            left.plot(*place, "x", color="black")
            left.annotate(f"{float(wanted):.0%} right", place, (5, -9), textcoords="offset points", fontsize=8)
            axis.plot(found["confidence"], found["accuracy"], "x", color="black")
            axis.plot(found["confidence"], found["coverage"], "x", color="black")
    for each in (left, axis):
        each.set_xlim(0, 1)
        each.grid(alpha=0.3)
        each.xaxis.set_major_formatter(PercentFormatter(1))
        each.yaxis.set_major_formatter(PercentFormatter(1))
    left.set_ylim(0, max(0.05, 1.1 * float(risk.max())))
    axis.set_ylim(0, 1.02)
    return figure


def per_class_bars(per_class: Mapping[str, Any], title: str) -> Figure:
    """Precision, recall and F1 of each class with their 95 % intervals.

    Args:
        per_class: as in metrics.json.
    """
    figure = _figure(1.2 * len(per_class) + 1.6, 4.2, title)
    axis = figure.subplots()
    colours = [_colour(name) for name in per_class]
    hatches = {"precision": "////", "recall": "", "f1": "...."}
    for offset, (name, hatch) in enumerate(hatches.items()):
        values = np.array([metrics[name] for metrics in per_class.values()])
        ends = [metrics["interval95"][name] or [metrics[name]] * 2 for metrics in per_class.values()]
        low, high = np.array(ends).T
        axis.bar(
            np.arange(len(values)) + 0.27 * (offset - 1),
            values,
            0.25,
            yerr=[np.maximum(values - low, 0), np.maximum(high - values, 0)],
            color=colours,
            hatch=hatch,
            edgecolor="black",
            linewidth=0.6,
            error_kw={"elinewidth": 0.9, "capsize": 2},
        )
    names = [f"{name}\n{metrics['images']:,} images" for name, metrics in per_class.items()]
    axis.set_xticks(range(len(names)), names)
    axis.set_ylim(0, 1)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    keys = [
        Patch(facecolor="lightgray", edgecolor="black", hatch=hatch, label="F1" if name == "f1" else name)
        for name, hatch in hatches.items()
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, frameon=False)
    return figure


def group_bars(groupings: Mapping[str, Any], accuracy: float, title: str) -> Figure:
    """The accuracy of each group with its 95 % interval.

    Args:
        groupings: as in metrics.json.
        accuracy: of all rows.
    """
    rows = [
        (f"{grouping}: {group}\n{own['images']:,} images", "tab:gray" if group in found["few"] else "tab:blue", own)
        for grouping, found in groupings.items()
        for group, own in found["groups"].items()
    ]
    figure = _figure(8, 0.5 * len(rows) + 1.4, title)
    axis = figure.subplots()
    for position, (_, colour, own) in enumerate(rows):
        value, (low, high) = own["accuracy"], own["interval95"]
        axis.errorbar(value, position, xerr=[[value - low], [high - value]], fmt="o", color=colour, capsize=3)
    axis.axvline(accuracy, color="gray", linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    axis.grid(axis="x", alpha=0.3)
    return figure


def grad_cam_maps(
    images: Images,
    maps: npt.NDArray[np.float32],
    targets: Labels,
    probabilities: Array,
    classes: Sequence[str],
    title: str,
) -> Figure:
    """A row per class: each face beside the same face under its map.

    Args:
        images: uint8 (N, 48, 48).
        maps: float (N, 48, 48), 0 to 1, of the predicted class.
        targets: int64 (N,).
        probabilities: float (N, C).
        classes: names in the order of the columns.
    """
    columns = int(np.bincount(targets).max())
    sheet = Sheet(columns, len(classes), (images.shape[1], 2 * images.shape[2] + 2), above=7, left=26)
    for row, name in enumerate(classes):
        sheet.write_left(row, name)
        for column, i in enumerate(np.flatnonzero(targets == row)):
            heat = matplotlib.colormaps["inferno"](maps[i])[..., :3]
            gray = np.repeat(images[i, :, :, None] / 255, 3, axis=2)
            gap = np.ones((images.shape[1], 2, 3))
            text, colour = caption(probabilities[i], int(targets[i]), classes)
            sheet.add(row, column, np.hstack([gray, gap, 0.6 * gray + 0.4 * heat]), text, colour)
    return sheet.figure(title)


def ensemble(accuracies: Sequence[tuple[str, float, Sequence[float]]], disagreement: Array, title: str) -> Figure:
    """Accuracy of the ensemble and of its members, and how often each two members differ.

    Args:
        accuracies: name, accuracy and 95 % interval; the ensemble first.
        disagreement: (M, M), share of images on which two members predict different classes.
    """
    members = len(disagreement)
    height = 0.45 * max(members + 1, 4) + 1.4
    figure = _figure(height + 6.5, height, title)
    left, right = figure.subplots(1, 2, width_ratios=[6, height])
    for position, (_, value, (low, high)) in enumerate(accuracies):
        colour = "tab:orange" if position == 0 else "tab:blue"
        left.errorbar(value, position, xerr=[[value - low], [high - value]], fmt="o", color=colour, capsize=3)
        left.annotate(
            f"{value:.4f}", (value, position), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8
        )
    left.set_yticks(range(members + 1), [name for name, _, _ in accuracies])
    left.set_ylim(members + 0.5, -0.6)
    left.set_xlabel("accuracy with 95 % interval")
    left.grid(axis="x", alpha=0.3)
    image = right.imshow(disagreement, cmap="Oranges", vmin=0)
    for row, column in np.ndindex(disagreement.shape):
        colour = "white" if disagreement[row, column] > 0.6 * disagreement.max() else "black"
        right.text(column, row, f"{disagreement[row, column]:.0%}", ha="center", va="center", fontsize=8, color=colour)
    right.set_xticks(range(members), range(1, members + 1))
    right.set_yticks(range(members), range(1, members + 1))
    right.set_title("pairs of members that disagree", fontsize=10)
    figure.colorbar(image, ax=right, shrink=0.8, format=PercentFormatter(1))
    return figure


def corruption_curves(
    robustness: Mapping[str, Any],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    examples: Mapping[str, Images],
    title: str,
) -> Figure:
    """Accuracy by severity, a panel for each corruption with a face under severities 1, 3 and 5; the mean comes first.

    Args:
        robustness: as in metrics.json.
        curves: for each network, by its name, five accuracies by corruption.
        examples: by corruption, uint8 (6, S, S): a clean face, and the same at each severity.
    """
    corruptions = robustness["corruptions"]
    columns = 6
    rows = -(-(len(corruptions) + 1) // columns)
    figure = _figure(2.5 * columns, 2.9 * rows + 0.6, title)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axis, name in zip(axes, ["mean", *corruptions], strict=False):
        axis.axhline(robustness["clean_accuracy"], color="gray", linewidth=0.8, linestyle=":")
        for index, (label, found) in enumerate(curves.items()):
            values = np.mean(list(found.values()), axis=0) if name == "mean" else found[name]
            colour = "black" if index == 0 else _COLOURS[(index - 1) % 10]
            axis.plot(range(1, 6), values, ".-", color=colour, linewidth=1.4, label=label if name == "mean" else None)
        axis.set_title("mean of all" if name == "mean" else name.replace("_", " "), fontsize=10)
        axis.set_ylim(-0.5, 1)  # the faces lie below zero
        axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axis.yaxis.set_major_formatter(PercentFormatter(1))
        axis.grid(alpha=0.3)
        if name == "mean":
            amounts, unit = range(1, 6), "severity"
        else:
            amounts, unit = corruptions[name]["severities"], corruptions[name]["unit"]
            inset = axis.inset_axes((0.02, 0.01, 0.96, 0.31))
            inset.imshow(np.hstack(list(examples[name][[1, 3, 5]])), cmap="gray", vmin=0, vmax=255)
            inset.axis("off")
        axis.set_xticks(range(1, 6), [f"{amount:g}" for amount in amounts], fontsize=8)
        axis.set_xlabel(unit, fontsize=7)
    for axis in axes[len(corruptions) + 1 :]:
        axis.axis("off")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def corruption_sheet(corruptions: Mapping[str, Any], examples: Mapping[str, Images], title: str) -> Figure:
    """One face under every corruption: clean, then severities 1 to 5 with their amounts.

    Args:
        corruptions: by name, with "unit" and "severities", as in metrics.json.
        examples: by corruption, uint8 (6, S, S).
    """
    columns = 2
    height, width = next(iter(examples.values())).shape[1:]
    sheet = Sheet(columns, -(-len(examples) // columns), (height, 6 * (width + 2)), above=13)
    for position, (name, faces) in enumerate(examples.items()):
        framed = np.pad(faces, ((0, 0), (0, 0), (1, 1)), constant_values=255) / 255
        pixels = np.hstack(list(framed))[..., None]
        amounts = ", ".join(f"{amount:g}" for amount in corruptions[name]["severities"])
        caption = f"{name.replace('_', ' ')}: {corruptions[name]['unit']}\nclean, {amounts}"
        sheet.add(*divmod(position, columns), pixels, caption, "black")
    return sheet.figure(title)


def _colour(name: str) -> tuple[float, ...]:
    return tuple(part / 255 for part in emotion_color(name))


def _figure(width: float, height: float, title: str) -> Figure:
    """In inches."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure


def _square(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 5.2), dpi=_DPI, layout="constrained")
    axis = figure.subplots()
    axis.set_xlim(-0.01, 1.01)
    axis.set_ylim(-0.01, 1.01)
    axis.set_aspect("equal")
    axis.grid(alpha=0.3)
    axis.set_title(title, fontsize=11)
    return figure, axis
