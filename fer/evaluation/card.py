"""The model card of a checkpoint, in the form of Hugging Face: what it is for, what it is not for, what was measured.

Written from a report's metrics.json, so that card and report cannot disagree. Knows nothing of networks or files.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fer.evaluation.verdict import source_names

_USE = """\
## Intended use

Research and teaching on facial expressions, comparison of networks and recipes, and programs in which people watch
themselves by their own choice and a wrong answer does no harm. What the network sees is an expression, not a feeling:
a face may smile without joy, and nobody's face tells reliably what they feel.

## Unsuitable use

- Decisions about people: hiring, grading, insurance, credit, policing, border control, diagnosis, lie detection.
- In the European Union, inferring emotions at the workplace and in education has been prohibited since 2 February 2025,
  but for medical or safety reasons (AI Act, Article 5(1)(f)). Elsewhere, persons who are exposed to such a system must
  be told since 2 August 2026 (Article 50(3)).
- Watching people who do not know it or cannot refuse.
"""

_DATA = """\
FER2013's pictures come from a web search for words of emotion. Their rights are not cleared and the people on them were
not asked; the data set was published for research. Labels are noisy: people agree on about two of three faces. Posed
expressions are over-represented, and nothing is known about the balance of age, sex or skin colour."""


def card(metrics: Mapping[str, Any]) -> str:
    """The card as Markdown with YAML front matter.

    Args:
        metrics: content of a report's metrics.json; sections on robustness, minimum confidences and groups say that
            nothing was measured where it has nothing on them.
    """
    split = metrics["reported_split"]
    found = metrics[split]
    name = " + ".join(Path(checkpoint["path"]).stem for checkpoint in metrics["checkpoints"])
    head = [
        _front_matter(metrics, name),
        f"# {_text(name)}\n",
        f"Says which of {len(metrics['classes'])} expressions a gray 48x48 face shows: "
        f"{', '.join(map(_text, metrics['classes']))}. {_networks(metrics)}\n",
        _USE,
    ]
    sections = {
        "Training": _training(metrics),
        "Data": f"{_data(metrics, split)}\n\n{_DATA}",
        "Metrics": _metrics(metrics, split),
        "Calibration and minimum confidence": _calibration(metrics, split),
        "Robustness": _robustness(metrics.get("robustness")),
        "Groups of people": _groups(found.get("groups")),
        "Limits": _limits(metrics, split),
    }
    return "\n".join([*head, *(f"## {heading}\n\n{text}\n" for heading, text in sections.items())])


def _front_matter(metrics: Mapping[str, Any], name: str) -> str:
    """YAML; strings are written as JSON, which is YAML."""
    split = metrics["reported_split"]
    found = metrics[split]
    kind, source, rows = map(json.dumps, (Path(source_names(metrics)).stem, source_names(metrics), split))
    return f"""\
---
license: mit
library_name: fer-lightning
pipeline_tag: image-classification
tags: [facial-expression-recognition, emotion, fer2013]
metrics: [accuracy, f1]
model-index:
  - name: {json.dumps(name)}
    results:
      - task: {{type: image-classification, name: facial expression recognition}}
        dataset: {{type: {kind}, name: {source}, split: {rows}}}
        metrics:
          - type: accuracy
            name: Accuracy
            value: {found["accuracy"]:.4f}
          - type: f1
            name: Macro F1
            value: {found["f1"]:.4f}
---
"""


def _networks(metrics: Mapping[str, Any]) -> str:
    networks = sorted({checkpoint["network"] for checkpoint in metrics["checkpoints"]})
    what = f"Network: {', '.join(map(_text, networks))}"
    if len(metrics["checkpoints"]) > 1:
        what = f"An ensemble of {len(metrics['checkpoints'])}. {what}"
    digests = ", ".join(f"`{checkpoint['sha256'][:16]}`" for checkpoint in metrics["checkpoints"])
    return f"{what}. SHA-256 of the weights begins with {digests}."


def _training(metrics: Mapping[str, Any]) -> str:
    """What made the weights, as far as the checkpoints say it."""
    lines = []
    for checkpoint in metrics["checkpoints"]:
        made = checkpoint.get("provenance") or {}
        if "command" in made:
            commit = "" if not made.get("commit") else f", commit {made['commit'][:12]}"
            lines.append(
                f"Epoch {checkpoint['epoch']} of `{' '.join(made['command'].replace('`', '').split())}` "
                f"(version {made['version']}{commit}, seed {made['seed']}{_on(made)})."
            )
    return "\n\n".join(lines) or "The checkpoint does not say how it was made."


def _on(made: Mapping[str, Any]) -> str:
    """The machine and its precision; checkpoints of version 0.1 do not say."""
    return f"; {_text(str(made['machine']))}" if "machine" in made else ""


def _data(metrics: Mapping[str, Any], split: str) -> str:
    labels = metrics["labels"]
    trained = "are not known from the checkpoint" if labels["train"] is None else f"are {labels['train']}"
    return (
        f"Measured on {metrics[split]['images']:,} images of the {split} split of {_text(source_names(metrics))} "
        f"({_text(metrics['division'])}), judged by {_text(labels['evaluation'])}. "
        f"The labels of training {_text(trained)}."
    )


def _metrics(metrics: Mapping[str, Any], split: str) -> str:
    found = metrics[split]
    rows = []
    for title, of in ((split, found), (f"{split}, without copies of training faces", found["without_copies"])):
        if "accuracy" in of:
            intervals = (_share(of[key], of["interval95"][key]) for key in ("accuracy", "f1", "precision", "recall"))
            rows.append([title, f"{of['images']:,}", *intervals])
    per_class = [
        [_text(name), f"{of['images']:,}", *(_share(of[key], of["interval95"][key]) for key in ("precision", "recall"))]
        for name, of in found["per_class"].items()
    ]
    return (
        f"95 % intervals over images in brackets; test-time augmentation: {metrics['tta']}.\n\n"
        + _table(["", "images", "accuracy", "macro F1", "precision", "recall"], rows)
        + "\n\n"
        + _table(["class", "images", "precision", "recall"], per_class)
    )


def _calibration(metrics: Mapping[str, Any], split: str) -> str:
    found = metrics[split]
    temperatures = ", ".join(f"{checkpoint['temperature']:.2f}" for checkpoint in metrics["checkpoints"])
    calibration = found["calibration"]
    text = (
        f"Expected calibration error {found['ece']:.3f} (15 bins), temperature {temperatures}; perfect calibration "
        f"would have {calibration['ece_expected']:.3f} on as many images."
    )
    if "on_halves" in calibration:
        halves = calibration["on_halves"]
        text += (
            f" With the temperature fitted on one half of the images and judged on the other, {halves['ece']:.3f} "
            f"(perfect: {halves['ece_expected']:.3f}; means over 20 divisions)."
        )
    if "abstention" not in found:
        return f"{text} No minimum confidences were measured."
    rows = []
    for wanted, judged in found["abstention"]["thresholds"].items():
        if judged is None:
            rows.append([f"{float(wanted):.0%}", "not reached", "-", "-"])
        else:
            shares = (_share(judged[key], judged["interval95"][key]) for key in ("accuracy", "coverage"))
            rows.append([f"{float(wanted):.0%}", f"{judged['confidence']:.3f}", *shares])
    return f"{text} Answers from a minimum confidence on, judged on rows that it was not fitted on:\n\n" + _table(
        ["wanted", "minimum confidence", "right", "faces that get an answer"], rows
    )


def _robustness(robustness: Mapping[str, Any] | None) -> str:
    if robustness is None:
        return "Not measured on corrupted faces."
    rows = []
    for name, found in robustness["corruptions"].items():
        amounts = ", ".join(f"{amount:g}" for amount in found["severities"])
        shares = (f"{value:.1%}" for value in found["accuracy"])
        rows.append([name.replace("_", " "), f"{found['unit']}: {amounts}", *shares])
    count = next(iter(robustness["corruptions"].values()))["n"]
    relative = (
        "" if robustness["mce"] is None else f" Mean corruption error {robustness['mce']:.3f} (`cnn_7class` has 1)."
    )
    return (
        f"Accuracy {robustness['clean_accuracy']:.1%} on {count:,} clean faces, {robustness['mean_accuracy']:.1%} in "
        f"the mean over {len(rows)} corruptions at five severities (digest `{robustness['digest']}`).{relative}\n\n"
        + _table(["corruption", "severities", "1", "2", "3", "4", "5"], rows)
    )


def _groups(groupings: Mapping[str, Any] | None) -> str:
    if groupings is None:
        return "Not measured: nothing is known about who is on these pictures."
    rows, gaps = [], []
    for grouping, found in groupings.items():
        for group, own in found["groups"].items():
            few = " (few)" if group in found["few"] else ""
            shown = _share(own["accuracy"], own["interval95"])
            rows.append([_text(f"{grouping}: {group}{few}"), f"{own['images']:,}", shown])
        gap = found["largest_gap"]
        if gap is not None:
            gaps.append(
                f"Largest gap by {_text(grouping)}: {_text(gap['better'])} over {_text(gap['worse'])} by "
                f"{_share(gap['accuracy'], gap['interval95'])}."
            )
    return "\n\n".join([_table(["group", "images", "accuracy"], rows), *gaps])


def _limits(metrics: Mapping[str, Any], split: str) -> str:
    found = metrics[split]
    recall = {name: own["recall"] for name, own in found["per_class"].items() if own["images"]}
    weakest = min(recall, key=recall.__getitem__)
    lines = [f"- Weakest class: {_text(weakest)}, of which {recall[weakest]:.0%} are recognised."]
    if metrics.get("robustness") is not None:
        corruptions = metrics["robustness"]["corruptions"]
        worst = sorted(corruptions, key=lambda name: sum(corruptions[name]["accuracy"]))[:3]
        lines.append(f"- Worst corruptions: {', '.join(name.replace('_', ' ') for name in worst)}.")
    if split == "val":
        lines.append(
            "- The temperature was fitted on the split that is reported, and a best epoch chosen on it: the figures "
            "lean to the good side."
        )
    lines.append(
        "- A picture without a face, a drawn face or a face that is turned away gets an answer, too, and sometimes a "
        "confident one."
    )
    return "\n".join(lines)


def _share(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" + ("" if interval is None else f" ({interval[0]:.1%} to {interval[1]:.1%})")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _text(text: str) -> str:
    """A name from outside, in which nothing is markup."""
    for special in "\\`*_[]<>|#":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())
