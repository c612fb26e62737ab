"""The model card says what the report says, and what the network must not be used for."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fer.commands.card import main
from fer.errors import UserError
from fer.evaluation.card import card

CLASSES = ("angry", "happy", "sad")


def numbers(accuracy: float, images: int) -> dict[str, Any]:
    values = {key: accuracy - 0.01 * place for place, key in enumerate(("accuracy", "f1", "precision", "recall"))}
    return {
        "images": images,
        **values,
        "interval95": {key: [value - 0.02, value + 0.02] for key, value in values.items()},
    }


@pytest.fixture
def metrics() -> dict[str, Any]:
    """What a report writes, in small."""
    per_class = {name: numbers(0.8 - 0.1 * place, 100) for place, name in enumerate(CLASSES)}
    judged = {
        "confidence": 0.791,
        "accuracy": 0.904,
        "coverage": 0.474,
        "interval95": {"accuracy": [0.88, 0.928], "coverage": [0.444, 0.522]},
    }
    corruption = {
        "unit": "JPEG quality",
        "severities": [40, 25, 15, 10, 5],
        "accuracy": [0.6, 0.5, 0.4, 0.3, 0.2],
        "n": 70,
    }
    gap = {"better": "young", "worse": "o|d", "accuracy": 0.21, "interval95": [0.1, 0.3]}
    groups = {"young": {**numbers(0.8, 150)}, "o|d": {**numbers(0.59, 150)}}
    for own in groups.values():
        own["interval95"] = own["interval95"]["accuracy"]
    return {
        "checkpoints": [
            {
                "path": "/home/me/senet_7.ckpt",
                "sha256": "ab" * 32,
                "network": "senet",
                "epoch": 70,
                "temperature": 1.31,
                "provenance": {
                    "command": "train.py experiment=best_7",
                    "version": "0.2.0",
                    "commit": "c0ffee" * 6,
                    "seed": 3,
                    "machine": "H200, bf16-mixed",
                },
            }
        ],
        "classes": list(CLASSES),
        "tta": "none",
        "data": "/home/me/fer2013.csv",
        "division": "split official, split seed 0",
        "labels": {"train": None, "evaluation": "the given labels"},
        "reported_split": "val",
        "val": {
            **numbers(0.7074, 3589),
            "ece": 0.0283,
            "calibration": {"ece": 0.0283, "ece_expected": 0.017, "on_halves": {"ece": 0.031, "ece_expected": 0.024}},
            "per_class": per_class,
            "without_copies": {"removed": 484, **numbers(0.6886, 3105)},
            "abstention": {"thresholds": {"0.8": None, "0.9": judged}},
            "groups": {"age": {"groups": groups, "few": [], "without": 0, "largest_gap": gap}},
        },
        "robustness": {
            "corruptions": {"jpeg": corruption},
            "clean_accuracy": 0.713,
            "mean_accuracy": 0.565,
            "mce": 0.87,
            "digest": "20c48649fbf44151",
        },
    }


def front_matter(text: str) -> dict[str, Any]:
    _, head, _ = text.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(head)
    return found


def test_the_front_matter_is_hugging_faces(metrics: dict[str, Any]) -> None:
    head = front_matter(card(metrics))
    assert head["license"] == "mit"
    assert head["pipeline_tag"] == "image-classification"
    (model,) = head["model-index"]
    (result,) = model["results"]
    assert model["name"] == "senet_7"
    assert result["dataset"] == {"type": "fer2013", "name": "fer2013.csv", "split": "val"}
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {"accuracy": 0.7074, "f1": 0.6974}


def test_the_numbers_are_those_of_the_report(metrics: dict[str, Any]) -> None:
    text = card(metrics)
    for shown in (
        "| val | 3,589 | 70.7% (68.7% to 72.7%) |",
        "68.9% (66.9% to 70.9%)",
        "| sad | 100 | 58.0% (56.0% to 60.0%) | 57.0%",
        "| 80% | not reached |",
        "| 90% | 0.791 | 90.4% (88.0% to 92.8%) | 47.4% (44.4% to 52.2%) |",
        "0.028 (15 bins), temperature 1.31; perfect calibration would have 0.017",
        "judged on the other, 0.031 (perfect: 0.024;",
        "Epoch 70 of `train.py experiment=best_7` (version 0.2.0, commit c0ffeec0ffee, seed 3; H200, bf16-mixed).",
        "| jpeg | JPEG quality: 40, 25, 15, 10, 5 | 60.0% | 50.0% | 40.0% | 30.0% | 20.0% |",
        "`20c48649fbf44151`",
        "Mean corruption error 0.870 (`cnn_7class` has 1).",
        r"young over o\|d by 21.0% (10.0% to 30.0%)",
        "Weakest class: sad, of which 57%",
        "lean to the good side",
    ):
        assert shown in text, shown
    assert "/home/me" not in text  # nothing of the machine that measured
    changed = copy.deepcopy(metrics)
    changed["val"]["accuracy"] = 0.1234
    assert "12.3%" in card(changed)


def test_it_says_what_it_must_not_be_used_for(metrics: dict[str, Any]) -> None:
    text = re.sub(r"\s+", " ", card(metrics))
    for said in (
        "an expression, not a feeling",
        "Decisions about people",
        "prohibited since 2 February 2025, but for medical or safety reasons (AI Act, Article 5(1)(f))",
        "must be told since 2 August 2026 (Article 50(3))",
        "rights are not cleared",
    ):
        assert said in text


def test_what_was_not_measured_is_said(metrics: dict[str, Any]) -> None:
    del metrics["robustness"], metrics["val"]["abstention"], metrics["val"]["groups"]
    metrics["test"], metrics["reported_split"] = metrics["val"], "test"
    text = card(metrics)
    for said in ("Not measured on corrupted faces", "No minimum confidences", "nothing is known about who is on these"):
        assert said in text
    assert "lean to the good side" not in text


def test_names_from_outside_are_no_markup(metrics: dict[str, Any]) -> None:
    metrics["checkpoints"][0]["path"] = 'x: "y"\n# <b>.ckpt'
    text = card(metrics)
    assert front_matter(text)["model-index"][0]["name"] == 'x: "y"\n# <b>'
    assert '# x: "y" \\# \\<b\\>\n' in text


def test_the_command_writes_it_beside_the_numbers(
    metrics: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="no report"):
        main([str(tmp_path)])
    (tmp_path / "metrics.json").write_text(json.dumps({"classes": ["happy"]}))
    with pytest.raises(UserError, match="lacks"):
        main([str(tmp_path)])
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "README.md").read_text() == card(metrics)
    assert str(tmp_path / "README.md") in capsys.readouterr().out
