"""Recorded steps: on a CPU by a stand-in that keeps to the rules of CUDA graphs, and on a GPU where there is one."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from test_resume import LAST, weights
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fer.classifier import Distillation, EmotionClassifier
from fer.errors import UserError
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.settings.train import TrainSettings
from fer.training import run
from fer.training.callbacks import EpochBar
from fer.training.graphs import Recorded, obstacle, on_cuda, record_steps
from fer.training.run import train

OPTIONS = ["trainer.max_epochs=3", "optim=sgd", "optim.warmup_epochs=1"]
pytestmark = pytest.mark.usefixtures("unrendered")
KINDS = {
    "sizes and mixed faces": ["image_sizes=[24,32,48]", "data.mixup_alpha=0.2", "data.degrade=0.5"],
    "half precision": ["trainer.precision=bf16-mixed", "data.balance=loss", "optim=adam", "ema=null"],
}


def on_cpu(function: Callable[..., Any], given: tuple[Tensor, ...]) -> Callable[..., Any]:
    """As a CUDA graph: it reads its own copies of the arguments, and all its results lie where the first ones lay."""
    own = [tensor.clone() for tensor in given]
    kept: list[Any] = []

    def replay(*given: Tensor) -> Any:
        for mine, tensor in zip(own, given, strict=True):
            mine.copy_(tensor)
        results = function(*own)
        if not kept:
            kept.append(results)
        with torch.no_grad():
            for old, new in zip(tree_leaves(kept[0]), tree_leaves(results), strict=True):
                if old is not new and new is not None:
                    assert old.shape == new.shape
                    old.copy_(new)
        return kept[0]

    return replay


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets graphs=true record on the CPU; counts the recordings."""
    recordings: list[int] = []

    def record(function: Callable[..., Any], given: tuple[Tensor, ...]) -> Callable[..., Any]:
        recordings.append(len(given))
        return on_cpu(function, given)

    monkeypatch.setattr(run, "obstacle", lambda trainer: None)
    monkeypatch.setattr(run, "record_steps", partial(record_steps, record=record))
    return recordings


def equal(one: Path, two: Path) -> None:
    first, second = weights_of(one), weights_of(two)
    assert first.keys() == second.keys()
    assert [name for name, tensor in first.items() if not torch.equal(tensor, second[name])] == []
    assert (one / "history.csv").read_text() == (two / "history.csv").read_text()


def weights_of(directory: Path) -> dict[str, Tensor]:
    content = torch.load(directory / LAST, weights_only=True)
    return content["state_dict"] if "current_model_state" not in content else weights(directory / LAST)


def resumes_exactly(settings: Callable[..., TrainSettings], directory: Path, *more: str) -> None:
    """Breaks a run off in its second epoch, goes on, and compares it with an unbroken one."""
    words = [*OPTIONS, *KINDS["sizes and mixed faces"], *more]
    train(settings(*words), directory / "unbroken")
    stop = f"+callbacks.stop={{_target_: test_resume.Interrupt, step: 10, signum: {int(signal.SIGINT)}}}"
    with pytest.raises(SystemExit):
        train(settings(*words, stop), directory / "broken")
    train(settings(*words, f"ckpt={directory / 'broken' / LAST}"), directory / "broken")
    equal(directory / "unbroken", directory / "broken")


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_steps_train_the_same_network(
    settings: Callable[..., TrainSettings], tmp_path: Path, on_a_cpu: list[int], kind: str
) -> None:
    train(settings(*OPTIONS, *KINDS[kind]), tmp_path / "usual")
    assert on_a_cpu == []
    train(settings(*OPTIONS, *KINDS[kind], "graphs=true"), tmp_path / "recorded")
    equal(tmp_path / "usual", tmp_path / "recorded")
    sizes = 3 if "sizes" in kind else 1
    assert on_a_cpu == [2] * (1 + sizes)  # what makes batches; and the steps, by size of face


def test_a_recorded_run_that_is_resumed_in_an_epoch_equals_an_unbroken_one(
    settings: Callable[..., TrainSettings], tmp_path: Path, on_a_cpu: list[int]
) -> None:
    resumes_exactly(settings, tmp_path, "graphs=true")


@pytest.mark.parametrize("columns", [0, 7, 17, 24])
def test_gradients_are_those_of_the_way_back(columns: int) -> None:
    """Of hard labels; of shares; with the second task; and with the answers of teachers besides."""
    distillation = Distillation(0.5, 2.0) if columns == 24 else None
    auxiliary = 0.5 if columns >= 17 else 0.0
    torch.manual_seed(0)
    spec = NetworkSpec("senet", tuple("abcdefg"), kwargs={"widths": [4, 8], "blocks": [1, 1], "reduction": 4})
    module = EmotionClassifier(EmotionNetwork(spec), auxiliary=auxiliary, distillation=distillation).train()
    faces = torch.randint(0, 256, (6, 1, 48, 48), dtype=torch.uint8)
    targets = torch.randint(0, 7, (6,)) if columns == 0 else torch.rand(6, columns).softmax(dim=1)
    torch.manual_seed(1)
    loss, gradients = module.gradients(faces, targets)
    counted = module.counts.confusion.clone()
    module.counts.clear()
    torch.manual_seed(1)
    again = module._loss_of(faces, targets)
    again.backward()  # type: ignore[no-untyped-call]
    assert torch.equal(loss, again)
    assert torch.equal(counted, module.counts.confusion)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert parameter.grad is not None
        assert gradient is not None
        assert torch.equal(parameter.grad, gradient)
        assert gradient.stride() == parameter.stride()


def test_a_recording_is_made_after_some_calls_for_each_shape() -> None:
    made: list[tuple[int, ...]] = []

    def record(function: Callable[..., Any], given: tuple[Tensor, ...]) -> Callable[..., Any]:
        made.append(tuple(given[0].shape))
        return on_cpu(function, given)

    key = "a"
    double = Recorded(lambda tensor: 2 * tensor, lambda: key, record)
    for number in range(6):
        assert double(torch.full((2,), number)).tolist() == [2 * number] * 2
    assert made == [(2,)]
    for number in range(4):
        assert double(torch.full((3,), number)).tolist() == [2 * number] * 3
    key = "b"
    for number in range(4):
        assert double(torch.full((2,), number)).tolist() == [2 * number] * 2
    assert made == [(2,), (3,), (2,)]


def test_batches_that_nothing_changes_are_not_recorded(
    settings: Callable[..., TrainSettings], tmp_path: Path, on_a_cpu: list[int]
) -> None:
    train(settings(*OPTIONS, "data.augment=null", "graphs=true"), tmp_path)
    assert on_a_cpu == [2]


def test_a_network_that_cannot_be_recorded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def graph(_: Any) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture\nand more")

    def asks(faces: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    with pytest.raises(UserError, match=r"recorded \(CUDA error: operation not permitted when .* capturing\); leave"):
        on_cuda(asks, (torch.zeros(1),))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "there is no CUDA device"),
        ({"accumulate_grad_batches": 2}, "gradients are accumulated"),
        ({"detect_anomaly": True}, "anomalies are looked for"),
        ({"profiler": "simple"}, "a profiler watches"),
        ({"devices": 2, "strategy": "ddp"}, "several processes share the work"),
    ],
)
def test_what_cannot_be_recorded_is_named(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], why: str) -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **arguments)
    if arguments:
        monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device("cuda"))
    assert obstacle(trainer) == why


def test_without_a_gpu_a_run_says_so_and_trains_as_usual(
    settings: Callable[..., TrainSettings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(settings("trainer.max_epochs=1", "graphs=true"), tmp_path)
    assert "graphs=true has no use here: there is no CUDA device" in caplog.text
    assert (tmp_path / LAST).is_file()


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Settings of a run on the GPU, whose libraries shall choose what gives the same bits each time."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr("fer.training.callbacks._EVERY", 3)  # an epoch has thirteen steps
    yield ["trainer.accelerator=gpu"]
    torch.cuda.set_sync_debug_mode("default")  # also after a test that failed


class WaitsForNothing(L.Callback):
    """Lets CUDA refuse to wait, and counts such steps: all but those that are recorded and the last of an epoch.

    With what a progress bar asks for after each step.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.bar = EpochBar()
        self.shown: dict[str, Any] = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, _: Any, batch_idx: int) -> None:
        inside = 4 < batch_idx < int(trainer.num_training_batches) - 1
        self.steps += inside
        torch.cuda.set_sync_debug_mode("error" if inside else "default")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.shown = self.bar.get_metrics(trainer, pl_module)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_recorded_steps_train_the_same_network_and_wait_for_nothing(
    settings: Callable[..., TrainSettings], tmp_path: Path, on_a_gpu: list[str], kind: str
) -> None:
    words = [*OPTIONS, *KINDS[kind], *on_a_gpu, "data.batch_size=16"]
    train(settings(*words), tmp_path / "usual")
    for name in ("recorded", "again"):
        watch = WaitsForNothing()
        train(settings(*words, "graphs=true"), tmp_path / name, [watch])
        assert watch.steps > 0
        assert watch.shown.keys() == {"loss", "acc", "val"}
    equal(tmp_path / "recorded", tmp_path / "again")
    equal(tmp_path / "usual", tmp_path / "recorded")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_a_recorded_run_that_is_resumed_in_an_epoch_equals_an_unbroken_one(
    settings: Callable[..., TrainSettings], tmp_path: Path, on_a_gpu: list[str]
) -> None:
    resumes_exactly(settings, tmp_path, *on_a_gpu, "graphs=true")
