"""One training run, from settings to checkpoints: the data, the network, the optimiser and the trainer, by name."""

import logging
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

import fer
from fer import machine, rundir
from fer.checkpoint import load_weights, provenance, read_checkpoint, read_spec, seen_by
from fer.classifier import Distillation, EmotionClassifier
from fer.data.datamodule import FER2013DataModule, print_class_counts
from fer.data.duplicates import digests
from fer.data.faces import SPLIT_NAMES, TEST, TRAIN, VAL
from fer.data.seen import MANY, Digests, besides, known_again, together
from fer.errors import UserError
from fer.files import is_file
from fer.machine import choose_precision
from fer.models import create, hand_over, is_foreign
from fer.models.architecture import markdown, rows, totals
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.settings.base import as_yaml
from fer.settings.train import TrainSettings
from fer.tensorboard import RunLogger
from fer.training.callbacks import (
    BestCheckpoint,
    History,
    StepLoss,
    StopAfterBatch,
)
from fer.training.distillation import Teachers
from fer.training.graphs import obstacle, record_steps
from fer.training.optim import build_optimizer, configure_optimizers
from fer.training.pictures import EpochPictures, save_samples, stopped_early
from fer.training.plots import in_short, save_architecture
from fer.training.trainer import build_callbacks, build_loggers, build_trainer
from fer.training.weight_gradient import matrix_products
from fer.weights import resolve

log = logging.getLogger(__name__)

_DOWNLOAD_S = 1800  # that other processes wait for the first one's download


@dataclass(frozen=True)
class Trained:
    """What a training leaves.

    Attributes:
        checkpoint: the one with the best validation accuracy, or the last one where nothing was validated.
        datamodule: its data, read and divided.
        loggers: that were written to.
        steps: that were taken.
    """

    checkpoint: Path
    datamodule: FER2013DataModule
    loggers: Sequence[Logger]
    steps: int


def check(settings: TrainSettings) -> None:
    """Builds what needs no data: network, optimiser, trainer, callbacks and loggers, and lets all of them go again.

    Raises:
        UserError: some of them cannot be had as asked for, a sentence for each.
    """
    model, classes = settings.model, settings.data.class_names

    def network() -> None:
        if is_foreign(model.name):
            hand_over(model.name)
        made = create(model.name, len(classes), settings.image_size, False, model.stem_stride, model.kwargs)
        build_optimizer(made, settings.optim)

    def files() -> None:
        if model.weights is not None and not is_file(resolve(model.weights)):
            raise UserError(f"model.weights={model.weights} does not exist")
        if isinstance(settings.ckpt, str):
            _training_state(settings.ckpt)
        if settings.teachers:
            Teachers(settings.teachers, classes, settings.distil.temperature)

    def loggers() -> None:
        with TemporaryDirectory() as nowhere:  # some make files at once
            build_loggers(settings, Path(nowhere), None)

    found = []
    for part in (
        network,
        files,
        loggers,
        lambda: build_callbacks(settings, Path()),
        lambda: build_trainer(settings, Path(), [], []),
    ):
        try:
            part()
        except UserError as error:
            found.append(str(error))
    if found:
        raise UserError("\n".join(found))


def train(
    settings: TrainSettings,
    run_dir: Path,
    more: Sequence[Callback] = (),
    words: Sequence[str] = (),
    secret: bool = False,
) -> Trained:
    """Trains, with `more` callbacks, and writes everything under `run_dir`, which is this run's own.

    Of several processes (`trainer=ddp`) each calls this; the first one writes the files and prints. The checkpoints say
    that they were made by `words`, the settings of a command line. TensorBoard does not show `secret` settings.

    Raises:
        UserError: the data, the network or the trainer cannot be had as asked for; or training diverged.
        SystemExit: the run was interrupted; 130 by Ctrl-C, 143 by SIGTERM or SIGUSR1. `last.ckpt` is whole then, and
            after SIGUSR1 or a preemption a job of SLURM is back in the queue.
    """
    L.seed_everything(settings.seed, verbose=False)
    ckpt = str(settings.checkpoints[0]) if isinstance(settings.ckpt, str) else None
    datamodule = _read(settings)
    classifier = build_classifier(settings, datamodule)
    step, made = (0, {}) if ckpt is None else _resumed_at(ckpt, classifier.network.spec, datamodule.digest())
    classifier.provenance = {
        "command": made.get("command") or shlex.join(["train.py", *words]),
        "version": fer.__version__,
        "commit": rundir.commit(),
        "data": datamodule.digest(),
        "split": datamodule.division(),
        "labels": datamodule.describe_labels()["train"],
        "seed": settings.seed,
    }
    classifier.seen = together(digests(datamodule.rows(TRAIN).images), _seen_before(settings, datamodule))
    history = History(run_dir / rundir.HISTORY)
    stop = StopAfterBatch()
    best = BestCheckpoint(run_dir / rundir.CHECKPOINTS)
    # `best` before `last`, so that last.ckpt knows of the best of its own epoch: else a resumed run could overwrite it.
    plots = run_dir / rundir.PLOTS
    asked = build_callbacks(settings, run_dir)
    callbacks = [best, *asked, StepLoss(), history, EpochPictures(plots, history), *more, stop]
    trainer = build_trainer(settings, run_dir, callbacks, build_loggers(settings, run_dir, step))

    here, before = _describe_machine(settings, trainer), str(made.get("machine", ""))
    classifier.provenance["machine"] = before if here in before else "; then ".join(filter(None, [before, here]))
    if machine.is_first():
        log.info("Machine: %s", here)
        _introduce(classifier, settings, trainer, datamodule, plots, secret)
    if settings.graphs:
        if why := obstacle(trainer):
            log.warning("graphs=true has no use here: %s; every kernel is launched by itself, as usual", why)
        else:
            record_steps(classifier, datamodule)
    log.info("Training in %s; watch it with: tensorboard --logdir %s", run_dir, shlex.quote(str(run_dir.parent)))
    last = rundir.checkpoint(run_dir, rundir.LAST)
    on_cpu = trainer.strategy.root_device.type == "cpu" and trainer.precision == "bf16-mixed"
    with matrix_products() if on_cpu else nullcontext():
        _fit(trainer, classifier, datamodule, ckpt, stop, last)
    _explain_end(trainer, history.rows)
    if not best.best_model_path and last.is_file():  # trainer.fast_dev_run=true leaves neither
        log.info("Nothing was validated, so there is no best.ckpt: %s is what is left.", last)
    return Trained(Path(best.best_model_path or last), datamodule, trainer.loggers, trainer.global_step)


def _read(settings: TrainSettings) -> FER2013DataModule:
    """The data, which the first of several processes fetches, with rows for all that the run will ask for."""
    datamodule = FER2013DataModule(settings.data, settings.seed)
    if machine.is_first():
        datamodule.prepare_data()
    else:
        _wait_for(datamodule.files)
    datamodule.setup()
    _check_rows(settings, datamodule)
    if machine.is_first():
        print_class_counts(datamodule)
    return datamodule


def _fit(
    trainer: L.Trainer,
    classifier: EmotionClassifier,
    datamodule: FER2013DataModule,
    ckpt: str | None,
    stop: StopAfterBatch,
    last: Path,
) -> None:
    """Trains until the end, or until a signal, of which `stop` knows; `last` is where to go on from then."""
    ours = signal.getsignal(signal.SIGTERM) is machine.terminate  # Lightning would call it with its own
    if ours:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        trainer.fit(classifier, datamodule, ckpt_path=ckpt)
    except SIGTERMException:
        _stop(stop, trainer.current_epoch + 1, last)
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        if last.is_file():  # a second Ctrl-C, or one before the first batch: nothing is written any more
            log.info("Stopped at once. Go on with: python train.py %s", shlex.quote(f"ckpt={last}"))
        raise KeyboardInterrupt from error
    except UserError:
        if not machine.is_first():
            sys.exit(0)  # the first process tells; and see `_stop`
        raise
    finally:
        if ours:
            signal.signal(signal.SIGTERM, machine.terminate)
    if stop.received is not None:  # in the last validation
        _stop(stop, trainer.current_epoch, last)


def _seen_before(settings: TrainSettings, datamodule: FER2013DataModule) -> Digests:
    """What the weights that a run begins from, and its teachers, were trained on; warns of tests on that."""
    files = [*([] if settings.model.weights is None else [resolve(settings.model.weights)]), *settings.teachers]
    seen = together(*map(seen_by, files))
    others = besides(seen, datamodule.rows(TRAIN).images)
    for split in (VAL, TEST):
        known = known_again(datamodule.rows(split).images, others)
        if known.size and known.mean() > MANY and machine.is_first():
            log.warning(
                f"{' or '.join(file.name for file in files)} was trained on {int(known.sum()):,} of the {len(known):,} "
                f"{SPLIT_NAMES[split]} faces: what is reported on them is memory; leave data.split and data.folds out, "
                "or take other weights"
            )
    return seen


def _check_rows(settings: TrainSettings, datamodule: FER2013DataModule) -> None:
    """Asks before training what training and evaluation will ask for at an end."""
    by_split = datamodule.class_counts()
    counts = by_split["train"]
    present = [name for name in datamodule.classes if counts[name]]
    missing = [name for name in datamodule.classes if not counts[name]]
    source = datamodule.source
    if len(present) < 2:
        raise UserError(
            f"{source} has training faces of {' and '.join(present) or 'none of the classes'} alone; there is nothing "
            "to tell apart; where it calls them otherwise, name them: data.other_emotions=true data.classes=[...]"
        )
    if missing:
        raise UserError(
            f"{source} has no training faces of {', '.join(missing)}; what it has is data.classes=[{','.join(present)}]"
        )
    if len(by_split) == 1:
        raise UserError(
            f"{source} leaves no faces to validate or test on; give more faces, or a larger data.val_fraction"
        )
    needs = {"early_stopping": settings.early_stopping, "optim.schedule=plateau": settings.optim.schedule == "plateau"}
    asked = [key for key, value in needs.items() if value]
    if asked and "val" not in by_split:
        raise UserError(f"{' and '.join(asked)}: {source} has no validation rows to go by; set data.val_fraction")


def _wait_for(files: list[Path]) -> None:
    """Lets the first process fetch the data."""
    end = time.monotonic() + _DOWNLOAD_S
    while missing := [file for file in files if not file.exists()]:
        if time.monotonic() > end:
            raise UserError(f"{missing[0]} did not come; download it before several processes start")
        time.sleep(1)


def _stop(stop: StopAfterBatch, epoch: int, last: Path) -> NoReturn:
    """Ends this process after a signal, or puts its job back into the queue."""
    if not machine.is_first():
        sys.exit(0)  # another code would let Lightning kill the first process, which may still be writing
    way_on = f" Go on with: python train.py {shlex.quote(f'ckpt={last}')}" if last.is_file() else ""
    log.info("Stopped in epoch %d.%s", epoch, way_on)
    # A job that ends within the grace of a preemption counts as failed, and SLURM does not put it back.
    back = stop.received == signal.SIGTERM and machine.is_preempted()
    if (back or getattr(stop.received, "name", "") == "SIGUSR1") and machine.requeue():
        log.info("The job is back in the queue and will go on from there.")
    stop.pass_on()
    sys.exit(130 if stop.received == signal.SIGINT else 143)


def build_classifier(settings: TrainSettings, datamodule: FER2013DataModule) -> EmotionClassifier:
    """The network that the settings name, for the classes and the pixel statistics of the data, with its loss.

    The datamodule is told which teachers to ask.
    """
    model = settings.model
    mean, std = datamodule.statistics()
    spec = NetworkSpec(
        name=model.name,
        classes=datamodule.classes,
        image_size=settings.image_size,
        size=settings.data.size,
        stem_stride=model.stem_stride,
        kwargs=dict(model.kwargs),
        mean=mean,
        std=std,
        standardise=model.standardise,
    )
    network = EmotionNetwork(spec, model.pretrained)
    if model.weights is not None:
        try:
            fresh = load_weights(network.backbone, resolve(model.weights), datamodule.classes)
        except UserError as error:
            raise UserError(f"model.weights: {error}") from error
        log.info("Weights from %s; not in it and left as initialised: %s", model.weights, ", ".join(fresh) or "nothing")
    if settings.compile:
        network.compile()  # in place: `torch.compile(network)` would prefix every name in the checkpoint
    data, distil = settings.data, settings.distil
    distillation = None
    if settings.teachers:
        teachers = Teachers(settings.teachers, datamodule.classes, distil.temperature)
        if settings.compile:
            for teacher in teachers.networks:
                teacher.compile()
        datamodule.ask, datamodule.ask_once = teachers, distil.cache
        distillation = Distillation(distil.weight, distil.temperature)
    return EmotionClassifier(
        network,
        lambda module: configure_optimizers(module, settings.optim),
        label_smoothing=settings.label_smoothing,
        class_weights=datamodule.class_weights(),
        any_target=data.labels == "ferplus" and data.ferplus_target == "any",
        auxiliary=data.ferplus_auxiliary,
        distillation=distillation,
    )


def _resumed_at(ckpt: str, spec: NetworkSpec, data: str) -> tuple[int, dict[str, Any]]:
    """The steps that a checkpoint has seen, and what it says of its making.

    Raises:
        UserError: it is of another network, other classes or other data, or cannot be resumed.
    """
    content = _training_state(ckpt)
    saved = read_spec(ckpt, content)
    for what, theirs, ours in (
        ("network", (saved.name, saved.kwargs), (spec.name, spec.kwargs)),
        ("stem's stride", saved.stem_stride, spec.stem_stride),
        ("image size", saved.image_size, spec.image_size),
        ("standardisation of faces", saved.standardise, spec.standardise),
        ("classes", saved.classes, spec.classes),
    ):
        if theirs != ours:
            raise UserError(
                f"checkpoint {ckpt} cannot be resumed: its {what} is {theirs}, this run's is {ours}; "
                "to start from its weights instead, use model.weights=FILE"
            )
    made = provenance(content)
    if made.get("data", data) != data:
        raise UserError(
            f"checkpoint {ckpt} cannot be resumed: the rows, their labels or their splits are not those it was trained "
            "on; give the same data, or start from its weights, model.weights=FILE"
        )
    return int(content["global_step"]), made


def _training_state(ckpt: str) -> dict[str, Any]:
    """What a checkpoint holds that can be resumed."""
    content = read_checkpoint(resolve(ckpt))
    if "optimizer_states" not in content:
        raise UserError(
            f"ckpt={ckpt} holds weights and no training state; resume from a run's checkpoints/last.ckpt, "
            f"or start from these weights: model.weights={ckpt}"
        )
    return content


def _introduce(
    classifier: EmotionClassifier,
    settings: TrainSettings,
    trainer: L.Trainer,
    datamodule: FER2013DataModule,
    plots: Path,
    secret: bool,
) -> None:
    """Says on what is trained and what; the same for TensorBoard, with pictures of the faces and of the network."""
    network = classifier.network
    spec, found = network.spec, rows(network)
    parameters, multiply_adds = map(in_short, totals(found))
    size = f"{spec.image_size}x{spec.image_size}"
    log.info("Network: %s, %s parameters, %s multiply-adds per face of %s", spec.name, parameters, multiply_adds, size)
    title = f"{spec.name}: faces of {size}, {len(spec.classes)} classes"
    architecture = save_architecture(plots / "architecture.png", found, title)
    samples = save_samples(datamodule, plots / "samples.png")
    texts = {
        "command": f"    {classifier.provenance['command']}",
        "config": rundir.PRIVATE if secret else f"```\n{as_yaml(settings.plain())}```",
        "architecture": f"{title}\n\n{markdown(found)}",
    }
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger):
            logger.log_texts(texts)
            logger.log_picture("network/architecture", architecture, logger.first_step)
            logger.log_picture("while_training/samples", samples, logger.first_step)
            logger.save()
        elif not secret:
            logger.log_hyperparams(settings.plain())
    if settings.teachers:
        log.info(
            "Learns from %s, with a share of %g at temperature %g%s",
            ", ".join(map(str, settings.teachers)),
            settings.distil.weight,
            settings.distil.temperature,
            ", asked once about every face" if settings.distil.cache else "",
        )


def _describe_machine(settings: TrainSettings, trainer: L.Trainer) -> str:
    """The device, its precision, and how many of what."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    precision = choose_precision(settings.trainer.get("precision", "auto"), settings.trainer.get("accelerator", "auto"))
    threads = torch.get_num_threads()
    text = f"{name}, {precision}, {threads} thread{'' if threads == 1 else 's'}"
    if trainer.world_size > 1:
        text += f", {trainer.world_size} processes of {settings.data.batch_size} faces"
    return text


def _explain_end(trainer: L.Trainer, rows: Sequence[Mapping[str, float]]) -> None:
    """Says why a training ended before its last epoch; `rows` are its history."""
    if rows and (early := stopped_early(trainer, int(rows[-1]["epoch"]))) is not None:
        best = max(rows, key=lambda row: row.get("val/accuracy", 0.0))
        log.info(
            "Stopped early after epoch %d: for %d epochs val/accuracy was not above the %.4f of epoch %d "
            "(early_stopping=%d).",
            rows[-1]["epoch"] + 1,
            early.wait_count,
            best["val/accuracy"],
            best["epoch"] + 1,
            early.patience,
        )
