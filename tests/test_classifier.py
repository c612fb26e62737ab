from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassPrecision, MulticlassRecall

from fer.checkpoint import SPEC_KEY, read_spec, write_checkpoint, write_slim
from fer.classifier import CrossEntropy, EmotionClassifier
from fer.data.datamodule import FER2013DataModule
from fer.errors import UserError
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.settings.train import DataSettings
from fer.weights import resolve

CLASSES = ("angry", "happy", "sad")


def classifier(**options: object) -> EmotionClassifier:
    network = EmotionNetwork(NetworkSpec("net", CLASSES, kwargs={"widths": [4, 8]}))
    return EmotionClassifier(network, lambda module: torch.optim.SGD(module.parameters(), 0.1), **options)  # type: ignore[arg-type]


def test_forward_takes_raw_bytes() -> None:
    faces = torch.randint(0, 256, (5, 1, 48, 48), dtype=torch.uint8)
    assert classifier()(faces).shape == (5, 3)


def test_the_loss_knows_smoothing_weights_and_soft_targets() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])
    hard = torch.tensor([0, 2])
    soft = torch.nn.functional.one_hot(hard, 3).float()
    weights = torch.tensor([1.0, 2.0, 3.0])
    loss = classifier(label_smoothing=0.2, class_weights=weights).loss
    log = logits.log_softmax(1)
    smoothed = soft * 0.8 + 0.2 / 3
    expected = -(smoothed * weights * log).sum() / weights[hard].sum()
    assert float(loss(logits, hard)) == pytest.approx(float(expected), abs=1e-6)
    plain = classifier().loss
    assert float(plain(logits, soft)) == pytest.approx(float(plain(logits, hard)), abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_the_loss_is_torchs_to_the_last_bit_and_waits_for_nothing(smoothing: float, weighted: bool, half: bool) -> None:
    weights = torch.rand(7) if weighted else None
    targets = torch.randint(0, 7, (33,))
    logits = torch.randn(33, 7, dtype=torch.bfloat16 if half else torch.float32)
    results, asked = [], []
    for module in (CrossEntropy, torch.nn.CrossEntropyLoss):
        given = logits.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half), torch.profiler.profile() as profile:
            loss = module(weight=weights, label_smoothing=smoothing)(given, targets)
        results.append((loss, *torch.autograd.grad(loss, given)))
        asked.append(any(event.key == "aten::masked_select" for event in profile.key_averages()))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))
    assert asked == [False, weighted and smoothing > 0]  # which asks a GPU how many there are


def test_the_second_task_adds_its_loss_and_trains_the_features_it_sees() -> None:
    plain, double = classifier(), classifier(auxiliary=0.5)
    double.network.load_state_dict(plain.network.state_dict())
    faces = torch.randint(0, 256, (4, 1, 48, 48), dtype=torch.uint8)
    own = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 1]), 3).float()
    votes = torch.rand(4, 10).softmax(1)
    trainer = SimpleNamespace(optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])])
    losses, logged = [], []
    for module, targets in ((plain, own), (double, torch.cat([own, votes], dim=1))):
        module.trainer = trainer  # type: ignore[assignment]
        torch.manual_seed(0)  # of dropout
        losses.append(module.training_step((faces, targets), 0))
        logged.append(module.counts.metrics())
    features = double._features
    expected = torch.nn.functional.cross_entropy(double.votes_head(features), votes)
    assert (losses[1] - losses[0]).item() == pytest.approx(0.5 * expected.item(), abs=1e-5)
    assert logged[1]["loss"] == pytest.approx(logged[0]["loss"], abs=1e-5)  # comparable with val/loss
    assert logged[1]["loss_of_votes"] == pytest.approx(expected.item(), abs=1e-5)
    assert "loss_of_votes" not in logged[0]
    expected.backward()
    trained = {name for name, parameter in double.network.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in double.network.named_parameters() if "head" not in name}


def test_a_network_without_a_linear_end_cannot_have_the_second_task() -> None:
    network = EmotionNetwork(NetworkSpec("net", CLASSES, kwargs={"widths": [4, 8]}))
    network.backbone.head = torch.nn.Conv1d(8, 3, 1)
    with pytest.raises(UserError, match="does not end in a linear layer"):
        EmotionClassifier(network, auxiliary=1.0)


def drawn(val: int = 70, test: int = 0) -> FER2013DataModule:
    chosen = {"path": None, "classes": list(CLASSES), "batch_size": 8, "augment": None}
    return FER2013DataModule(DataSettings.checked({**chosen, "synthetic": {"train": 70, "val": val, "test": test}}))


def quiet_trainer(**options: int) -> L.Trainer:
    return L.Trainer(
        **options,  # type: ignore[arg-type]
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def test_logged_metrics_are_those_of_the_whole_split() -> None:
    datamodule = drawn(val=91)
    module = classifier()
    trained: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    module.loss.register_forward_hook(lambda _, inputs, loss: trained.append((*inputs, loss)))
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(module, datamodule)
    batches = list(datamodule.val_dataloader())
    assert [len(targets) for _, targets in batches] == [32, 7]  # so that the mean of their means is another
    faces, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.no_grad():
        logits = module.eval()(faces)
    metrics = trainer.callback_metrics
    right = (logits.argmax(1) == targets).float()
    assert float(metrics["val/accuracy"]) == pytest.approx(float(right.mean()), abs=1e-6)
    recall = torch.stack([right[targets == index].mean() for index in range(3)]).mean()
    assert float(metrics["val/recall"]) == pytest.approx(float(recall), abs=1e-6)
    loss = torch.nn.functional.cross_entropy(logits, targets)
    assert float(metrics["val/loss"]) == pytest.approx(float(loss), abs=1e-5)

    expected = MetricCollection(
        {
            "accuracy": MulticlassAccuracy(3, average="micro"),
            "f1": MulticlassF1Score(3),
            "precision": MulticlassPrecision(3),
            "recall": MulticlassRecall(3),
            "loss": MeanMetric(),
        }
    )
    for logits, targets, loss in trained:
        for name, metric in expected.items():
            metric.update(*((loss, len(targets)) if name == "loss" else (logits, targets)))
    for name, value in {**expected.compute(), "lr": 0.1}.items():
        assert float(metrics[f"train/{name}"]) == pytest.approx(float(value), abs=1e-6), name


def test_an_epoch_that_is_cut_short_is_reported_too() -> None:
    module = classifier()
    losses: list[float] = []
    module.loss.register_forward_hook(lambda _, inputs, loss: losses.append(loss.item()))
    trainer = quiet_trainer(max_epochs=2, max_steps=2)
    trainer.fit(module, drawn(val=7))
    assert len(losses) == 2
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(sum(losses) / 2)
    assert module.counts.steps == 0


def test_a_checkpoint_describes_its_network_in_plain_data() -> None:
    content: dict[str, Any] = {}
    module = classifier()
    module.provenance = {"command": "train.py seed=1"}
    module.on_save_checkpoint(content)
    assert content[SPEC_KEY]["classes"] == list(CLASSES)
    assert content[SPEC_KEY]["provenance"] == {"command": "train.py seed=1"}
    assert read_spec("a.ckpt", content) == module.network.spec


def test_of_several_voted_labels_the_likeliest_is_learnt() -> None:
    module = classifier(any_target=True)
    module._trainer = SimpleNamespace(optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])])  # type: ignore[assignment]
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 3.0], [0.5, 0.0, 0.0]], requires_grad=True)
    module.forward = lambda faces: logits  # type: ignore[method-assign]
    voted = torch.tensor([[0.4, 0.0, 0.6], [0.7, 0.3, 0.0], [0.0, 1.0, 0.0]])
    loss = module.training_step((torch.zeros(3, 1, 48, 48), voted), 0)
    expected = -logits.detach().log_softmax(1)[[0, 1, 2], [0, 1, 1]].mean()
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[[0, 1, 2], [0, 1, 1]] < 0).all()


@pytest.mark.parametrize("auxiliary", [0.0, 1.0])
def test_what_every_lightning_user_types_first(tmp_path: Path, auxiliary: float) -> None:
    """load_from_checkpoint, validate and test, of a run's checkpoint and of a small copy that only predicts."""
    module = classifier(auxiliary=auxiliary)
    content = {"state_dict": module.state_dict(), "epoch": 3, "global_step": 9}
    module.on_save_checkpoint(content)
    write_checkpoint(content, tmp_path / "best.ckpt")
    write_slim(tmp_path / "best.ckpt", tmp_path / "small.ckpt")
    data = drawn(val=70, test=35)
    trainer = L.Trainer(accelerator="cpu", logger=CSVLogger(tmp_path), enable_progress_bar=False)
    data.setup()
    for file in ("best.ckpt", "small.ckpt"):
        loaded = EmotionClassifier.load_from_checkpoint(tmp_path / file)
        for task, split, loader in (
            ("validate", "val", data.val_dataloader()),
            ("test", "test", data.test_dataloader()),
        ):
            (found,) = getattr(trainer, task)(loaded, loader, verbose=False)
            assert set(found) == {f"{split}/{name}" for name in ("loss", "accuracy", "f1", "precision", "recall")}
            faces, targets = (torch.cat(parts) for parts in zip(*loader, strict=True))
            expected = (loaded(faces).argmax(dim=1) == targets).float().mean()
            assert found[f"{split}/accuracy"] == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("location", "device"),
    [
        (None, "cpu"),
        ("meta", "meta"),
        (torch.device("cpu"), "cpu"),
        ({}, "cpu"),
        ({"cuda:1": "cuda:0"}, "cpu"),
        ({"cpu": "meta"}, "meta"),
        (lambda storage, location: storage, "cpu"),
        (lambda storage, location: None, "cpu"),
    ],
)
def test_map_location_is_what_torch_load_takes(tmp_path: Path, location: Any, device: str) -> None:
    module = classifier()
    content = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    write_checkpoint(content, tmp_path / "best.ckpt")
    loaded = EmotionClassifier.load_from_checkpoint(tmp_path / "best.ckpt", map_location=location)
    assert {parameter.device.type for parameter in loaded.parameters()} == {device}


@pytest.mark.parametrize("name", ["senet_7", "senet_4", "senet_5", "senet_5-surprise"])
def test_packaged_networks_load_as_lightning_modules(name: str) -> None:
    loaded = EmotionClassifier.load_from_checkpoint(resolve(name))
    assert loaded(torch.zeros(2, 1, 48, 48, dtype=torch.uint8)).shape == (2, len(loaded.network.spec.classes))
