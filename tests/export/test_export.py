"""`fer-export`: what it writes, what it says, and what it refuses."""

import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fer.checkpoint import ForeignSpec, load_network, read_checkpoint, write_checkpoint
from fer.commands.export import main
from fer.data import datamodule
from fer.data.synthetic import make_faces
from fer.errors import UserError
from fer.export import check, faces, recalibrate, run
from fer.export.check import Comparison
from fer.export.run import export
from fer.inference.predictor import Predictor, foreign_spec
from fer.inference.runtimes import import_onnxruntime
from fer.models import create
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.settings.export import ExportSettings
from fer.settings.infer import InferSettings
from fer.settings.words import read

for tool in ("onnx", "onnxscript", "onnxruntime"):  # not imported here: one would report that
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is missing: pip install 'fer-lightning[onnx]'", allow_module_level=True)
import onnx  # noqa: E402

from fer.export import convert  # noqa: E402

ROOT = Path(__file__).parents[2]
CLASSES = ("angry", "happy", "sad", "neutral")
NOISE = np.random.default_rng(0).integers(0, 256, (5, 1, 48, 48), np.uint8)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_SECONDS", 0.01)


@pytest.fixture
def traced(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the tracing, seconds of each export, for tests of what comes after it."""
    monkeypatch.setattr(convert, "to_onnx", lambda network: onnx.load(onnx_file))


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    """The checkpoint in a directory of the test's own."""
    path = tmp_path / "best.ckpt"
    path.write_bytes(checkpoint.read_bytes())
    return path


def drawn(count: int) -> np.ndarray:
    return make_faces(1, count, 1, seed=3).images[1 : count + 1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- the graph --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec("net", CLASSES, image_size=32, kwargs={"widths": [8, 16]}),
        NetworkSpec(
            "senet", CLASSES, image_size=64, temperatures={"none": 0.4}, kwargs={"widths": [16, 32], "blocks": [1, 1]}
        ),
        NetworkSpec("cnn", CLASSES),
        NetworkSpec("resnet18", CLASSES, stem_stride=1),
        NetworkSpec("vit_tiny_patch16_224", CLASSES, kwargs={"patch_size": 6, "depth": 1}),
    ],
    ids=lambda spec: f"{spec.name}_{spec.image_size}",
)
def test_onnx_runtime_answers_as_torch_for_any_number_of_faces(spec):
    torch.manual_seed(0)
    network = EmotionNetwork(spec).eval()
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(head.weight, std=0.3)  # far from uniform, so that differences show
    expected = network.probabilities(torch.from_numpy(NOISE)).numpy()
    assert np.ptp(expected, axis=1).min() > 0.01

    model = convert.to_onnx(network)
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for count in (5, 1, 3):
        (found,) = session.run(None, {"faces": NOISE[:count]})
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)
    (face,) = model.graph.input
    assert [dim.dim_param or dim.dim_value for dim in face.type.tensor_type.shape.dim] == ["batch", 1, 48, 48]


def test_the_file_tells_nothing_of_the_computer_that_wrote_it(onnx_file):
    content = onnx_file.read_bytes()
    assert str(ROOT).encode() not in content
    assert b"site-packages" not in content
    assert b"stack_trace" not in content


class Undecided(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)).repeat(1, 4) if x.sum() > 0 else x.amax((2, 3)).repeat(1, 4)


def test_a_network_that_cannot_be_traced_is_named_with_the_cause(checkpoint):
    network = load_network(checkpoint)
    network.backbone = Undecided()
    with pytest.raises(UserError, match=r"net cannot be exported: .*data-dependent") as raised:
        convert.to_onnx(network)
    assert "\n" not in str(raised.value)


def test_a_network_of_more_than_2_gb_is_refused(checkpoint, monkeypatch):
    monkeypatch.setattr(convert, "_LIMIT", 1000)
    with pytest.raises(UserError, match="2 GB at most"):
        convert.to_onnx(load_network(checkpoint))


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_float32_file_says_what_the_checkpoint_says(checkpoint, onnx_file):
    assert onnx_file == checkpoint.with_suffix(".onnx")
    predictor, before = Predictor.load(onnx_file, threads=1), Predictor.load(checkpoint, threads=1)
    assert predictor.classes == before.classes == CLASSES
    assert predictor.temperature == before.temperature == 1.3
    images = drawn(300)
    np.testing.assert_allclose(predictor.probabilities(images), before.probabilities(images), atol=1e-5)


def test_the_metadata_are_all_that_a_program_in_another_language_needs(checkpoint, onnx_file):
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    expected = {
        "format": "1",
        "classes": "angry,happy,sad,neutral",
        "temperature": "1.3",
        "precision": "fp32",
        "network": "net",
        "checkpoint_sha256": digest,
    }
    model = onnx.load(onnx_file, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: entry.value for entry in model.metadata_props} == {f"fer.{k}": v for k, v in expected.items()}
    assert not any(tensor.external_data for tensor in model.graph.initializer)


@pytest.mark.usefixtures("traced")
def test_8_bits_keep_the_labels(copy, capsys):
    # Of 400 drawn faces, one is 0.25 points.
    path = export(ExportSettings(ckpt=str(copy), precision="int8", data="synthetic"))
    printed = capsys.readouterr().out
    for words in ("Calibrating with 512 training rows", "equal labels", "accuracy", "1 face", "8 faces", str(path)):
        assert words in printed
    images = drawn(200)
    before, after = (Predictor.load(file, threads=1).probabilities(images) for file in (copy, path))
    assert (before.argmax(1) == after.argmax(1)).mean() >= 0.95
    assert 0 < np.abs(before - after).max() < 0.3
    model = onnx.load(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = [node for node in model.graph.node if "Dequantize" in node.op_type and node.input[0] in tensors]
    kernels = [node for node in weights if len(tensors[node.input[0]].dims) == 4]
    assert len(kernels) == 6
    for node in kernels:
        weight, scale, _ = (tensors[name] for name in node.input)
        assert weight.data_type == onnx.TensorProto.INT8
        assert list(scale.dims) == [weight.dims[0]]  # a scale for each output channel


def test_a_checkpoint_of_another_project_is_exported_as_infer_takes_it(tmp_path):
    torch.manual_seed(0)
    theirs = tmp_path / "theirs.pth"
    state = create("test_resnet", 3, 48, channels=3).state_dict()
    torch.save({f"net.{key}": tensor for key, tensor in state.items()}, theirs)
    words = ["model.name=test_resnet", "model.channels=3", "model.mean=0.5", "classes=[sad,happy,angry]"]
    assert main([f"ckpt={theirs}", *words]) == 0
    foreign = ForeignSpec("test_resnet", ("sad", "happy", "angry"), channels=3, mean=(0.5,))
    network = load_network(theirs, foreign=foreign)
    exported = Predictor.load(tmp_path / "theirs.onnx", threads=1)
    assert exported.classes == foreign.classes
    assert np.abs(exported.probabilities(NOISE[:, 0]) - Predictor(network).probabilities(NOISE[:, 0])).max() < 1e-4


@pytest.mark.usefixtures("traced")
def test_classes_of_another_project_are_named_as_they_are_typed(tmp_path, monkeypatch):
    given: list[ForeignSpec] = []

    def load(path: Path, foreign: ForeignSpec) -> EmotionNetwork:
        given.append(foreign)
        return load_network(path, foreign=foreign)

    monkeypatch.setattr(run, "load_network", load)
    theirs = tmp_path / "theirs.pth"
    torch.save(create("test_resnet", 4, 48).state_dict(), theirs)
    words = [f"ckpt={theirs}", "model.name=test_resnet", "classes=[Bored,3_happy,Anger,SAD]"]
    assert main([*words, "force=true"]) == 0
    (foreign,) = given
    assert foreign == foreign_spec(read(InferSettings, words).model, read(InferSettings, words).classes)
    assert Predictor.load(tmp_path / "theirs.onnx", threads=1).classes == ("Bored", "3_happy", "Anger", "SAD")
    labelled = faces.load_faces("synthetic", ("3_happy", "Anger", "SAD"))
    assert labelled.targets is not None
    assert set(labelled.targets.tolist()) == {0, 1, 2}


def test_a_small_copy_that_disagrees_is_not_left(copy, monkeypatch, capsys):
    def spoil(source: Path, target: Path) -> None:
        content = read_checkpoint(source)
        content["fer"]["classes"] = content["fer"]["classes"][::-1]
        for name in [name for name in content["state_dict"] if name.endswith("bias")][-1:]:
            content["state_dict"][name][0] += 100
        write_checkpoint(content, target)

    monkeypatch.setattr(run, "write_slim", spoil)
    small = copy.with_name("small.ckpt")
    small.write_text("older")
    settings = ExportSettings(ckpt=str(copy), format="ckpt", output=str(small))
    with pytest.raises(UserError, match=r"small\.ckpt was not written: it gives .* of the faces the same label"):
        export(settings)
    assert small.read_text() == "older"
    assert names(copy.parent) == ["best.ckpt", "small.ckpt"]
    assert "largest difference of a probability" in capsys.readouterr().out
    assert export(settings.model_copy(update={"force": True})) == small


def test_a_small_copy_never_takes_the_place_of_its_checkpoint(copy):
    before = copy.read_bytes()
    link = copy.with_name("link.ckpt")
    link.symlink_to(copy)
    for output in (copy, link, copy.parent / ".." / copy.parent.name / copy.name):
        with pytest.raises(UserError, match="is the checkpoint itself"):
            export(ExportSettings(ckpt=str(copy), format="ckpt", output=str(output)))
    assert copy.read_bytes() == before


def test_a_small_copy_only_predicts(copy):
    small = export(ExportSettings(ckpt=str(copy), format="ckpt", output=str(copy.with_name("small.ckpt"))))
    assert small.stat().st_size < 0.6 * copy.stat().st_size
    images = drawn(50)
    before, after = (Predictor.load(file, threads=1).probabilities(images) for file in (copy, small))
    assert np.abs(before - after).max() < 5e-3


def test_a_small_copy_of_some_classes_gives_the_same_answers_without_the_others(copy):
    small = copy.with_name("sad_or_angry.ckpt")
    settings = ExportSettings(
        ckpt=str(copy), format="ckpt", output=str(small), classes=["sad", "angry"], data="synthetic"
    )
    assert export(settings) == small
    images = torch.from_numpy(drawn(50)).unsqueeze(1)
    before, after = load_network(copy), load_network(small)
    assert after.spec.classes == ("sad", "angry")
    assert set(after.spec.temperatures) == {"none", "flip"}
    assert after.spec.temperatures != before.spec.temperatures
    with torch.inference_mode():
        kept = before(images)[:, [before.spec.classes.index(name) for name in after.spec.classes]]
        assert torch.allclose(after(images), kept, atol=2e-2)  # half precision
    assert names(copy.parent) == ["best.ckpt", "sad_or_angry.ckpt"]


def test_a_small_copy_is_calibrated_where_data_are_given(copy):
    small = export(
        ExportSettings(ckpt=str(copy), format="ckpt", output=str(copy.with_name("small.ckpt")), data="synthetic")
    )
    before, after = load_network(copy), load_network(small)
    assert after.spec.classes == before.spec.classes
    assert set(after.spec.temperatures) == {"none", "flip"}
    assert after.spec.temperatures != before.spec.temperatures
    for name, tensor in before.state_dict().items():
        assert torch.allclose(after.state_dict()[name], tensor, atol=1e-2)


def test_data_that_lack_a_class_calibrate_what_they_have(copy, monkeypatch):
    rows = make_faces(0, 140, 0, seed=0)
    rows = rows.select(rows.labels != 0)  # of which no face is angry, the first class
    monkeypatch.setattr(datamodule, "read", lambda path, **how: rows)
    words = [f"ckpt={copy}", "format=ckpt", f"output={copy.with_name('small.ckpt')}", f"data={copy}"]
    with pytest.raises(UserError, match=r"no faces of angry; .* classes=\[happy,sad,neutral\]"):
        main(words)
    seen: dict[str, object] = {}

    def fit(network, images, targets, trainer):
        seen.update(classes=network.spec.classes, targets=targets.tolist())
        return {"temperatures": {"none": 1.5, "flip": 1.5}}

    monkeypatch.setattr(recalibrate, "fit", fit)
    recalibrate.recalibrate(copy, ("happy", "sad", "neutral"), str(copy), copy.with_name("other.ckpt"))
    assert seen["classes"] == ("happy", "sad", "neutral")
    expected = {3: 0, 4: 1, 6: 2}
    assert seen["targets"] == [expected[code] for code in rows.labels.tolist() if code in expected]


def test_classes_that_the_network_does_not_know_are_refused(copy):
    classes = ["angry", "contempt"]
    settings = ExportSettings(
        ckpt=str(copy), format="ckpt", output=str(copy.with_name("small.ckpt")), classes=classes, data="synthetic"
    )
    with pytest.raises(UserError, match="does not know contempt"):
        export(settings)
    assert names(copy.parent) == ["best.ckpt"]


def test_an_output_of_ones_own_and_the_command_line(checkpoint, tmp_path, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    done = subprocess.run(
        [sys.executable, "-m", "fer.commands.export", f"ckpt={checkpoint}", "output=new/my, file=1.onnx"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(home)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "largest difference of a probability" in done.stdout
    assert names(tmp_path / "new") == ["my, file=1.onnx"]
    assert names(tmp_path) == ["new"]


# --- refusals ---------------------------------------------------------------------------------------------------------


def spoilt(make: Callable[..., "onnx.ModelProto"]) -> Callable[..., "onnx.ModelProto"]:
    """A conversion that goes wrong: the classes change places."""

    def convert_wrongly(*arguments: object) -> "onnx.ModelProto":
        model = make(*arguments)
        (bias,) = [tensor for tensor in model.graph.initializer if list(tensor.dims) == [4]][:1]
        values = onnx.numpy_helper.to_array(bias) + np.array([0, 0, 9, 0], np.float32)
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return model

    return convert_wrongly


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("precision", "reason"),
    [("fp32", "its probabilities differ by up to"), ("int8", "of the faces the same label")],
)
def test_a_file_that_disagrees_is_not_left(copy, monkeypatch, capsys, precision, reason):
    output = copy.with_name("old.onnx")
    output.write_text("what was there")
    monkeypatch.setattr(convert, "to_onnx", spoilt(convert.to_onnx))
    settings = ExportSettings(ckpt=str(copy), precision=precision, output=str(output), data="synthetic")
    with pytest.raises(UserError, match=f"old.onnx was not written: .*{reason}.*force=true"):
        export(settings)
    assert "largest difference" in capsys.readouterr().out
    assert output.read_text() == "what was there"
    assert names(copy.parent) == ["best.ckpt", output.name]
    export(settings.model_copy(update={"force": True}))
    assert reason in capsys.readouterr().out
    assert Predictor.load(output).classes == CLASSES


@pytest.mark.parametrize(
    ("precision", "difference", "equal", "accuracy", "reasons"),
    [
        ("fp32", 9e-5, 1.0, (0.7, 0.7), []),
        ("fp32", 2e-4, 1.0, (0.7, 0.7), ["0.0002"]),
        ("fp32", float("nan"), 1.0, None, ["nan"]),
        ("int8", 0.2, 0.975, (0.7, 0.696), []),
        ("int8", 0.2, 0.975, (0.7, 0.72), []),
        ("int8", 0.2, 0.975, (0.6525, 0.6475), []),  # half a point
        ("int8", 0.2, 0.965, (0.7, 0.694), ["96.5%", "0.60 points"]),
        ("int8", float("nan"), 1.0, (0.7, 0.7), ["no numbers"]),
        ("int8", 0.01, 0.9, None, ["90.0%"]),
    ],
)
def test_what_is_refused(precision, difference, equal, accuracy, reasons):
    comparison = Comparison(difference, equal, accuracy, (1.0, 1.0), {})
    found = list(comparison.objections(precision))
    assert len(found) == len(reasons)
    assert all(reason in text for reason, text in zip(reasons, found, strict=True))


def test_what_is_exported_already_is_not_exported_again(onnx_file):
    with pytest.raises(UserError, match="is an exported file already"):
        export(ExportSettings(ckpt=str(onnx_file)))


@pytest.mark.usefixtures("traced")
def test_nothing_is_left_of_an_export_that_is_interrupted(copy, monkeypatch):
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "compare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(ExportSettings(ckpt=str(copy)))
    assert names(copy.parent) == ["best.ckpt"]


def test_a_place_that_cannot_be_written_is_named_before_the_work(copy, monkeypatch):
    monkeypatch.setattr(convert, "to_onnx", None)
    (copy.parent / "file").write_text("")
    with pytest.raises(UserError, match=r"file/fer\.onnx cannot be written \(.*\); choose another place with output="):
        export(ExportSettings(ckpt=str(copy), output=str(copy.parent / "file" / "fer.onnx")))


def test_calibration_faces_of_one_class_are_refused(copy, tmp_path):
    for index, image in enumerate(drawn(20)):
        path = tmp_path / "faces" / "train" / "happy" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    with pytest.raises(UserError, match=r"one class only \(happy\)"):
        export(ExportSettings(ckpt=str(copy), precision="int8", data=str(tmp_path / "faces")))
    assert names(tmp_path) == ["best.ckpt", "faces"]


def test_calibration_faces_are_training_rows_of_all_classes(monkeypatch):
    rows = make_faces(700, 70, 70, seed=0)
    monkeypatch.setattr(datamodule, "read", lambda path, **how: rows)
    monkeypatch.setattr(faces, "CALIBRATION", 40)
    found = faces.load_faces("somewhere", CLASSES)
    training = {image.tobytes(): int(label) for image, label in zip(rows.images[:700], rows.labels[:700], strict=True)}
    labels = [training[image.tobytes()] for image in found.calibration]
    assert sorted(labels) == [0] * 10 + [3] * 10 + [4] * 10 + [6] * 10
    assert found.targets is not None
    assert found.targets.tolist() == [
        {0: 0, 3: 1, 4: 2, 6: 3}[code] for code in rows.labels[700:770] if code in (0, 3, 4, 6)
    ]
    assert found.source == "40 validation rows"


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_tool_is_named_with_the_command(copy, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(UserError, match=rf"needs {missing}, .*pip install 'fer-lightning\[onnx\]'"):
        export(ExportSettings(ckpt=str(copy)))


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        ([], ["ckpt is missing"]),
        (["ckpt=a", "fromat=onnx"], ["fromat: there is no such setting; did you mean format?"]),
        (["ckpt=a", "zzz=1"], ["zzz: there is no such setting"]),
        (["ckpt=a", "format=onxn"], ["format=onxn: there is onnx, ckpt; did you mean onnx?"]),
        (["ckpt=a", "format=openvino"], ["format=openvino: there is onnx, ckpt"]),
        (["ckpt=a", "precision=fp16"], ["precision=fp16: there is fp32, int8; did you mean fp32?"]),
        (["ckpt=a", "precision=int8"], ["precision=int8 needs data=PATH"]),
        (["ckpt=a", "precision=int8", "format=ckpt", "output=b.ckpt"], ["precision=int8 is for format=onnx"]),
        (["ckpt=a", "model.name=cnn", "classes=7"], ["classes=7: of a checkpoint of another project it is a list"]),
        (["ckpt=a", "classes=[happy,zzz]"], ["classes=[happy,zzz]: 'zzz' is no emotion"]),
        (["ckpt=a", "classes=4"], ["classes needs format=ckpt", "classes needs data=PATH"]),
        (["ckpt=a", "model.name=cnn", "format=ckpt", "output=b.ckpt"], ["model.name= is for format=onnx"]),
        (["ckpt=a", "classes=[happy]"], ["classes=[happy]: needs at least two emotions"]),
        (["ckpt=a", "force=maybe", "onnx"], ["'onnx' cannot be read", "force=maybe: it must be true or false"]),
        (["ckpt=a", "output=a.xml", "format=onnx"], ["output=a.xml: the file of format=onnx ends in .onnx"]),
        (["ckpt=a", "output=a"], ["output=a: the file of format=onnx ends in .onnx"]),
        (["ckpt="], ["ckpt=: it names no file"]),
    ],
)
def test_every_mistake_of_a_command_line_is_listed(words, messages):
    with pytest.raises(UserError) as raised:
        main(words)
    lines = str(raised.value).splitlines()
    assert len(lines) == len(messages)
    assert all(line.startswith(message) for line, message in zip(lines, messages, strict=True))


def test_help_and_mistakes_need_no_torch():
    code = """
import sys
from fer.commands.frame import run
sys.argv = ["fer-export", {!r}]
try:
    run("export")
finally:
    print("torch" in sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code.format("--help")], capture_output=True, text=True, cwd=ROOT)
    assert "precision=int8 data=data/fer2013.csv" in shown.stdout
    assert shown.stdout.endswith("False\n")
    wrong = subprocess.run([sys.executable, "-c", code.format("format=x")], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2
    assert wrong.stderr == "error: format=x: there is onnx, ckpt\n"
