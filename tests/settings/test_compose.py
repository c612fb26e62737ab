"""A command line of train.py: what it comes to, and every mistake in it, told at once and before anything is done."""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Literal

import pytest
import yaml
from tiny import settings_of

from fer import rundir
from fer.commands.train import main
from fer.data.cache import cache_directory
from fer.errors import UserError
from fer.models import create
from fer.settings import compose
from fer.settings.base import fields_of, finite, help_lines, names_of
from fer.settings.compose import CONFIGS, compose_line, sweep_parameters, take_apart
from fer.settings.infer import InferSettings
from fer.settings.tables import CleanSettings
from fer.settings.train import TrainSettings
from fer.training.run import check

EXPERIMENTS = sorted(file.stem for file in (CONFIGS / "experiment").glob("*.yaml"))
MODELS = sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml"))


def mistakes(*words: str) -> list[str]:
    """What is found before anything is imported, built or read."""
    try:
        return list(settings_of(*words).contradictions())
    except UserError as error:
        return str(error).splitlines()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.clases=4", "did you mean data.classes"),
        ("clases=4", "did you mean"),
        ("+data.clases=4", "did you mean data.classes"),
        ("data=fer2014", "did you mean fer2013"),
        ("experiment=cnn_8clas", "there is"),
        ("data.classes", "KEY=VALUE"),
        ("detector=haar", "there is no such setting"),
        # What other projects call them.
        ("lr=0.1", "did you mean optim.lr?"),
        ("model.learning_rate=0.1", "did you mean optim.lr?"),
        ("epochs=3", "did you mean trainer.max_epochs?"),
        ("model.num_epochs=3", "did you mean trainer.max_epochs?"),
        ("model.num_classes=4", "did you mean data.classes?"),
        ("device=cuda", "did you mean trainer.accelerator?"),
        ("training.device=cuda", "did you mean trainer.accelerator?"),
        ("batch_size=3", "did you mean data.batch_size?"),
        ("--test-only", "did you mean mode=test?"),
        ("--checkpoint", "did you mean ckpt?"),
        ("--config-name=nosuch", "there is train"),
        ("--config-dir=nosuch", "no such directory"),
        # Values.
        ("mode=tets", "did you mean test"),
        ("optim.lr=fast", "it must be a number"),
        ("optim.lr=-1", "above 0"),
        ("optim.lr=inf", "it must be a number"),
        ("optim.lr=nan", "it must be a number"),
        ("optim.min_lr=100", "must not be above optim.lr"),
        ("optim.warmup_epochs=-3", "between 0"),
        ("optim.schedule=cosin", "did you mean cosine"),
        ("data.split=offical", "did you mean official"),
        ("data.balance=yes", "none, loss, sampler"),
        ("label_smoothing=2", "label_smoothing=2: it must be a number, at least 0 and below 1"),
        ("data.batch_size=0", "data.batch_size=0: it must be a whole number between 1"),
        ("data.batch_size=true", "it must be a number"),
        ("data.batch_size=1.5", "it must be a whole number"),
        ("data.classes=6", "5-surprise"),
        ("data.classes=null", "data.classes=null"),
        ("data.classes=[happy]", "at least two"),
        ("data.augment.scale=[1.2,0.8]", "the smaller number comes first"),
        ("data.augment.flip=2", "between 0 and 1"),
        ("data.augment.erase_area=[5,9]", "data.augment.erase_area=[5,9]"),
        ("seed=-1", "at least 0"),
        ("model.image_size=100000", "between 16 and 1024"),
        ("model.kwargs.dropout=inf", "finite"),
        ("mode=test", "needs a checkpoint"),
        ("ckpt=none.ckpt", "does not exist"),
        ("ckpt=~nobody7/a.ckpt", "ckpt=~nobody7/a.ckpt does not exist"),
        ("data.groups=~nobody7/a.csv", "data.groups=~nobody7/a.csv does not exist"),
        ("ckpt=tests", "ckpt=tests is a folder; a run's checkpoints are in its checkpoints/ directory"),
        (f"ckpt={'x' * 300}", "does not exist"),
        ("ckpt=", "names no file"),
        ("model=timm", "model.name=convnext_atto"),
        ("model=net,senet", "needs -m"),
        ("name=${oc.env:FER_NO_SUCH_VARIABLE}", "FER_NO_SUCH_VARIABLE"),
        ("image_sizes=[8]", "between 16 and 1024"),
        ("robustness_faces=100", "add robustness=true"),
        ("teacher=none.ckpt", "teacher=none.ckpt does not exist"),
        ("teacher=[]", "give at least one checkpoint"),
        ("distil.weight=0.9", "add teacher="),
        ("distil.weight=0", "distil.weight=0: it must be a number, above 0 and at most 1"),
        ("data.groups=none.csv", "columns id,group"),
    ],
)
def test_a_mistake_is_one_sentence_with_key_value_and_the_way_out(word: str, message: str) -> None:
    found = mistakes(word)
    assert len(found) == 1, found
    assert message in found[0]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.name=resnet81", "did you mean resnet"),
        ("model.kwargs.widths=[0,0]", "at least 1"),
        ("model.kwargs.dropout=5", "dropout"),
        ("model.weights=none.ckpt", "does not exist"),
        ("optim.optimizer._target_=torch.optim.Adamm", "no such class"),
        ("optim.optimizer._target_=os.getcwd", "no Optimizer"),
        ("optim.optimizer.foo=1", "foo"),
        ("optim.optimizer.lr=0.5", "optim.optimizer.lr: set optim.lr instead"),
        ("callbacks.mine={_target_: lightning.pytorch.callbacks.ModelCheckpoint, mode: bad}", "callbacks.mine"),
        ("trainer.precision=64-true", "32-true, bf16-mixed or 16-mixed"),
        ("trainer.precision=bf16-true", "32-true, bf16-mixed or 16-mixed"),
        ("callbacks.mine._target_=os.getcwd", "no Callback"),
        ("callbacks.mine._target_=nosuch.Class", "no such class"),
        ("logger.mine._target_=lightning.pytorch.callbacks.Timer", "no Logger"),
        ("logger.tensorboard.api_key=abc", "use the environment"),
        ("trainer.max_epoch=5", "did you mean trainer.max_epochs"),
        ("trainer.max_epochs=0", "at least 1"),
        ("trainer.max_epochs=1.5", "whole number"),
        ("trainer.accumulate_grad_batches=0", "at least 1"),
        ("trainer.devices=99", "there are"),
        ("trainer.accelerator=gpu", "trainer: "),
        ("trainer.accelerator=abacus", "trainer: "),
        ("trainer.accelerator=tpu", "trainer: "),
        ("logger.tensorboard.foo=1", "have no settings; leave it out"),
        ("trainer.logger=false", "logger=tensorboard"),
        ("trainer.callbacks=[]", "callbacks.NAME"),
        ("trainer.plugins=[]", "plugin of its own"),
        ("trainer.enable_checkpointing=false", "nothing to evaluate"),
        ("trainer.barebones=true", "no checkpoint"),
    ],
)
def test_network_optimiser_callbacks_and_trainer_are_built_before_data_are_read(word: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        check(settings_of(word))
    assert len(str(raised.value).splitlines()) == 1
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "word",
    [
        *("trainer.log_every_n_steps=5", "trainer.enable_progress_bar=false", "trainer.num_sanity_val_steps=1"),
        *(
            "trainer.check_val_every_n_epoch=2",
            "trainer.max_epochs=-1 optim.schedule=none",
            "trainer.fast_dev_run=true",
        ),
        *("logger=csv", "logger=[tensorboard,csv]", "logger=[]", "logger=null", "experiment=null"),
        "optim.optimizer={_target_: torch.optim.Adam, betas: [0.9, 0.99]}",
    ],
)
def test_what_the_trainer_takes_is_passed_on(word: str) -> None:
    check(settings_of(*word.split(" ") if "{" not in word else [word]))


def test_mistakes_that_show_when_things_are_built_are_listed_at_once() -> None:
    words = ("model.kwargs.foo=1", "model.weights=no.ckpt", "trainer.max_epoch=3", "callbacks.mine._target_=no.Class")
    with pytest.raises(UserError) as raised:
        check(settings_of(*words, "logger.tensorboard.foo=1"))
    assert len(str(raised.value).splitlines()) == 5


def test_all_mistakes_are_listed_at_once() -> None:
    assert len(mistakes("optim.lr=fast", "data.split=x", "seed=-3", "data.augment.flip=2")) == 4
    assert len(mistakes("data=fer2014", "model=snet", "sed=3")) == 3


@pytest.mark.parametrize(
    "words",
    [
        ["model=senet", "data.classes=7"],
        ["data.classes=[happy,sad]"],
        ["trainer.limit_train_batches=3", "model.kwargs.anything=1"],
        ["-m", "seed=1,2,3", "model=net,senet", "data.fold=range(5)", "data.folds=5"],
        ["hydra.run.dir=/tmp/x", "hydra.sweep.dir=/tmp/y"],
        ["data.augment=null"],
    ],
)
def test_right_command_lines_pass(words: list[str]) -> None:
    assert mistakes(*words) == []


@pytest.mark.parametrize(
    "path",
    [
        *("a b.csv", "Gesichter ä ö ü.csv", "表情.csv", "лица.csv", "data (1).csv", "epoch=3-step=9.ckpt", "x[1].csv"),
        *("it's.csv", "cost$5.csv", "${oops}.csv", "a&b.csv", "50%.csv", "a#b.csv", "a,b.csv", "end\\", '"quoted.csv'),
    ],
)
@pytest.mark.parametrize("key", ["data.path", "ckpt", "model.weights", "data.exclude"])
def test_paths_are_taken_as_they_are_typed(key: str, path: str) -> None:
    values: Any = compose_line(take_apart([f"{key}={path}"])).values
    for part in key.split("."):
        values = values[part]
    assert values == path


@pytest.mark.parametrize("name", ["a b (1)", "x=1", "it's [2]", "表情"])
def test_a_name_is_taken_as_it_is_typed(name: str) -> None:
    assert settings_of(f"name={name}").name == name


def test_one_file_or_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert compose_line(take_apart(["ckpt=[a.ckpt,b c=1.ckpt]"])).values["ckpt"] == ["a.ckpt", "b c=1.ckpt"]
    (tmp_path / "[a.ckpt,b.ckpt]").touch()
    assert compose_line(take_apart(["ckpt=[a.ckpt,b.ckpt]"])).values["ckpt"] == "[a.ckpt,b.ckpt]"
    swept = take_apart(["-m", "data.path=a b.csv,c.csv"])
    assert swept.words == ["data.path='a b.csv','c.csv'"]
    assert compose_line(swept).values["data"]["path"] == "a b.csv"
    (tmp_path / "a,b.csv").touch()
    assert compose_line(take_apart(["-m", "data.path=a,b.csv"])).values["data"]["path"] == "a,b.csv"


@pytest.mark.parametrize(
    ("typed", "word"),
    [
        ("teacher=null,a.ckpt,[a.ckpt,b.ckpt]", "teacher=null,'a.ckpt',['a.ckpt','b.ckpt']"),
        ("data.path=[a,b],c", "data.path=['a','b'],'c'"),
        ("ckpt=[a,b],[c,d e]", "ckpt=['a','b'],['c','d e']"),
        ("ckpt=[a,b]", "ckpt=['a','b']"),
        ("data.exclude=x[1.csv,y.csv", "data.exclude='x[1.csv','y.csv'"),
        ("data.exclude=x[1].csv,y.csv", "data.exclude='x[1].csv','y.csv'"),
    ],
)
def test_lists_within_a_sweep_stay_whole(typed: str, word: str) -> None:
    assert take_apart(["-m", typed]).words == [word]


@pytest.mark.parametrize(
    ("word", "messages"),
    [
        ("logger=[csv],[tensorboard,csv]", []),
        ("logger=[csv],[tensorboard,cvs]", ["logger=cvs: there is csv, mlflow, tensorboard, wandb; did you mean csv?"]),
        ("model=glob(*net)", []),
        ("model=glob([senet,cnn],exclude=cnn)", []),
        ("seed=choice(1,2)", []),
        ("seed=range(3)", []),
        ("model=glob(nosuch*)", ["model=glob(nosuch*): glob(...) finds none; there is cnn, "]),
        ("seed=glob(1*)", ["seed=glob(1*): glob(...) finds none; it is of groups"]),
        ("optim.lr=interval(0.1,0.2)", ["optim.lr=interval(0.1,0.2): a sweep takes values one by one"]),
        ("data.classes=choice(4,[happy,sad]),7", ["data.classes=choice(4,[happy,sad]),7: a sweep takes values one"]),
        ("seed=range(3),5", ["seed=range(3),5: a sweep takes values one by one"]),
        ("model=glob(a),net", ["model=glob(a),net: a sweep takes values one by one"]),
        ("seed=range(0)", ["seed=range(0): there is no value in it"]),
    ],
)
def test_what_hydras_sweeper_takes_is_taken_and_the_rest_is_named(word: str, messages: list[str]) -> None:
    found = mistakes("-m", word)
    assert len(found) == len(messages), found
    assert all(text.startswith(message) for text, message in zip(found, messages, strict=True)), found


@pytest.mark.parametrize("values", ["interval(0.1,0.2)", "choice(1,range(2))", "a)"])
def test_values_of_a_sweep_file_are_looked_at_likewise(tmp_path: Path, values: str) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(
        f"# @package _global_\nhydra:\n  sweeper:\n    params:\n      optim.lr: {values}\n"
    )
    (mistake,) = mistakes("-m", f"--config-dir={tmp_path}", "sweep=mine")
    assert f"optim.lr={values}" in mistake


@pytest.mark.parametrize(
    ("file", "text", "words", "message"),
    [
        ("sweep/odd.yaml", "- 1\n", ["-m", "sweep=odd"], "odd.yaml holds no settings"),
        ("sweep/odd.yaml", "a: [1\n", ["-m", "sweep=odd"], "odd.yaml is no YAML"),
        ("sweep/odd.yaml", "hydra: {sweeper: {params: [1]}}\n", ["-m", "sweep=odd"], "params must be KEY: VALUES"),
        ("experiment/odd.yaml", "- 1\n", ["experiment=odd"], "odd.yaml holds no settings"),
        ("model/odd.yaml", "kwargs: {dropout: '${nowhere}'}\n", ["-m", "model=net,odd"], "nowhere"),
    ],
)
def test_files_of_ones_own_that_cannot_be_used_are_named(
    tmp_path: Path, file: str, text: str, words: list[str], message: str
) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(text)
    (mistake,) = mistakes(f"--config-dir={tmp_path}", *words)
    assert message in mistake


def test_a_persons_home_is_known_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text("# @package _global_\nseed: 7\n")
    line = take_apart(["--config-dir=~/mine", "experiment=own", "hydra.run.dir=~/run", "name=~x"])
    composed = compose_line(line)
    assert composed.run_dir == tmp_path / "run"
    assert (composed.values["seed"], composed.values["name"]) == (7, "~x")
    monkeypatch.setenv("FER_CACHE", "~/cache")
    assert cache_directory() == tmp_path / "cache"


def test_a_name_that_is_no_utf_8_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "d\udcfcta").mkdir()
    settings = settings_of(f"data.path={tmp_path}/d\udcfcta", "name=M\udcfcller")
    found = list(settings.contradictions())
    assert [text.partition("=")[0] for text in found] == ["name", "data.path"]
    assert all("is no UTF-8" in text for text in found)
    assert not list(settings_of("name=Müller", "data=synthetic").contradictions())


def test_every_value_of_a_sweep_is_looked_at_before_its_first_run() -> None:
    found = mistakes("-m", "optim.lr=0.1,-1", "seed=1,two", "model=net,senet")
    assert [text.partition(":")[0] for text in found] == ["optim.lr=-1", "seed=two"]
    assert mistakes("-m", "model=net,snet") != []
    assert mistakes("-m", "hydra/launcher=nosuch", "seed=1,2") == [
        "hydra/launcher=nosuch: there is basic, joblib, submitit_slurm, submitit_local"
    ]


@pytest.mark.skipif(find_spec("hydra_plugins.hydra_joblib_launcher") is None, reason="needs the extra [joblib]")
def test_the_settings_of_a_launcher_are_known() -> None:
    assert mistakes("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "model=net,senet") == []
    (mistake,) = mistakes("-m", "hydra/launcher=joblib", "hydra.launcher.n_jibs=2", "seed=1,2")
    assert "n_jibs" in mistake


@pytest.mark.parametrize("name", sorted(file.stem for file in (CONFIGS / "sweep").glob("*.yaml")))
def test_every_choice_of_a_sweep_file_is_a_setting(name: str) -> None:
    line = take_apart(["-m", f"sweep={name}"])
    assert sweep_parameters(line)
    assert mistakes("-m", f"sweep={name}") in ([], mistakes("-m", f"sweep={name}", "data.exclude=null"))


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of configs/ that a test may spoil."""
    copy = Path(shutil.copytree(CONFIGS, tmp_path / "configs"))
    monkeypatch.setattr(compose, "CONFIGS", copy)
    return copy


def test_a_mistake_inside_an_experiment_file_names_the_file(configs: Path) -> None:
    mine = configs / "experiment" / "mine.yaml"
    mine.write_text("# @package _global_\ndata:\n  clases: 4\noptim:\n  lr: fast\n")
    found = mistakes("experiment=mine")
    assert len(found) == 2
    assert all(text.startswith("configs/experiment/mine.yaml: ") for text in found)
    assert any("did you mean data.classes" in text for text in found)
    assert not mistakes("experiment=mine", "optim.lr=1")[0].startswith("optim")
    mine.write_text("a: [1\n")
    assert "is no YAML" in mistakes("experiment=mine")[0]


def test_a_directory_of_ones_own_adds_choices(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\noptim:\n  lr: 0.5\n")
    settings = settings_of("--config-dir", str(tmp_path), "experiment=mine", "model=net")
    assert (settings.optim.lr, settings.model.name) == (0.5, "net")
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\noptim:\n  lr: -5\n")
    assert str(tmp_path) in mistakes(f"--config-dir={tmp_path}", "experiment=mine")[0]


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("timm", "vgg16")])
def test_every_model_config_builds(name: str) -> None:
    settings = settings_of(f"model={name}")
    model = settings.model
    network = create(model.name, 7, settings.image_size, False, model.stem_stride, model.kwargs)
    assert sum(parameter.numel() for parameter in network.parameters()) > 1000


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_settings_of_an_experiment_win(name: str) -> None:
    """Also those that stand at the top of configs/train.yaml."""
    content = yaml.safe_load((CONFIGS / "experiment" / f"{name}.yaml").read_text())
    own = {key: value for key, value in content.items() if not isinstance(value, dict) and key != "defaults"}
    composed = compose_line(take_apart([f"experiment={name}"])).values
    assert {key: composed[key] for key in own} == own
    TrainSettings.checked(composed)


def test_folds_and_sizes() -> None:
    assert "from 0 to 4" in mistakes("data.folds=5", "data.fold=5")[0]
    assert mistakes("data.fold=3") == ["data.fold=3: there is one fold alone; set data.folds, too"]
    assert mistakes("image_sizes=[24,32]") == []
    for epochs in (-1, "null"):
        assert "trainer.max_epochs" in mistakes("image_sizes=[24,32]", f"trainer.max_epochs={epochs}")[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.labels=fer+"], "did you mean fer"),
        (["data.eval_labels=fer"], "fer2013, ferplus"),
        (["data.ferplus_target=sotf"], "did you mean soft"),
        (["data.exclude_action=fix"], "drop, relabel"),
        (["data.labels=ferplus", "data=synthetic"], "no votes on drawn faces"),
        (["data.ferplus_target=soft"], "add that"),
        (["trainer.max_epochs=-1"], "optim.schedule=cosine needs to know the end"),
        (["optim=sgd", "trainer.max_epochs=-1"], "optim.schedule=onecycle needs to know the end"),
        (["optim=adam", "trainer.check_val_every_n_epoch=2"], "leave trainer.check_val_every_n_epoch at 1"),
        (["data.fer2013_weight=0.5"], "add that"),
        (["data.ferplus_auxiliary=-1"], "data.ferplus_auxiliary"),
        (["data.ferplus_auxiliary=1", "data=synthetic"], "no votes on drawn faces"),
        (["data.classes=8", "data=synthetic"], "drawn faces show no contempt"),
        (["data.labels=ferplus", "data.ferplus_target=any", "data.mixup_alpha=0.2"], "one label per face"),
        (["data.exclude_reasons=[blank]"], "need data.exclude"),
        (["data.exclude=none.csv"], "does not exist; fer-clean"),
    ],
)
def test_settings_of_labels_are_checked_together(words: list[str], message: str) -> None:
    path = [] if "data=synthetic" in words else ["data.path=mine/fer2013.csv"]
    found = mistakes(*path, *words)
    assert any(message in text for text in found), found
    assert mistakes("data.path=mine/fer2013.csv", "data.labels=ferplus", "data.classes=8") == []


def test_every_setting_has_a_sentence_and_finite_defaults() -> None:
    for cls in (TrainSettings, InferSettings):
        assert [key for key, field in fields_of(cls) if not field.description] == []
        assert finite(cls().plain())
        assert len(set(names_of(cls))) == len(list(names_of(cls)))


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    settings = settings_of("experiment=best_7", "data.classes=[happy,sad]", "logger=[tensorboard,csv]")
    rundir.write_settings(tmp_path, settings, ["experiment=best_7"])
    assert rundir.load(tmp_path).plain() == {
        **settings.plain(),
        "name": "senet_happy+sad",
        "model": {**settings.model.plain(), "image_size": 48},
    }
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved["run"]["overrides"] == ["experiment=best_7"]


def test_a_test_is_named_by_what_is_tested(tmp_path: Path) -> None:
    trained = tmp_path / "run" / "checkpoints" / "best.ckpt"
    trained.parent.mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("name: senet_4\n")
    cases: list[tuple[str | list[str], Literal["none", "flip"], bool, str]] = [
        (str(trained), "none", False, "test_senet_4"),
        (str(trained), "flip", False, "test_senet_4_flip"),
        (str(trained), "none", True, "test_mine"),
        ("fer/weights/senet_5.ckpt", "none", False, "test_senet_5"),
        ([str(trained), "other.ckpt"], "none", False, "test_ensemble_of_2"),
    ]
    for ckpt, tta, named, name in cases:
        settings = TrainSettings(mode="test", ckpt=ckpt, tta=tta, name="mine")
        assert rundir.test_name(settings, named) == name, ckpt


@pytest.mark.parametrize("words", [["seed=-1"], ["-m", "seed=1,-1"], ["optim.optimizer.foo=1"], ["trainer.devices=99"]])
def test_a_refused_command_leaves_nothing(
    command: Callable[..., "CompletedProcess[str]"], tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "never-read.csv").write_text("not FER2013")
    finished = command(*words, f"data.path={tmp_path / 'never-read.csv'}")
    assert finished.returncode == 2
    assert len(finished.stderr.splitlines()) == 1
    assert finished.stderr.startswith("error: ")
    assert "never-read" not in finished.stderr
    assert list((tmp_path / "outputs").iterdir()) == []


def test_secrets_of_the_environment_are_their_owners_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Callable[..., TrainSettings]
) -> None:
    monkeypatch.setenv("FER_NAME", "hidden")
    assert compose_line(take_apart(["name=${oc.env:FER_NAME}"])).secret
    assert not compose_line(take_apart(["name=plain"])).secret
    rundir.claim(tmp_path, settings(), [], secret=True)
    assert (tmp_path / "config.yaml").stat().st_mode & 0o077 == 0


def test_help_of_a_command_shows_defaults_and_no_group_without_a_name() -> None:
    lines = help_lines(CleanSettings)
    assert any(line.startswith("  data.size=48 ") for line in lines)
    assert any(line.startswith("  data.path=null ") for line in lines)  # has no default
    assert "data:" in lines
    assert ":" not in lines


def test_help_and_settings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help", "optim=sgd"]) == 0
    shown = capsys.readouterr().out
    assert "optim.lr=0.1 " in shown
    assert "senet" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert main(["--cfg", "job", "seed=5"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 5
