import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from fer.checkpoint import SPEC_KEY, ForeignSpec, load_network, read_checkpoint, write_checkpoint, write_slim
from fer.errors import UserError
from fer.models.network import EmotionNetwork, NetworkSpec

SPEC = NetworkSpec("net", ("happy", "sad"), kwargs={"widths": [4, 8]}, temperatures={"none": 1.5})


def content() -> dict[str, Any]:
    network = EmotionNetwork(SPEC)
    return {
        SPEC_KEY: SPEC.to_dict(),
        "state_dict": {f"network.{name}": tensor for name, tensor in network.state_dict().items()},
    }


def test_a_path_is_enough(tmp_path: Path) -> None:
    written = content()
    write_checkpoint(written, tmp_path / "a.ckpt")
    network = load_network(tmp_path / "a.ckpt")
    assert network.spec == SPEC
    assert not network.training
    assert torch.equal(
        network.state_dict()["backbone.head.weight"], written["state_dict"]["network.backbone.head.weight"]
    )


def test_half_precision_is_loaded_as_single(tmp_path: Path) -> None:
    written = content()
    written["state_dict"] = {k: v.half() if v.is_floating_point() else v for k, v in written["state_dict"].items()}
    write_checkpoint(written, tmp_path / "half.ckpt")
    assert {p.dtype for p in load_network(tmp_path / "half.ckpt").parameters()} == {torch.float32}


class Payload:
    """Unpickling it would create a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({**content(), "extra": Payload(tmp_path / "ran")}, tmp_path / "zip.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(UserError, match="refused"):
        load_network(tmp_path / "zip.ckpt")
    with pytest.raises(UserError, match="no checkpoint"):
        load_network(tmp_path / "plain.ckpt")
    assert not (tmp_path / "ran").exists()


def broken(kind: str) -> dict[str, Any]:
    bad = content()
    if kind == "foreign":
        del bad[SPEC_KEY]
    elif kind == "format":
        bad[SPEC_KEY]["format"] = 99
    elif kind == "incomplete":
        del bad[SPEC_KEY]["classes"]
    elif kind == "weights":
        bad["state_dict"].popitem()
    elif kind == "target":
        bad[SPEC_KEY]["name"] = "os.system"
    return bad


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("foreign", "not written by this project"),
        ("format", "another version"),
        ("incomplete", "incomplete"),
        ("weights", "not those of net"),
        ("target", "no such network"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, kind: str, message: str) -> None:
    torch.save(broken(kind), tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=message):
        load_network(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 3),
        ("name", "local-dir:/tmp"),
        ("name", "somebody/net"),
        ("classes", ["happy", "happy"]),
        ("classes", ["happy"]),
        ("classes", ["happy", " "]),
        ("classes", ["happy", "\x1b]0;owned\x07"]),
        ("classes", ["happy", '=HYPERLINK("http://evil.example")']),
        ("classes", ["happy", "[/bold]"]),
        ("classes", ["happy", r"$\foo$"]),
        ("classes", "happy"),
        ("image_size", 10**9),
        ("image_size", True),
        ("image_size", 48.0),
        ("stem_stride", 0),
        ("kwargs", [4]),
        ("kwargs", {"widths": [4, 0]}),
        ("kwargs", {"widths": "48"}),
        ("kwargs", {"dropout": 5}),
        ("kwargs", {"dropout": float("nan")}),
        ("kwargs", {"width": 4}),
        ("mean", float("nan")),
        ("std", 0),
        ("standardise", "yes"),
        ("temperatures", {"none": float("inf")}),
        ("temperatures", {"none": -1.0}),
        ("temperatures", 1.0),
        ("thresholds", {"0.9": 2}),
        ("size", 8),
    ],
)
def test_a_description_that_cannot_be_true_is_refused_by_name(tmp_path: Path, field: str, value: object) -> None:
    written = content()
    written[SPEC_KEY][field] = value
    write_checkpoint(written, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt"):
        load_network(tmp_path / "a.ckpt")


def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    wide, unfolded = content(), content()
    wide[SPEC_KEY]["kwargs"] = {"widths": [4, 50_000]}
    unfolded["state_dict"]["network.backbone.head.weight"] = torch.zeros(1).expand(300_000, 300_000)
    for name, bad in (("wide", wide), ("unfolded", unfolded)):
        torch.save({**bad, SPEC_KEY: {**bad[SPEC_KEY], "digest": None}}, tmp_path / f"{name}.ckpt")
        with pytest.raises(UserError, match=rf"{name}\.ckpt (does not fit|is refused)"):
            load_network(tmp_path / f"{name}.ckpt")


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg_overlay", "cache_dir", "act_layer", "zzz"])
def test_a_checkpoint_cannot_name_a_file_that_timm_would_unpickle(tmp_path: Path, argument: str) -> None:
    torch.save({"state_dict": Payload(tmp_path / "ran")}, tmp_path / "other.ckpt")
    network = EmotionNetwork(NetworkSpec("resnet10t", ("happy", "sad")))
    spec = {**network.spec.to_dict(), "kwargs": {argument: str(tmp_path / "other.ckpt")}}
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    write_checkpoint({SPEC_KEY: spec, "state_dict": state}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=rf"a\.ckpt.*model\.kwargs\.{argument}"):
        load_network(tmp_path / "a.ckpt")
    assert not (tmp_path / "ran").exists()


def test_format_1_still_loads_with_its_one_temperature(tmp_path: Path) -> None:
    written = content()
    old = {"format": 1, "name": "net", "classes": ["happy", "sad"], "kwargs": {"widths": [4, 8]}, "temperature": 1.5}
    torch.save({**written, SPEC_KEY: old}, tmp_path / "old.ckpt")
    network = load_network(tmp_path / "old.ckpt")
    assert network.spec == SPEC
    assert network.spec.temperature_of("flip") == 1.5


def test_flipped_bytes_of_weights_are_noticed(tmp_path: Path) -> None:
    write_checkpoint(content(), tmp_path / "a.ckpt")
    damaged = torch.load(tmp_path / "a.ckpt", weights_only=True)
    damaged["state_dict"]["network.backbone.head.weight"][0, 0] += 1
    torch.save(damaged, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt is damaged"):
        load_network(tmp_path / "a.ckpt")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    written = content()
    written["state_dict"]["network.backbone.head.weight"][0, 0] = torch.nan
    write_checkpoint(written, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt.*not finite"):
        load_network(tmp_path / "a.ckpt")


@pytest.mark.parametrize("kind", ["sparse", "meta", "quantized", "text", "int key"])
def test_what_is_no_mapping_of_names_to_plain_tensors_is_refused(tmp_path: Path, kind: str) -> None:
    bad = content()
    state = bad["state_dict"]
    name = next(name for name, tensor in state.items() if tensor.is_floating_point() and tensor.ndim == 4)
    if kind == "int key":
        state[3] = state[name]
    else:
        odd = {"sparse": state[name].to_sparse(), "meta": state[name].to("meta"), "text": "weights"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are deprecated
            odd["quantized"] = torch.quantize_per_tensor(state[name], 0.1, 0, torch.qint8)
        state[name] = odd[kind]
    for digest in (None, "0" * 64):
        bad[SPEC_KEY]["digest"] = digest
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(bad, tmp_path / "a.ckpt")
            for read in (load_network, lambda path: write_slim(path, tmp_path / "small.ckpt")):
                with pytest.raises(UserError, match=r"a\.ckpt is (refused|damaged)"):
                    read(tmp_path / "a.ckpt")
    assert not (tmp_path / "small.ckpt").exists()
    network = EmotionNetwork(NetworkSpec.from_dict({k: v for k, v in content()[SPEC_KEY].items() if k != "digest"}))
    foreign = ForeignSpec(network.spec.name, network.spec.classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(state, tmp_path / "b.pth")
        with pytest.raises(UserError, match=r"b\.pth (is refused|does not fit)"):
            load_network(tmp_path / "b.pth", foreign=foreign)


def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    great = content()
    next(tensor for tensor in great["state_dict"].values() if tensor.ndim == 4)[0] = 70_000
    write_checkpoint(great, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="above 65504"):
        write_slim(tmp_path / "a.ckpt", tmp_path / "small.ckpt")
    assert not (tmp_path / "small.ckpt").exists()


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(UserError, match=r"text\.ckpt"):
        read_checkpoint(tmp_path / "text.ckpt")
    write_checkpoint(content(), tmp_path / "cut.ckpt")
    whole = (tmp_path / "cut.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut off"):
        read_checkpoint(tmp_path / "cut.ckpt")


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.ckpt"
    write_checkpoint(content(), file)
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(content(), file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_slim_copy_says_what_made_it_without_the_directories_of_who_did(tmp_path: Path) -> None:
    paths = "'data.path=/home/jo e/a, b/fer2013.csv' 'teacher=[runs/a.ckpt,/home/jo e/b.ckpt]'"
    command = f"train.py experiment=best_7 {paths} seed=1 hydra.run.dir=/home/jo/run"
    written = content()
    written[SPEC_KEY]["provenance"] = {"command": command, "seed": 1}
    write_checkpoint(written, tmp_path / "whole.ckpt")
    write_slim(tmp_path / "whole.ckpt", tmp_path / "slim.ckpt")
    kept = read_checkpoint(tmp_path / "slim.ckpt")[SPEC_KEY]["provenance"]
    paths = "data.path=fer2013.csv 'teacher=[runs/a.ckpt,b.ckpt]'"
    assert kept == {"command": f"train.py experiment=best_7 {paths} seed=1", "seed": 1}


def test_a_slim_copy_predicts_the_same_and_holds_nothing_else(tmp_path: Path) -> None:
    written = content()
    written["optimizer_states"] = [torch.rand(1000)]
    written["state_dict"]["other.weight"] = torch.rand(1000)
    write_checkpoint(written, tmp_path / "whole.ckpt")
    write_slim(tmp_path / "whole.ckpt", tmp_path / "slim.ckpt")
    assert read_checkpoint(tmp_path / "slim.ckpt").keys() == {SPEC_KEY, "state_dict"}
    faces = torch.randint(0, 256, (20, 1, 48, 48), dtype=torch.uint8)
    whole, slim = (load_network(tmp_path / name).probabilities(faces) for name in ("whole.ckpt", "slim.ckpt"))
    assert torch.allclose(whole, slim, atol=2e-3)
