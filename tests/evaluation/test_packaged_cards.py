"""The cards of the packaged networks say what their reports say, and both are of the files beside them."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fer.checkpoint import SPEC_KEY, read_checkpoint
from fer.evaluation.card import card
from fer.weights import FOLDER, names

REPORTS = Path(__file__).parents[1] / "weights"  # a report's metrics.json of each, by benchmarks/make_weights.sh


@pytest.fixture(params=names())
def report(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    found: dict[str, Any] = json.loads((REPORTS / f"{request.param}.json").read_text())
    return request.param, found


def test_the_card_is_made_from_the_report(report: tuple[str, dict[str, Any]]) -> None:
    name, metrics = report
    assert (FOLDER / f"{name}.md").read_text(encoding="utf-8") == card(metrics)


def test_the_report_is_of_the_packaged_file(report: tuple[str, dict[str, Any]]) -> None:
    name, metrics = report
    (measured,) = metrics["checkpoints"]
    assert measured["sha256"] == hashlib.sha256((FOLDER / f"{name}.ckpt").read_bytes()).hexdigest()
    spec = read_checkpoint(FOLDER / f"{name}.ckpt")[SPEC_KEY]
    assert metrics["classes"] == spec["classes"]
    assert measured["temperature"] == spec["temperatures"][metrics["tta"]]


def test_nothing_packaged_tells_where_it_was_made(report: tuple[str, dict[str, Any]]) -> None:
    name, metrics = report
    for text in (json.dumps(metrics), json.dumps(read_checkpoint(FOLDER / f"{name}.ckpt")[SPEC_KEY])):
        assert not re.findall(r"""["'=](/\w[^"'\s]*|[A-Z]:\\)""", text)
