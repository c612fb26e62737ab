"""What is measured on corrupted faces agrees with a plain loop, for one network and for several."""

import json
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch

from fer.checkpoint import load_network
from fer.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, digest
from fer.data.faces import VAL
from fer.data.reader import read
from fer.data.synthetic import make_faces
from fer.evaluation.robustness import _REFERENCE, choose_faces, digest_of, mean_corruption_error, measure_robustness
from fer.labels import EMOTIONS
from fer.models.network import EmotionNetwork, NetworkSpec

PACKAGED = Path(__file__).parents[2] / "fer" / "weights" / "senet_7.ckpt"
SOME = {name: CORRUPTIONS[name] for name in ("defocus", "jpeg", "shift")}


def network(seed: int, image_size: int = 48) -> EmotionNetwork:
    torch.manual_seed(seed)
    spec = NetworkSpec("net", EMOTIONS, image_size, kwargs={"widths": [4, 8, 8, 8]}, standardise=True)
    return EmotionNetwork(spec).eval()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three corruptions in place of all."""
    monkeypatch.setattr("fer.evaluation.robustness.CORRUPTIONS", SOME)


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    faces = make_faces(train=40, val=0, test=0, seed=0)
    return torch.from_numpy(faces.images).unsqueeze(1), torch.from_numpy(faces.labels)


@pytest.mark.usefixtures("few")
def test_the_numbers_are_those_of_a_plain_loop(drawn: tuple[torch.Tensor, torch.Tensor]) -> None:
    """With a network that enlarges its faces, as a checkpoint of another size does."""
    faces, targets = drawn
    tested = network(0, image_size=64)
    found = measure_robustness([(tested, 2.0)], faces, targets)
    assert list(found["corruptions"]) == list(SOME)
    assert found["digest"] == digest()
    assert "members" not in found
    with torch.inference_mode():
        clean = tested(faces).argmax(dim=1)
        assert found["clean_accuracy"] == pytest.approx(float((clean == targets).double().mean()))
        for name in SOME:
            measured = found["corruptions"][name]
            assert measured["n"] == 40
            assert measured["severities"] == list(CORRUPTIONS[name].amounts)
            for severity in SEVERITIES:
                probabilities = torch.softmax(tested(corrupt(faces, name, severity)) / 2.0, dim=1)
                answers = probabilities.argmax(dim=1)
                expected = {
                    "accuracy": float((answers == targets).double().mean()),
                    "changed": float((answers != clean).double().mean()),
                    "f1": sklearn.metrics.f1_score(targets, answers, average="macro"),
                }
                for key, value in expected.items():
                    assert measured[key][severity - 1] == pytest.approx(value, abs=1e-6), key
    every = [found["corruptions"][name]["accuracy"] for name in SOME]
    assert found["mean_accuracy"] == pytest.approx(np.mean(every))


@pytest.mark.usefixtures("few")
def test_several_networks_are_curves_and_their_ensemble_one_more(drawn: tuple[torch.Tensor, torch.Tensor]) -> None:
    faces, targets = drawn
    pair = [(network(0), 1.0), (network(1), 1.0)]
    both = measure_robustness(pair, faces, targets, tta="flip")
    for member, own in zip(both["members"], pair, strict=True):
        alone = measure_robustness([own], faces, targets, tta="flip")
        assert member["clean_accuracy"] == alone["clean_accuracy"]
        assert member["mean_accuracy"] == pytest.approx(alone["mean_accuracy"])
        assert member["corruptions"]["jpeg"] == alone["corruptions"]["jpeg"]["accuracy"]
    twice = measure_robustness([pair[0], pair[0]], faces, targets, tta="flip")
    assert twice["corruptions"]["jpeg"]["accuracy"] == twice["members"][0]["corruptions"]["jpeg"]


def test_faces_are_chosen_alike_and_kept_in_order() -> None:
    faces = torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1)
    targets = torch.arange(100)
    some, theirs = choose_faces(faces, targets, 30)
    assert theirs.tolist() == some.flatten().tolist() == sorted(set(theirs.tolist()))
    assert len(some) == 30
    assert theirs.tolist() != list(range(30))
    assert torch.equal(choose_faces(faces, targets, 30)[1], theirs)
    for count in (None, 100, 500):
        assert len(choose_faces(faces, targets, count)[0]) == 100


def test_the_packaged_network_loses_under_every_corruption(fer2013_zip: Path) -> None:
    rows = read(fer2013_zip)
    rows = rows.select(rows.splits == VAL)
    faces, targets = choose_faces(torch.from_numpy(rows.images).unsqueeze(1), torch.from_numpy(rows.labels), 200)
    tested = load_network(PACKAGED).to(memory_format=torch.channels_last)

    def accuracy(shown: torch.Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16):  # half the time on processors that know it
            return float((tested.probabilities(shown).argmax(dim=1) == targets).double().mean())

    clean = accuracy(faces)
    for name in CORRUPTIONS:
        assert clean - accuracy(corrupt(faces, name, 5)) >= 0.02, name


def test_the_mean_corruption_error_is_relative_to_the_reference_on_its_own_faces(
    drawn: tuple[torch.Tensor, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces, _ = drawn
    accuracy = {"defocus": [0.8, 0.6, 0.5, 0.4, 0.2], "shift": [0.9] * 5}
    reference = {"classes": list(EMOTIONS), "faces": digest_of(faces), "digest": digest(), "accuracy": accuracy}
    (tmp_path / "reference.json").write_text(json.dumps(reference))
    monkeypatch.setattr("fer.evaluation.robustness._REFERENCE", tmp_path / "reference.json")
    half = {name: {"accuracy": [1 - (1 - value) / 2 for value in values]} for name, values in accuracy.items()}
    worse = half | {"shift": {"accuracy": [0.8] * 5}}
    for corruptions, expected in ((half, 0.5), (worse, (0.5 + 2) / 2)):
        found = {"corruptions": corruptions, "digest": digest()}
        assert mean_corruption_error(found, faces, EMOTIONS) == pytest.approx(expected)
    assert mean_corruption_error({"corruptions": half, "digest": "older"}, faces, EMOTIONS) is None
    assert mean_corruption_error({"corruptions": half, "digest": digest()}, faces[1:], EMOTIONS) is None
    assert mean_corruption_error({"corruptions": half, "digest": digest()}, faces, EMOTIONS[:4]) is None


def test_the_stored_reference_is_of_todays_corruptions() -> None:
    reference = json.loads(_REFERENCE.read_text())
    assert reference["digest"] == digest()
    assert list(reference["accuracy"]) == list(CORRUPTIONS)
    assert reference["classes"] == list(EMOTIONS)
    assert all(
        0.1 < value < reference["clean_accuracy"] + 0.02 for row in reference["accuracy"].values() for value in row
    )
