import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fer.checkpoint import load_weights
from fer.errors import UserError
from fer.models import OWN, create, suggest
from fer.models.network import EmotionNetwork, NetworkSpec

CLASSES = ("angry", "happy", "sad")


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("image_size", [48, 64])
def test_our_networks_give_logits_and_gradients_everywhere(name: str, image_size: int) -> None:
    network = create(name, 3, image_size)
    logits = network(torch.rand(4, 1, image_size, image_size))
    assert logits.shape == (4, 3)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"stem_stride": 1}),
        ("vit_tiny_patch16_224", {"kwargs": {"patch_size": 6}}),
        ("convnext_atto", {"stem_stride": 2}),
        ("mobilenetv3_small_050", {"image_size": 96}),
    ],
)
def test_timm_networks_take_gray_faces(name: str, options: dict[str, object]) -> None:
    network = create(name, 5, **options).eval()  # type: ignore[arg-type]
    size = int(options.get("image_size", 48))  # type: ignore[call-overload]
    assert network(torch.rand(2, 1, size, size)).shape == (2, 5)


def test_the_stem_stride_keeps_more_of_the_face() -> None:
    def last_side(stem_stride: int | None) -> int:
        network = create("resnet18", 3, stem_stride=stem_stride).eval()
        return int(network.forward_features(torch.rand(1, 1, 48, 48)).shape[-1])  # type: ignore[operator]

    assert (last_side(None), last_side(1)) == (2, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "did you mean resnet"),
        ("snet", {}, "senet"),
        ("senet", {"pretrained": True}, "no ImageNet weights for senet"),
        ("senet", {"stem_stride": 1}, "built for 48x48"),
        ("senet", {"kwargs": {"width": 3}}, "model.kwargs.width: senet takes widths"),
        ("resnet18", {"kwargs": {"wdth": 3}}, "these arguments"),
        ("resnet18", {"kwargs": {"checkpoint_path": True}}, "model.weights=FILE"),
        ("resnet18", {"kwargs": {"act_layer": "/tmp/a"}}, "give a number"),
        ("resnet18", {"kwargs": {"name": "gelu"}}, "give a number"),
        ("hf-hub:timm/resnet18.a1_in1k", {}, "no such network"),
        ("senet", {"kwargs": {"widths": [0, 0]}}, "at least 1"),
        ("senet", {"kwargs": {"dropout": 5}}, "these arguments"),
        ("vit_tiny_patch16_224", {"stem_stride": 1}, "stem_stride"),
        ("inception_v4", {}, "model.image_size=224"),
    ],
)
def test_a_mistake_names_the_way_out(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create(name, 3, **options)  # type: ignore[arg-type]


def test_suggestions_know_timm() -> None:
    assert "convnext_atto" in suggest("convnext_ato")


def test_the_network_resizes_normalises_and_takes_bytes() -> None:
    spec = NetworkSpec("net", CLASSES, image_size=32, mean=0.5, std=0.25, kwargs={"widths": [4, 8]})
    network = EmotionNetwork(spec).eval()
    faces = torch.randint(0, 256, (3, 1, 48, 48), dtype=torch.uint8)
    seen = []
    network.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    logits = network(faces)
    assert logits.shape == (3, 3)
    assert seen[0].shape == (3, 1, 32, 32)
    assert float(seen[0].mean()) == pytest.approx((float(faces.float().mean()) / 255 - 0.5) / 0.25, abs=0.05)
    assert torch.equal(network(faces.float()), logits)
    probabilities = network.probabilities(faces)
    assert torch.allclose(probabilities.sum(1), torch.ones(3))


def test_a_standardised_face_is_the_same_in_any_light() -> None:
    network = EmotionNetwork(NetworkSpec("net", CLASSES, standardise=True, kwargs={"widths": [4, 8]})).eval()
    seen = []
    network.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    faces = torch.randint(60, 120, (2, 1, 48, 48)).float()
    bright, dark = network(2 * faces), network(faces / 2 + 10)
    assert torch.allclose(bright, dark, atol=1e-4)
    assert torch.allclose(seen[0].mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(seen[0].std(dim=(1, 2, 3), correction=0), torch.ones(2), atol=1e-5)
    assert network(torch.full((1, 1, 48, 48), 200, dtype=torch.uint8)).isfinite().all()


def test_a_short_stem_halves_the_resolution_before_the_blocks() -> None:
    for stem_width, pixels in ((None, 48), (4, 24)):
        network = create("senet", 3, kwargs={"widths": [16, 32], "blocks": [1, 1], "stem_width": stem_width})
        stem = network.get_submodule("stem")
        assert stem(torch.zeros(1, 1, 48, 48)).shape == (1, 16, pixels, pixels)


def test_weights_of_a_local_file(tmp_path: Path) -> None:
    source = create("net", 7, kwargs={"widths": [4, 8]})
    torch.save(source.state_dict(), tmp_path / "a.pth")
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    for file in ("a.pth", "a.safetensors"):
        target = create("net", 3, kwargs={"widths": [4, 8]})
        assert load_weights(target, tmp_path / file) == ["head.weight", "head.bias"]
        assert torch.equal(target.state_dict()["stages.0.weight"], source.state_dict()["stages.0.weight"])


@pytest.mark.parametrize("classes", [("sad", "angry"), ("sad", "angry", "happy")])
@pytest.mark.parametrize("width", [4, 3])  # with 3 the first convolution is as wide as the answer
def test_fewer_classes_or_another_order_begin_as_the_same_answers(
    tmp_path: Path, classes: tuple[str, ...], width: int
) -> None:
    spec = NetworkSpec("net", ("angry", "happy", "sad"), kwargs={"widths": [width, 8]})
    source = EmotionNetwork(spec).eval()
    state = {f"network.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"fer": spec.to_dict(), "state_dict": state}, tmp_path / "three.ckpt")
    target = EmotionNetwork(NetworkSpec("net", classes, kwargs={"widths": [width, 8]})).eval()
    assert load_weights(target.backbone, tmp_path / "three.ckpt", classes) == []
    faces = torch.randint(0, 256, (2, 1, 48, 48), dtype=torch.uint8)
    assert torch.equal(target(faces), source(faces)[:, [2, 0, 1][: len(classes)]])


def test_every_head_of_a_network_is_put_into_the_new_order(tmp_path: Path) -> None:
    kwargs = {"embed_dim": 12, "depth": 1, "num_heads": 2, "patch_size": 16}
    spec = NetworkSpec("deit_tiny_distilled_patch16_224", ("angry", "happy", "sad"), kwargs=kwargs)
    source = EmotionNetwork(spec).eval()
    state = {f"network.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"fer": spec.to_dict(), "state_dict": state}, tmp_path / "two_heads.ckpt")
    target = EmotionNetwork(replace(spec, classes=("sad", "angry", "happy"))).eval()
    assert load_weights(target.backbone, tmp_path / "two_heads.ckpt", target.spec.classes) == []
    faces = torch.randint(0, 256, (2, 1, 48, 48), dtype=torch.uint8)
    assert torch.equal(target(faces), source(faces)[:, [2, 0, 1]])


def test_rows_of_the_last_layer_go_by_the_names_of_the_classes(tmp_path: Path) -> None:
    """As many classes, one of them another: its row begins anew, and is told."""
    spec = NetworkSpec("net", ("angry", "fear", "happy"), kwargs={"widths": [4, 8]})
    source = EmotionNetwork(spec)
    state = {f"network.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"fer": spec.to_dict(), "state_dict": state}, tmp_path / "three.ckpt")
    classes = ("angry", "happy", "sad")
    target = EmotionNetwork(NetworkSpec("net", classes, kwargs={"widths": [4, 8]}))
    before = target.state_dict()["backbone.head.weight"].clone()
    fresh = load_weights(target.backbone, tmp_path / "three.ckpt", classes)
    assert fresh == ["head.weight of sad", "head.bias of sad"]
    after = target.state_dict()["backbone.head.weight"]
    assert torch.equal(after[:2], source.state_dict()["backbone.head.weight"][[0, 2]])
    assert torch.equal(after[2], before[2])


def test_weights_for_three_channels_are_summed(tmp_path: Path) -> None:
    network = create("net", 3, kwargs={"widths": [4, 8]})
    state = network.state_dict()
    state["stages.0.weight"] = torch.rand(4, 3, 3, 3)
    torch.save(state, tmp_path / "rgb.pth")
    load_weights(network, tmp_path / "rgb.pth")
    assert torch.allclose(network.state_dict()["stages.0.weight"], state["stages.0.weight"].sum(1, keepdim=True))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    network = create("net", 3)
    torch.save(create("cnn", 3).state_dict(), tmp_path / "cnn.pth")
    with pytest.raises(UserError, match="another network"):
        load_weights(network, tmp_path / "cnn.pth")
    torch.save({"state_dict": Path("a")}, tmp_path / "pickle.pth")  # more than plain data
    with pytest.raises(UserError, match="more than plain data"):
        load_weights(network, tmp_path / "pickle.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(UserError, match="damaged"):
        load_weights(network, tmp_path / "text.pth")
    with pytest.raises(UserError, match="does not exist"):
        load_weights(network, tmp_path / "none.pth")
    torch.save({**network.state_dict(), "head.bias": torch.full((3,), torch.nan)}, tmp_path / "nan.pth")
    with pytest.raises(UserError, match="not finite"):
        load_weights(network, tmp_path / "nan.pth")


@pytest.fixture
def refusing_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A hub on the loopback address that answers 403 to everything."""
    asked: list[str] = []

    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        import huggingface_hub.constants as constants

        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield asked
        server.shutdown()


def test_a_hub_that_refuses_becomes_one_sentence(refusing_hub: list[str]) -> None:
    with pytest.raises(UserError, match=r"could not be fetched.*model\.pretrained=false") as error:
        create("resnet18", 3, pretrained=True)
    assert refusing_hub, "the hub was never asked"
    assert "\n" not in str(error.value)
