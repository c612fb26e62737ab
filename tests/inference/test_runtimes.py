"""Exported files as `Predictor` loads them: without torch, and in words when something is wrong with them."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fer.checkpoint import PREFIX, SPEC_KEY, write_checkpoint
from fer.errors import UserError
from fer.inference.predictor import Predictor
from fer.inference.runtimes import choose_runtime
from fer.models.network import EmotionNetwork, NetworkSpec

for tool in ("onnx", "onnxscript", "onnxruntime"):  # not imported here: one would report that
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool} is missing: pip install 'fer-lightning[onnx]'", allow_module_level=True)
import onnx  # noqa: E402

from fer.export import check  # noqa: E402
from fer.export.run import export  # noqa: E402
from fer.settings.export import ExportSettings  # noqa: E402

ROOT = Path(__file__).parents[2]
CLASSES = ("angry", "happy", "sad", "neutral")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint and what is exported of it, by suffix."""
    torch.manual_seed(0)
    network = EmotionNetwork(NetworkSpec("net", CLASSES, kwargs={"widths": [8, 16]}, temperatures={"none": 0.1})).eval()
    path = tmp_path_factory.mktemp("files") / "best.ckpt"
    state = {PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    write_checkpoint({SPEC_KEY: network.spec.to_dict(), "state_dict": state}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "_SECONDS", 0.01)
        return {".ckpt": path, ".onnx": export(ExportSettings(ckpt=str(path)))}


@pytest.fixture
def changed(files: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """The .onnx file with other metadata; None removes an entry."""

    def change(**entries: str | None) -> Path:
        model = onnx.load(files[".onnx"])
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        metadata |= {f"fer.{key}": value for key, value in entries.items()}
        onnx.helper.set_model_props(model, {key: value for key, value in metadata.items() if value is not None})
        onnx.save(model, tmp_path / "changed.onnx")
        return tmp_path / "changed.onnx"

    return change


def faces(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 48, 48), np.uint8)


@pytest.mark.parametrize(("suffix", "runtime"), [(".onnx", "auto"), (".onnx", "onnxruntime"), (".ckpt", "torch")])
def test_the_same_predictor_from_every_file(files, suffix, runtime, monkeypatch):
    monkeypatch.setattr("fer.inference.predictor._BATCH", 4)
    expected = Predictor.load(files[".ckpt"], threads=1)
    predictor = Predictor.load(str(files[suffix]), threads=1, runtime=runtime)
    assert predictor.classes == CLASSES
    assert predictor.temperature == 0.1
    batch = faces(10)
    found = predictor.probabilities(batch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.probabilities(batch), atol=1e-5)
    np.testing.assert_allclose(predictor.probabilities(batch[::-2, ::-1]), found_of(expected, batch), atol=1e-5)
    assert predictor.probabilities(batch[:0]).shape == (0, 4)
    assert predictor(batch[0])[0].label == expected(batch[0])[0].label
    with pytest.raises(UserError, match=r"\(N, 48, 48\)"):
        predictor(np.zeros((3, 50, 50), np.uint8))


def test_faces_of_another_size(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "_SECONDS", 0.01)
    torch.manual_seed(0)
    network = EmotionNetwork(NetworkSpec("net", CLASSES, 32, kwargs={"widths": [8, 16]}, size=64)).eval()
    state = {PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    write_checkpoint({SPEC_KEY: network.spec.to_dict(), "state_dict": state}, tmp_path / "best.ckpt")
    path = export(ExportSettings(ckpt=str(tmp_path / "best.ckpt")))
    exported = Predictor.load(path, threads=1, detector="none")
    assert exported.size == 64
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    expected = network.probabilities(torch.from_numpy(crops)[:, None]).numpy()
    np.testing.assert_allclose(exported.probabilities(crops), expected, atol=1e-5)
    picture = np.repeat(crops[0, ..., None], 3, axis=2)
    assert list(exported(picture)[0].probabilities.values()) == pytest.approx(expected[0], abs=1e-5)
    with pytest.raises(UserError, match=r"\(N, 64, 64\)"):
        exported(faces(2))


def found_of(predictor: Predictor, batch: np.ndarray) -> np.ndarray:
    return predictor.probabilities(batch[::-2, ::-1].copy())


def test_two_predictors_at_once_keep_their_answers(files):
    first, second = Predictor.load(files[".onnx"], threads=1), Predictor.load(files[".onnx"], threads=1)
    batch = faces(2)
    before = first.probabilities(batch[:1])
    kept = before.copy()
    second.probabilities(batch[1:])
    first.probabilities(batch[1:])
    np.testing.assert_array_equal(before, kept)


def test_threads_share_one_session(files):
    batches = [faces(count) for count in range(1, 9)]
    expected = Predictor.load(files[".onnx"], threads=2, detector="none")
    rows = [expected.probabilities(batch) for batch in batches]
    shared = Predictor.load(files[".onnx"], threads=2, detector="none")

    def work(first: int) -> None:
        for index in [*range(first, 8), *range(first)] * 4:
            np.testing.assert_allclose(shared.probabilities(batches[index]), rows[index], atol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_an_exported_network_runs_without_torch_and_tells_nobody(files, tmp_path):
    code = f"""
import sys
import numpy as np
from fer.inference.predictor import Predictor
predictor = Predictor.load({str(files[".onnx"])!r})
print(predictor(np.zeros((48, 48), np.uint8))[0].label)
unwanted = {{"torch", "onnx", "lightning", "hydra", "matplotlib"}}
assert not unwanted & set(sys.modules), unwanted & set(sys.modules)
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in CLASSES
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []  # where the runtime keeps what it reports


def test_infer_takes_exported_files(command, files, tmp_path):
    cv2.imwrite(str(tmp_path / "face.png"), faces(1)[0])
    (expected,) = Predictor.load(files[".ckpt"], threads=1)(faces(1))
    words = ("mode=image", "source=face.png", "detector=none", "window=false", f"ckpt={files['.onnx']}")
    result = command(*words, script="infer.py")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"face.png: {expected.label} {expected.confidence:.0%}\n"


@pytest.mark.parametrize(
    ("suffix", "runtime", "message"),
    [
        (".onnx", "torch", "runtime=torch cannot run best.onnx; use runtime=onnxruntime"),
        (".ckpt", "onnxruntime", "runtime=onnxruntime cannot run best.ckpt; export it first: fer-export"),
        (".ckpt", "tensorrt", "runtime=tensorrt: there is auto, torch, onnxruntime"),
    ],
)
def test_a_runtime_that_cannot_run_the_file(files, suffix, runtime, message):
    with pytest.raises(UserError, match=message):
        Predictor.load(files[suffix], runtime=runtime)


def test_infer_says_so_before_anything_runs(command, files, tmp_path):
    arguments = ("mode=image", "source=nothing.png", f"ckpt={files['.onnx']}")
    result = command(*arguments, "runtime=torch", script="infer.py")
    assert result.returncode == 2
    assert "runtime=torch cannot run best.onnx" in result.stderr
    assert "nothing.png" in result.stderr
    result = command(*arguments, "runtime=onxruntime", script="infer.py")
    assert result.returncode == 2
    assert result.stderr.strip() == (
        "error: runtime=onxruntime: there is auto, torch, onnxruntime; did you mean onnxruntime?"
    )


def test_what_is_installed_is_used(monkeypatch):
    installed: set[str] = set()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in installed else None)
    for wanted in ("auto", "onnxruntime"):
        with pytest.raises(UserError, match=r"a\.onnx needs ONNX Runtime, .*: pip install 'fer-lightning\[onnx\]'"):
            choose_runtime("a.onnx", wanted)
    installed.add("onnxruntime")
    assert choose_runtime("a.onnx") == choose_runtime("a.ONNX") == "onnxruntime"
    assert choose_runtime("a.ckpt") == "torch"


# --- files that are not what they should be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"classes": None}, "does not name its classes"),
        ({"classes": ""}, "does not name its classes"),
        ({"classes": "happy,\x1b]0;owned\x07"}, "does not name its classes"),
        ({"classes": "angry,happy"}, "does not answer for its classes"),
        ({"format": "2"}, "another version of this project"),
        ({"format": None}, "another version of this project"),
        ({"temperature": None}, "describes itself incompletely"),
        ({"temperature": "warm"}, "describes itself incompletely"),
    ],
)
def test_metadata_that_are_missing_or_wrong(changed, entries, message):
    with pytest.raises(UserError, match=rf"changed\.onnx {message}|changed\.onnx .*{message}"):
        Predictor.load(changed(**entries))


def test_an_onnx_file_of_something_else(tmp_path):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "other",
        [value("x", onnx.TensorProto.FLOAT, [None, 3])],
        [value("y", onnx.TensorProto.FLOAT, [None, 3])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"other\.onnx was not written by fer-export"):
        Predictor.load(path)
    # As if somebody had added our metadata to it.
    metadata = {"format": "1", "classes": "a,b,c", "temperature": "1", "precision": "fp32", "checkpoint_sha256": "0"}
    onnx.helper.set_model_props(model, {f"fer.{key}": text for key, text in metadata.items()})
    onnx.save(model, path)
    with pytest.raises(UserError, match="does not take gray faces of one size"):
        Predictor.load(path)


@pytest.mark.parametrize("kind", ["no input", "a sequence", "a scalar", "no shape"])
def test_an_onnx_file_without_tensors_where_they_belong(tmp_path, kind):
    value, helper = onnx.helper.make_tensor_value_info, onnx.helper
    inputs, outputs = [value("faces", onnx.TensorProto.UINT8, [None, 1, 48, 48])], []
    constant = helper.make_tensor("one", onnx.TensorProto.FLOAT, [], [1.0])
    nodes = [helper.make_node("Constant", [], ["probabilities"], value=constant)]
    if kind == "no input":
        inputs = []
    if kind == "a sequence":
        inputs = [helper.make_tensor_sequence_value_info("faces", onnx.TensorProto.FLOAT, None)]
    if kind == "no shape":
        inputs = [value("faces", onnx.TensorProto.UINT8, None)]
    outputs = [value("probabilities", onnx.TensorProto.FLOAT, [])]
    model = helper.make_model(
        helper.make_graph(nodes, "odd", inputs, outputs), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    path = tmp_path / "odd.onnx"
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"odd\.onnx was not written by fer-export"):
        Predictor.load(path)
    metadata = {"format": "1", "classes": "a,b,c", "temperature": "1", "precision": "fp32", "checkpoint_sha256": "0"}
    onnx.helper.set_model_props(model, {f"fer.{key}": text for key, text in metadata.items()})
    onnx.save(model, path)
    with pytest.raises(UserError, match="does not take gray faces of one size"):
        Predictor.load(path)


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99], ids=["empty", "half", "all but the end"])
def test_a_truncated_file(files, tmp_path, part):
    content = files[".onnx"].read_bytes()
    path = tmp_path / "part.onnx"
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match=r"part\.onnx is truncated, damaged or no ONNX file") as raised:
        Predictor.load(path)
    assert "\n" not in str(raised.value)


def test_a_file_that_does_not_exist_or_is_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"none\.onnx does not exist"):
        Predictor.load(tmp_path / "none.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(UserError, match=r"folder\.onnx does not exist"):
        Predictor.load(tmp_path / "folder.onnx")
