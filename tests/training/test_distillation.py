"""A student learns what its teachers say, and takes nothing else from them."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_resume import LAST, Interrupt, weights
from torch import Tensor, nn

from fer.checkpoint import read_checkpoint
from fer.classifier import Distillation, EmotionClassifier
from fer.data.datamodule import FER2013DataModule
from fer.data.faces import TRAIN
from fer.errors import UserError
from fer.labels import VOTED_ON
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.settings.train import DataSettings, TrainSettings
from fer.training.callbacks import AtomicCheckpointIO
from fer.training.distillation import Teachers
from fer.training.run import build_classifier, check, train

pytestmark = pytest.mark.usefixtures("unrendered")

CLASSES = ("angry", "happy", "sad")
MORE = ("sad", "neutral", "happy", "angry")
SEVEN = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
FACES = torch.randint(0, 256, (6, 1, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
Settings = Callable[..., TrainSettings]


def network(classes: tuple[str, ...] = CLASSES, image_size: int = 48, seed: int = 0) -> EmotionNetwork:
    torch.manual_seed(seed)
    return EmotionNetwork(NetworkSpec("net", classes, image_size, kwargs={"widths": [4, 8]}))


def saved(file: Path, made: EmotionNetwork) -> Path:
    content: dict[str, object] = {"state_dict": EmotionClassifier(made).state_dict()}
    EmotionClassifier(made).on_save_checkpoint(content)
    AtomicCheckpointIO().save_checkpoint(content, file)
    return file


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of all seven classes."""
    return saved(tmp_path_factory.mktemp("teacher") / "seven.ckpt", network(SEVEN, 32, seed=7))


def test_several_teachers_of_other_sizes_and_more_classes(tmp_path: Path) -> None:
    one, two = network(seed=1), network(MORE, image_size=32, seed=2)
    teachers = Teachers([saved(tmp_path / "1.ckpt", one), saved(tmp_path / "2.ckpt", two)], CLASSES, temperature=3.0)
    with torch.no_grad():
        of_one = torch.softmax(one.eval()(FACES) / 3, dim=1)
        of_two = torch.softmax(two.eval()(FACES) / 3, dim=1)[:, [3, 2, 0]]
    of_two = of_two / of_two.sum(dim=1, keepdim=True)  # what it says of neutral is left out
    answers = teachers(FACES)
    torch.testing.assert_close(answers, (of_one + of_two) / 2)
    assert not answers.requires_grad


def size_of(sizes: list[int], tensor: Tensor) -> int:
    sizes.append(tensor.nbytes)
    return sizes[-1]


def test_teachers_keep_nothing_for_a_backward_pass(tmp_path: Path) -> None:
    """So their features need the memory of one layer at a time, whatever their number."""
    student = network(seed=1)
    teachers = Teachers([saved(tmp_path / "1.ckpt", student)] * 2, CLASSES, temperature=3.0)
    kept = []
    for ask in (teachers, student):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(partial(size_of, sizes), lambda size: size):
            ask(FACES)
        kept.append(sum(sizes))
    assert kept[0] == 0 < kept[1]


def test_a_teacher_without_a_class_is_refused(settings: Settings, tmp_path: Path) -> None:
    file = saved(tmp_path / "few.ckpt", network())
    with pytest.raises(UserError, match=r"few\.ckpt does not know disgust, fear, surprise, neutral; what it can teach"):
        check(settings(f"teacher={file}"))


def module(weight: float, auxiliary: float = 0.0) -> EmotionClassifier:
    made = EmotionClassifier(
        network(seed=3), label_smoothing=0.1, auxiliary=auxiliary, distillation=Distillation(weight, 2.0)
    ).eval()
    made._trainer = SimpleNamespace(optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])])  # type: ignore[assignment]
    return made


@pytest.mark.parametrize("auxiliary", [0.0, 0.5])
def test_the_loss(tmp_path: Path, auxiliary: float) -> None:
    teachers = Teachers([saved(tmp_path / "1.ckpt", network(seed=1))], CLASSES, temperature=2.0)
    labels = nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3).float()
    votes = torch.rand(6, len(VOTED_ON)).softmax(1)
    answers = teachers(FACES)
    targets = [labels, *([votes] if auxiliary else []), answers]
    student = module(0.3, auxiliary)
    loss = student.training_step((FACES, torch.cat(targets, dim=1)), 0)

    logits = student(FACES)
    divergence = (answers * (answers.log() - torch.log_softmax(logits / 2, dim=1))).sum(dim=1).mean()
    expected = 0.7 * student.loss(logits, labels) + 0.3 * 4 * divergence
    found = student.counts.metrics()
    if auxiliary:
        of_votes = nn.functional.cross_entropy(student.votes_head(student._features), votes)
        expected = expected + 0.5 * of_votes
        assert found["loss_of_votes"] == pytest.approx(of_votes.item(), abs=1e-5)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert found["loss"] == pytest.approx(student.loss(logits, labels).item(), abs=1e-5)
    assert found["loss_of_teacher"] == pytest.approx(4 * divergence.item(), abs=1e-5)
    loss.backward()
    assert all(parameter.grad is None for each in teachers.networks for parameter in each.parameters())


def test_a_student_that_says_what_its_teacher_does_has_nothing_left_to_learn(tmp_path: Path) -> None:
    teachers = Teachers([saved(tmp_path / "same.ckpt", network(seed=3))], CLASSES, temperature=2.0)
    labels = nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3).float()
    loss = module(weight=1.0).training_step((FACES, torch.cat([labels, teachers(FACES)], dim=1)), 0)
    assert loss.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_teachers_see_augmented_faces_and_not_degraded_ones(soft: bool) -> None:
    """They say of a face what can be seen on it; the student is to say the same of what a bad camera leaves."""
    chosen = {"path": None, "classes": list(CLASSES), "degrade": 1.0, "augment": {"flip": 1.0, "rotation": 0.0}}
    datamodule = FER2013DataModule(DataSettings.checked(chosen))
    trainer = SimpleNamespace(training=True, precision_plugin=SimpleNamespace(forward_context=nullcontext))
    datamodule.trainer = trainer  # type: ignore[assignment]
    seen: list[Tensor] = []

    def ask(faces: Tensor) -> Tensor:
        seen.append(faces)
        return torch.full((len(faces), 3), 1 / 3)

    datamodule.ask = ask
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    distributions = nn.functional.one_hot(labels, 3).float()
    targets = torch.cat([distributions, torch.zeros(6, 10)], dim=1) if soft else labels
    faces, answered = datamodule.on_after_batch_transfer((FACES, targets), 0)
    assert answered.shape == (6, 16 if soft else 6)
    assert torch.equal(answered[:, :3], distributions)
    assert torch.equal(answered[:, -3:], torch.full((6, 3), 1 / 3))

    def detail(shown: Tensor) -> Tensor:
        return shown.diff(dim=-1).square().mean(dim=(1, 2, 3))

    assert (detail(faces) < 0.5 * detail(seen[0])).all()  # of noise, which is blurred
    trainer.training = False
    assert datamodule.on_after_batch_transfer((FACES, labels), 0)[0] is FACES


def test_answers_are_asked_once_about_faces_as_they_are() -> None:
    chosen = {"path": None, "classes": list(CLASSES), "batch_size": 8, "synthetic": {"train": 70, "val": 7, "test": 0}}
    datamodule = FER2013DataModule(DataSettings.checked(chosen))
    datamodule.setup()
    asked: list[int] = []

    def ask(faces: Tensor) -> Tensor:
        asked.append(len(faces))
        bright = faces.float().mean(dim=(1, 2, 3)) / 255
        return torch.stack([bright, 1 - bright, 0 * bright], dim=1)

    datamodule.ask, datamodule.ask_once = ask, True
    loader = datamodule.train_dataloader()
    images, labels = datamodule.tensors(TRAIN)
    assert (sum(asked), max(asked)) == (len(images), 8)  # a batch at a time, so the teachers' memory is bounded
    datamodule.train_dataloader()
    assert sum(asked) == len(images)
    assert torch.equal(loader.targets, torch.cat([nn.functional.one_hot(labels, 3).float(), ask(images)], dim=1))
    assert datamodule.val_dataloader().targets.dtype == torch.int64


def confidence_of_a_student(right: bool) -> float:
    """Its mean probability of the true class on unseen faces, dark, gray or bright; the teacher knows, or guesses."""
    generator = torch.Generator().manual_seed(1)
    truth = torch.arange(240) % 3
    noise = torch.randint(0, 60, (240, 1, 48, 48), generator=generator)
    faces = (noise + 60 * truth.view(-1, 1, 1, 1)).to(torch.uint8)
    said = truth if right else truth[torch.randperm(240, generator=generator)]
    answers = nn.functional.one_hot(said, 3).float()
    student = module(weight=1.0).train()  # of the answers alone
    optimizer = torch.optim.Adam(student.parameters(), 0.01)
    useless = torch.zeros(30, 3)
    for _ in range(10):
        for rows in torch.split(torch.randperm(180, generator=generator), 30):
            optimizer.zero_grad()
            student.training_step((faces[rows], torch.cat([useless, answers[rows]], dim=1)), 0).backward()
            optimizer.step()
    with torch.no_grad():
        sure = student.eval()(faces[180:]).softmax(dim=1)
    return float(sure[range(60), truth[180:]].mean())


def test_a_student_learns_from_a_right_teacher_and_is_harmed_by_a_random_one() -> None:
    right, random = confidence_of_a_student(right=True), confidence_of_a_student(right=False)
    assert right > 0.8
    assert random < 0.6


@pytest.mark.parametrize("cache", ["true", "false"])
def test_a_resumed_student_equals_an_unbroken_one(
    settings: Settings, teacher: Path, tmp_path: Path, cache: str
) -> None:
    options = [
        f"teacher=[{teacher}]",
        f"distil.cache={cache}",
        "distil.temperature=3",
        "data.mixup_alpha=0.2",
        "data.degrade=0.3",
    ]
    train(settings(*options), tmp_path / "unbroken")
    stop = f"+callbacks.stop={{_target_: {Interrupt.__module__}.Interrupt, step: 9, signum: 2}}"
    with pytest.raises(SystemExit):
        train(settings(*options, stop), tmp_path / "broken")
    train(settings(*options, f"ckpt={tmp_path / 'broken' / LAST}"), tmp_path / "broken")
    expected, resumed = weights(tmp_path / "unbroken" / LAST), weights(tmp_path / "broken" / LAST)
    assert expected.keys() == resumed.keys()
    for key, tensor in expected.items():
        assert torch.equal(tensor, resumed[key]), key
    histories = [(tmp_path / run / "history.csv").read_text() for run in ("unbroken", "broken")]
    assert histories[0] == histories[1]
    assert "train/loss_of_teacher" in histories[0]
    # Nothing of the teacher is kept.
    content = read_checkpoint(tmp_path / "unbroken" / LAST)
    student = EmotionNetwork(NetworkSpec("net", SEVEN, kwargs={"widths": [4, 8, 8, 8]}))
    assert {name.removeprefix("network.") for name in content["state_dict"]} == set(student.state_dict())
    trained = sum(len(group["params"]) for group in content["optimizer_states"][0]["param_groups"])
    assert trained == len(list(student.parameters()))


def test_a_student_begins_as_any_network_of_its_seed(settings: Settings, teacher: Path) -> None:
    states = []
    for words in ([], [f"teacher={teacher}"]):
        chosen = settings(*words)
        datamodule = FER2013DataModule(chosen.data)
        datamodule.setup()
        torch.manual_seed(0)
        made = build_classifier(chosen, datamodule)
        states.append({**made.state_dict(), "next": torch.rand(1)})
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
