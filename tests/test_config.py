from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from fer import config
from fer.models import create

CONFIGS = Path(__file__).parents[1] / "configs"
EXPERIMENTS = sorted(file.stem for file in (CONFIGS / "experiment").glob("*.yaml"))
MODELS = sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml"))


def mistakes(*overrides: str, configs: Path = CONFIGS) -> list[str]:
    config.register()
    return config.mistakes(configs, "train", overrides)[0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.clases=4", "did you mean data.classes"),
        ("clases=4", "did you mean"),
        ("+data.clases=4", "did you mean data.classes"),
        ("lr=0.1", "did you mean optim.lr"),
        ("optim.lr=fast", "could not be converted"),
        ("data=fer2014", "did you mean fer2013"),
        ("experiment=cnn_8clas", "there is"),
        ("data.classes", "KEY=VALUE"),
        ("detector=haar", "there is no such setting"),
        ("seed=1,two", "could not be converted"),
    ],
)
def test_a_mistake_is_named_with_the_nearest_right_name(override: str, message: str) -> None:
    found = mistakes(override)
    assert len(found) == 1
    assert message in found[0]


def test_all_mistakes_are_listed_at_once() -> None:
    found = mistakes("data.clases=4", "optim.lr=fast", "data=fer2014", "seed=3")
    assert len(found) == 3


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=senet", "data.classes=7"],
        ["data.classes=[happy,sad]"],
        ["trainer.limit_train_batches=3", "model.kwargs.anything=1"],
        ["seed=1,2,3", "model=net,senet", "data.fold=range(5)", "data.folds=5"],
        ["hydra.run.dir=/tmp/x", "hydra.sweep.dir=/tmp/y"],
        ["data.augment=null", "ckpt=[a.ckpt,b.ckpt]"],
    ],
)
def test_right_command_lines_pass(overrides: list[str]) -> None:
    assert mistakes(*overrides) == []


def test_a_new_name_under_an_open_key_gets_its_plus() -> None:
    config.register()
    _, fixed = config.mistakes(CONFIGS, "train", ["trainer.limit_val_batches=1"])
    assert fixed == ["++trainer.limit_val_batches=1"]


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """A copy of configs/ that a test may spoil."""
    import shutil

    return Path(shutil.copytree(CONFIGS, tmp_path / "configs"))


def test_a_mistyped_key_inside_an_experiment_file(configs: Path) -> None:
    (configs / "experiment" / "mine.yaml").write_text("# @package _global_\ndata:\n  clases: 4\noptim:\n  lr: fast\n")
    found = mistakes("experiment=mine", configs=configs)
    assert "configs/experiment/mine.yaml: data.clases" in found[0]
    assert "did you mean data.classes" in found[0]
    (configs / "experiment" / "mine.yaml").write_text("# @package _global_\noptim:\n  lr: fast\n")
    assert "could not be converted" in mistakes("experiment=mine", configs=configs)[0]
    (configs / "experiment" / "mine.yaml").write_text("a: [1\n")
    assert "is no YAML" in mistakes("experiment=mine", configs=configs)[0]


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("timm", "vgg16")])
def test_every_model_config_builds(name: str) -> None:
    config.register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        model = compose("train", [f"model={name}"]).model
    network = create(model.name, 7, model.image_size, False, model.stem_stride, dict(model.kwargs))
    assert sum(parameter.numel() for parameter in network.parameters()) > 1000


def test_a_key_that_only_one_of_the_swept_experiments_has_can_be_set() -> None:
    config.register()
    words = ["experiment=labels_raw,best_7", "trainer.limit_train_batches=3"]
    found, fixed = config.mistakes(CONFIGS, "train", words)
    assert found == []
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for name in ("labels_raw", "best_7"):
            assert compose("train", [f"experiment={name}", *fixed[1:]]).trainer.limit_train_batches == 3


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(name: str) -> None:
    assert mistakes(f"experiment={name}") == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_settings_of_an_experiment_win(settings: Callable[..., DictConfig], name: str) -> None:
    """Also those that stand at the top of configs/train.yaml."""
    content = OmegaConf.load(CONFIGS / "experiment" / f"{name}.yaml")
    own = {key: value for key, value in content.items() if not OmegaConf.is_config(value) and key != "defaults"}
    cfg = settings(f"experiment={name}")
    assert {key: cfg[key] for key in own if key != "name"} == {key: own[key] for key in own if key != "name"}
    assert own.get("image_sizes") is None or cfg.image_sizes == own["image_sizes"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mode=tets", "did you mean test"),
        ("data.split=offical", "did you mean official"),
        ("data.balance=yes", "none, loss, sampler"),
        ("optim.schedule=cosin", "did you mean cosine"),
        ("label_smoothing=2", "between 0 and 1"),
        ("data.batch_size=0", "at least 1"),
        ("data.classes=6", "5-surprise"),
        ("mode=test", "needs a checkpoint"),
        ("robustness_faces=100", "add robustness=true"),
        ("ckpt=none.ckpt", "does not exist"),
        ("model.name=resnet81", "did you mean resnet"),
        ("optim.optimizer._target_=torch.optim.Adamm", "no such class"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(settings: Callable[..., DictConfig], override: str, message: str) -> None:
    found = config.validate(settings(override))
    assert len(found) == 1
    assert message in found[0]


def test_sizes_are_shared_out_over_a_number_of_epochs(settings: Callable[..., DictConfig]) -> None:
    assert config.validate(settings("image_sizes=[24,32]")) == []
    for epochs in (-1, "null"):
        assert (
            "trainer.max_epochs" in config.validate(settings("image_sizes=[24,32]", f"trainer.max_epochs={epochs}"))[0]
        )


def test_folds_and_trainer_arguments_are_checked(settings: Callable[..., DictConfig]) -> None:
    assert "from 0 to 4" in config.validate(settings("data.folds=5", "data.fold=5"))[0]
    assert "did you mean trainer.max_epochs" in config.validate(settings("++trainer.max_epoch=5"))[0]
    assert config.validate(settings()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.labels=fer+"], "did you mean fer"),
        (["data.eval_labels=fer"], "fer2013, ferplus"),
        (["data.ferplus_target=sotf"], "did you mean soft"),
        (["data.exclude_action=fix"], "drop, relabel"),
        (["data.labels=ferplus", "data=synthetic"], "no votes on drawn faces"),
        (["data.ferplus_target=soft"], "add that"),
        (["data.fer2013_weight=0.5"], "add that"),
        (["data.ferplus_auxiliary=-1"], "data.ferplus_auxiliary"),
        (["data.ferplus_auxiliary=1", "data=synthetic"], "no votes on drawn faces"),
        (["data.classes=8"], "only FER+ votes for contempt"),
        (["data.labels=ferplus", "data.ferplus_target=any", "data.mixup_alpha=0.2"], "one label per face"),
        (["data.exclude_reasons=[blank]"], "need data.exclude"),
        (["data.groups=none.csv"], "columns id,group"),
        (["data.exclude=none.csv"], "does not exist; python -m fer.data.clean"),
    ],
)
def test_settings_of_labels_are_checked_together(
    settings: Callable[..., DictConfig], overrides: list[str], message: str
) -> None:
    path = [] if "data=synthetic" in overrides else ["data.path=faces.csv"]
    found = config.validate(settings(*path, *overrides))
    assert any(message in text for text in found), found
    assert config.validate(settings("data.path=faces.csv", "data.labels=ferplus", "data.classes=8")) == []


def test_a_test_is_named_by_what_is_tested(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: senet_4\n")
    trained = str(tmp_path / "run" / "checkpoints" / "best.ckpt")
    for ckpt, tta, words, name in (
        (trained, "none", [], "test_senet_4"),
        (trained, "flip", [f"ckpt={trained}"], "test_senet_4_flip"),
        (trained, "none", ["name=mine"], "test_mine"),
        ("fer/weights/senet_5.ckpt", "none", [], "test_senet_5"),
        ([trained, "other.ckpt"], "none", [], "test_ensemble_of_2"),
        (None, "none", [], "test_mine"),
    ):
        directory = "${run_dir:mine,test,${ckpt},${tta},${words}}"
        settings = OmegaConf.create({"ckpt": ckpt, "tta": tta, "words": words, "directory": directory})
        assert settings.directory.split("_", 2)[2] == name, ckpt
