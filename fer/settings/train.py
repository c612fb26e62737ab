"""Every setting of `train.py`, said once. configs/ holds only what differs from these defaults."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ValidationInfo

from fer.errors import UserError
from fer.files import at_home, is_file, is_there
from fer.labels import ALL_EMOTIONS, EMOTIONS, resolve_classes
from fer.settings.base import PathText, Real, Settings, Whole, at, fields_of, finite, is_path, setting, shown
from fer.weights import resolve


def _rising(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError("the smaller number comes first")
    return values


def _classes(value: Any, others: ValidationInfo) -> Any:
    try:
        resolve_classes(value, bool(others.data.get("other_emotions")))
    except UserError as error:
        said, _, more = str(error).partition(": ")
        raise ValueError(more or said.removeprefix("data.classes ")) from error
    return value


def _files(named: str | list[str] | None) -> list[Path]:
    return [resolve(path) for path in ([named] if isinstance(named, str) else named or [])]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    if not finite(values):
        raise ValueError("give finite numbers")
    return values


FER2013_FILE, VOTES_FILE = "fer2013.csv", "fer2013new.csv"  # what is downloaded where it is missing

Zoom = Annotated[Real, setting(..., "", gt=0, le=4)]
Share = Annotated[Real, setting(..., "", ge=0, le=1)]
Classes = Annotated[Whole | str | list[str], AfterValidator(_classes)]
Free = Annotated[dict[str, Any], AfterValidator(_plain)]
Target = dict[str, Any]  # `_target_` and its arguments


class AugmentSettings(Settings):
    """Arguments of `fer.data.augment.Augment`."""

    flip: Real = setting(0.5, "probability of a mirror image", ge=0, le=1)
    rotation: Real = setting(10.0, "largest angle in degrees, to either side", ge=0, le=180)
    scale: Annotated[tuple[Zoom, Zoom], AfterValidator(_rising)] = setting((0.9, 1.15), "smallest and largest zoom")
    translate: Real = setting(0.08, "largest shift, as a fraction of the side", ge=0, le=1)
    brightness: Real = setting(0.1, "largest change of gray value, as a fraction of the range", ge=0, le=1)
    contrast: Real = setting(0.1, "largest change of contrast, as a fraction", ge=0, le=1)
    erase: Real = setting(0.4, "probability of a painted rectangle", ge=0, le=1)
    erase_area: Annotated[tuple[Share, Share], AfterValidator(_rising)] = setting(
        (0.02, 0.2), "smallest and largest area of that rectangle, as fractions of the face"
    )


class SyntheticSettings(Settings):
    """Number of drawn faces per split."""

    train: Whole = setting(5600, "drawn training faces", ge=1, le=10_000_000)
    val: Whole = setting(700, "drawn validation faces", ge=0, le=10_000_000)
    test: Whole = setting(700, "drawn test faces", ge=0, le=10_000_000)


class SourceSettings(Settings):
    """What `fer.data.reader.read` reads, and how."""

    path: PathText | list[PathText] | None = setting(
        f"data/{FER2013_FILE}", "CSV, archive or class folders, or several, [a,b]; null draws faces"
    )
    layout: Literal["fer2013", "raf-db", "affectnet", "fer+", "kdef", "folders"] | None = setting(
        None, "what the source is, where folders with numbers do not show it; null finds out"
    )
    names: list[str] | None = setting(None, "[surprise,fear,...]: the numbers' emotions, one each, smallest to largest")
    size: Whole = setting(48, "pixels per side at which faces are stored", ge=16, le=224)


class DataSettings(SourceSettings):
    """What `fer.data.datamodule.FER2013DataModule` reads, divides and changes."""

    download: bool = setting(True, f"fetch a missing {FER2013_FILE} from Kaggle, and {VOTES_FILE} from Microsoft")
    other_emotions: bool = setting(False, "a list of classes may name others than the eight: [bored,happy]")
    classes: Classes = setting(7, "4, 5, 7, 5-surprise, 8 with contempt, or a list: [happy,sad,neutral]")
    batch_size: Whole = setting(128, "faces per training batch and process", ge=1, le=65536)
    split: Literal["official", "source", "holdout", "random"] = setting(
        "official",
        "FER2013's official splits; source: as the source divides it; holdout: val and test validate; random",
    )
    val_fraction: Real = setting(0.1, "share of rows that validate, where rows have to be divided", ge=0, lt=1)
    test_fraction: Real = setting(0.1, "share of rows that test, where rows have to be divided", ge=0, lt=1)
    folds: Whole | None = setting(None, "cross-validation: number of folds", ge=2, le=1000)
    fold: Whole = setting(0, "the fold that validates, from 0", ge=0)
    split_seed: Whole = setting(0, "of rows divided at random and of drawn faces, whatever seed is", ge=0, lt=2**32)
    balance: Literal["none", "loss", "sampler"] = setting(
        "none", "loss: rare classes weigh more; sampler: every class is drawn equally often"
    )
    augment: AugmentSettings | None = setting(AugmentSettings, "changes of training faces; null turns them off")
    mixup_alpha: Real = setting(0.0, "above 0: mixup of this strength", ge=0, le=100)
    degrade: Real = setting(
        0.0, "probability of each of what a bad camera does: blur or lower resolution, noise, JPEG", ge=0, le=1
    )
    labels: Literal["fer2013", "ferplus"] = setting("fer2013", "the data set's own labels, or FER+'s (docs/labels.md)")
    eval_labels: Literal["fer2013", "ferplus"] | None = setting(None, "the same for val and test; null is labels")
    ferplus_path: PathText = setting(f"data/{VOTES_FILE}", "the votes of FER+; fetched like the CSV")
    ferplus_target: Literal["majority", "soft", "any"] = setting(
        "majority", "what labels=ferplus aims at: most votes, their distribution, or whichever voted label"
    )
    fer2013_weight: Real = setting(0.0, "share of FER2013's own label in the targets of labels=ferplus", ge=0, le=1)
    ferplus_auxiliary: Real = setting(0.0, "above 0: FER+'s votes are a second task of this weight", ge=0, le=10)
    exclude: PathText | None = setting(None, "a cleaning.csv of fer-clean: train without its rows")
    exclude_reasons: list[str] | None = setting(None, "of that list; null: those that are facts about pictures")
    exclude_action: Literal["drop", "relabel"] = setting(
        "drop", "or train with the suggested labels, where there are some"
    )
    groups: PathText | None = setting(None, "a CSV with id,group, or RAF-DB's Annotation/manual, for the report")
    synthetic: SyntheticSettings = setting(SyntheticSettings, "how many faces path=null draws")
    memory_gb: Real = setting(1.0, "of pixels kept in memory; more stay on the disk and are mapped", ge=0, le=1e6)

    @property
    def paths(self) -> list[Path]:
        """The sources that `path` names: none, one, or several."""
        return [at_home(path) for path in self.sources]

    @property
    def sources(self) -> list[str]:
        """The same as they were typed."""
        return [self.path] if isinstance(self.path, str) else self.path or []

    @property
    def source(self) -> str:
        """What messages and reports call the data."""
        return ", ".join(self.sources) or "synthetic"

    @property
    def needs_votes(self) -> bool:
        """Whether FER+'s votes are read."""
        return "ferplus" in (self.labels, self.eval_labels) or self.ferplus_auxiliary > 0

    def missing(self) -> Iterator[str]:
        """The files that are not there and are not fetched either, a sentence each."""
        for typed, path in zip(self.sources, self.paths, strict=True):
            if is_there(path) or (self.download and path.name == FER2013_FILE):
                continue
            if path.name == FER2013_FILE:
                yield (
                    f"data.path={typed} does not exist and data.download is off; put {FER2013_FILE} there, give "
                    "another data.path, or try data=synthetic"
                )
            elif "," in typed:
                yield f"data.path={typed} does not exist; several sources are a list: 'data.path=[{typed}]'"
            else:
                yield (
                    f"data.path={typed} does not exist; correct it (only a missing {FER2013_FILE} is downloaded), or "
                    "try data=synthetic"
                )
        votes = at_home(self.ferplus_path)
        if self.needs_votes and not is_there(votes) and not (self.download and votes.name == VOTES_FILE):
            why = "data.download is off" if votes.name == VOTES_FILE else f"only a missing {VOTES_FILE} is downloaded"
            yield (
                f"data.ferplus_path={self.ferplus_path} does not exist and {why}; put the FER+ votes there, correct "
                "it, or leave data.labels=ferplus out"
            )

    @property
    def division(self) -> dict[str, Any]:
        """What decides which rows of which files are for training; equal for two spellings of one path."""
        keys = {"classes", "split", "val_fraction", "test_fraction", "folds", "fold", "split_seed", "synthetic"}
        return {"paths": [path.resolve() for path in self.paths], **self.model_dump(include=keys)}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in training order."""
        return resolve_classes(self.classes, self.other_emotions)


class ModelSettings(Settings):
    """Which network, and where its weights come from."""

    name: str = setting("senet", "net, senet, cnn, any network of timm, or one of your own: package.module:Class")
    image_size: Whole | None = setting(None, "pixels per side that the network sees; null: data.size", ge=16, le=1024)
    stem_stride: Whole | None = setting(None, "stride of a timm network's first convolution", ge=1, le=16)
    standardise: bool = setting(True, "bring every face to mean 0 and deviation 1 by its own pixels")
    pretrained: bool = setting(False, "start a timm network from its ImageNet weights")
    weights: PathText | None = setting(
        None, "to start from: a packaged network (senet_7), a checkpoint, a state dict, .safetensors"
    )
    kwargs: Free = setting(dict, "further arguments of the network's constructor")


class OptimSettings(Settings):
    """Optimiser and learning-rate schedule (`fer.training.optim`)."""

    optimizer: Target = setting({"_target_": "torch.optim.AdamW"}, "its class (_target_) and further arguments")
    lr: Real = setting(2e-3, "highest learning rate; for transformers and for fine-tuning rather 5e-4", gt=0, le=100)
    weight_decay: Real = setting(0.05, "not on norms and biases", ge=0, le=100)
    schedule: Literal["cosine", "onecycle", "plateau", "none"] = setting("cosine", "of the learning rate")
    warmup_epochs: Real = setting(2.0, "length of the rise of cosine and onecycle", ge=0, le=1e6)
    min_lr: Real = setting(1e-5, "lowest learning rate of cosine and plateau", ge=0, le=100)
    factor: Real = setting(0.75, "plateau multiplies the learning rate by it", gt=0, lt=1)
    patience: Whole = setting(5, "epochs that plateau waits", ge=0, le=1_000_000)


class DistilSettings(Settings):
    """How a student learns from `teacher`."""

    temperature: Real = setting(2.0, "of teachers and student; above 1 the unlikely classes count more", gt=0, le=100)
    weight: Real = setting(0.5, "share of the teachers in the loss; the labels have the rest", gt=0, le=1)
    cache: bool = setting(False, "ask the teachers once, about faces as they are, and not about augmented ones")


class TrainSettings(Settings):
    """All settings of train.py."""

    mode: Literal["train", "test"] = setting("train", "or test: evaluate ckpt without training")
    ckpt: PathText | list[PathText] | None = setting(
        None, "mode=train: a last.ckpt to resume; mode=test: the checkpoint to evaluate, [a,b] an ensemble"
    )
    seed: Whole = setting(0, "of weights, order and augmentation", ge=0, lt=2**32)
    label_smoothing: Real = setting(0.1, "of the training loss", ge=0, lt=1)
    ema: Real | None = setting(0.998, "decay of the averaged weights; null turns averaging off", ge=0, lt=1)
    image_sizes: list[Whole] | None = setting(
        None, "[32,40,48]: smaller faces first, each size for an equal share of the epochs"
    )
    teacher: PathText | list[PathText] | None = setting(
        None, "checkpoints whose answers are learnt besides the labels, a.ckpt or [a.ckpt,b.ckpt]"
    )
    early_stopping: Whole | None = setting(None, "stop after this many validations without a better val/accuracy", ge=1)
    compile: bool = setting(False, "torch.compile the network, and its teachers")
    graphs: bool = setting(False, "record a step as a CUDA graph: best_7 on an H200 6 times as fast (docs/training.md)")
    robustness: bool = setting(False, "measure corrupted faces, too: 85 times the evaluation (docs/robustness.md)")
    robustness_faces: Whole | None = setting(None, "on so many faces, drawn with a fixed seed; null: all", ge=1)
    tta: Literal["none", "flip", "tencrop", "shift"] = setting("none", "views that are averaged at test time")
    test_split: Literal["test", "val"] = setting("test", "what the report is about; val leaves the test rows alone")
    name: str | None = setting(None, "of the run and its directory; null: network and classes")
    data: DataSettings = setting(DataSettings, "")
    model: ModelSettings = setting(ModelSettings, "")
    optim: OptimSettings = setting(OptimSettings, "")
    distil: DistilSettings = setting(DistilSettings, "")
    trainer: Free = setting(dict, "arguments of lightning.Trainer")
    logger: dict[str, Target] = setting(dict, "logger=[tensorboard,csv]; logger.NAME.ARGUMENT passes it on")
    callbacks: dict[str, Target] = setting(dict, "more Lightning callbacks: callbacks.mine._target_=package.Class")

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints that `ckpt` names: none, one, or several."""
        return _files(self.ckpt)

    @property
    def teachers(self) -> list[Path]:
        """The checkpoints that `teacher` names: none, one, or several."""
        return _files(self.teacher)

    @property
    def image_size(self) -> int:
        """Pixels per side that the network sees."""
        return self.model.image_size or self.data.size

    @property
    def run_name(self) -> str:
        """What the run is called."""
        classes = self.data.classes
        text = "+".join(classes) if isinstance(classes, list) else str(classes)
        return self.name or f"{self.model.name}_{text}".replace("/", "-")

    def contradictions(self) -> Iterator[str]:
        """Settings that make no sense together, and files that are not there; a sentence each."""
        data = self.data
        if self.model.name == "?":
            yield "model=timm needs the name of a network: model.name=convnext_atto"
        if data.folds is not None and data.fold >= data.folds:
            yield f"data.fold={data.fold}: with data.folds={data.folds} it goes from 0 to {data.folds - 1}"
        if data.folds is None and data.fold != 0:
            yield f"data.fold={data.fold}: there is one fold alone; set data.folds, too"
        if data.val_fraction + data.test_fraction >= 1:
            yield "data.val_fraction and data.test_fraction leave nothing to train on; their sum must be below 1"
        if self.optim.min_lr > self.optim.lr and self.optim.schedule in ("cosine", "plateau"):
            yield f"optim.min_lr={self.optim.min_lr}: it must not be above optim.lr={self.optim.lr}"
        epochs, every = self.trainer.get("max_epochs"), self.trainer.get("check_val_every_n_epoch", 1)
        if self.optim.schedule == "plateau" and every != 1 and self.mode == "train":
            yield "optim.schedule=plateau goes by each epoch's val/loss; leave trainer.check_val_every_n_epoch at 1"
        endless = epochs == -1 and self.trainer.get("max_steps", -1) == -1
        if endless and self.optim.schedule in ("cosine", "onecycle") and self.mode == "train":
            yield (
                f"optim.schedule={self.optim.schedule} needs to know the end; set trainer.max_epochs or "
                "trainer.max_steps, or optim.schedule=none"
            )
        if self.image_sizes and not (isinstance(epochs, int) and epochs > 0):
            yield "image_sizes: each size is for a share of the epochs; give their number, trainer.max_epochs"
        for size in self.image_sizes or []:
            if not 16 <= size <= 1024:
                yield f"image_sizes=[{size}]: each must be between 16 and 1024"
        if self.robustness_faces is not None and not self.robustness:
            yield "robustness_faces: it is of the report on corrupted faces; add robustness=true"
        if data.groups is not None and not is_there(at_home(data.groups)):
            yield f"data.groups={data.groups} does not exist; give a CSV with the columns id,group, or leave it out"
        plain = self.plain()
        for key in ("name", *(key for key, field in fields_of(TrainSettings) if is_path(field))):
            for text in value if isinstance(value := at(plain, key), list) else [value]:
                if isinstance(text, str) and text.encode(errors="replace") != text.encode(errors="surrogateescape"):
                    yield f"{key}={shown(text)}: the name is no UTF-8, which reports are written in; rename it"
        yield from self._source_contradictions()
        yield from self._checkpoint_contradictions()
        if self.mode == "train":  # a test of what was trained so does without the teachers
            yield from self._teacher_contradictions()
        if data.needs_votes and len(data.paths) != 1:
            what = "drawn faces" if data.path is None else "several sources"
            yield f"data.labels=ferplus, ferplus_auxiliary: there are no votes on {what}; give data.path=fer2013.csv"
        others = sorted(set(data.class_names) - set(ALL_EMOTIONS))
        if others and data.needs_votes:
            yield f"data.classes: FER+ has no votes for {', '.join(others)}; leave it out, or data.labels=ferplus"
        if data.labels == "fer2013" and (data.ferplus_target != "majority" or data.fer2013_weight > 0):
            yield "data.ferplus_target and data.fer2013_weight are of training with data.labels=ferplus; add that"
        undrawn = [name for name in data.class_names if name not in EMOTIONS]
        if data.path is None and undrawn:
            yield f"data.classes: drawn faces show no {', '.join(undrawn)}; leave it out, or give data.path"
        if data.ferplus_target == "any" and (data.mixup_alpha > 0 or data.fer2013_weight > 0):
            yield "data.ferplus_target=any takes one label per face; leave data.mixup_alpha and fer2013_weight at 0"
        yield from self._exclusion_contradictions()

    def _source_contradictions(self) -> Iterator[str]:
        paths = self.data.paths
        places = [path.resolve() for path in paths]
        if self.data.path == []:
            yield "data.path=[]: give at least one source, or null for drawn faces"
        for path in dict.fromkeys(path for path, place in zip(paths, places, strict=True) if places.count(place) > 1):
            yield f"data.path names {path} twice; name each source once"
        yield from self.data.missing()

    def _checkpoint_contradictions(self) -> Iterator[str]:
        if self.mode == "test" and self.ckpt is None:
            yield "mode=test needs a checkpoint: ckpt=RUN/checkpoints/best.ckpt"
        if isinstance(self.ckpt, list) and (self.mode == "train" or not self.ckpt):
            yield "ckpt: a list of checkpoints is an ensemble; it needs mode=test and at least one checkpoint"
        yield from _missing("ckpt", self.checkpoints)

    def _teacher_contradictions(self) -> Iterator[str]:
        if self.teacher == []:
            yield "teacher=[]: give at least one checkpoint, or null"
        if self.teacher is None and self.distil != DistilSettings():
            yield "distil: it is about learning from a teacher; add teacher=RUN/checkpoints/best.ckpt"
        yield from _missing("teacher", self.teachers)

    def _exclusion_contradictions(self) -> Iterator[str]:
        data = self.data
        if data.exclude is None:
            if data.exclude_reasons is not None or data.exclude_action != "drop":
                yield "data.exclude_reasons and data.exclude_action need data.exclude=cleaning.csv"
            return
        if data.path is None:
            yield "data.exclude: lists are of data on disk; give data.path, or leave it out"
        elif len(data.paths) > 1:
            yield "data.exclude: a list is of one source; give one data.path, or leave it out"
        elif not is_file(at_home(data.exclude)):
            yield f"data.exclude={data.exclude} does not exist; fer-clean data.path=... makes one"
        if data.exclude_action == "relabel" and data.labels == "ferplus":
            yield "data.exclude_action=relabel: with data.labels=ferplus all labels are FER+'s; choose drop"


def _missing(key: str, checkpoints: Sequence[Path]) -> Iterator[str]:
    for path in checkpoints:
        if not is_file(path):
            what = "is a folder" if is_there(path) else "does not exist"
            yield f"{key}={path} {what}; a run's checkpoints are in its checkpoints/ directory"
