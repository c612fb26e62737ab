from itertools import chain
from types import SimpleNamespace

import pytest
import torch

from fer.data.loader import FaceLoader, _entropy

IMAGES = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1).expand(50, 1, 48, 48)
TARGETS = torch.arange(50) % 7


def seen(loader: FaceLoader, epoch: int = 0) -> list[list[int]]:
    loader.set_epoch(epoch)
    return [faces[:, 0, 0, 0].tolist() for faces, _ in loader]


def test_evaluation_gives_every_row_in_order() -> None:
    batches = seen(FaceLoader(IMAGES, TARGETS, 16))
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]
    assert list(chain(*batches)) == list(range(50))


def test_faces_and_targets_belong_together() -> None:
    for faces, targets in FaceLoader(IMAGES, TARGETS, 16, shuffle=True):
        assert faces.dtype == torch.uint8
        assert faces.shape == (16, 1, 48, 48)
        assert (faces[:, 0, 0, 0] % 7 == targets).all()


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    first = FaceLoader(IMAGES, TARGETS, 16, shuffle=True, seed=1)
    torch.rand(7)
    again = FaceLoader(IMAGES, TARGETS, 16, shuffle=True, seed=1)
    assert seen(first) == seen(again)
    assert seen(first, 1) == seen(again, 1) != seen(first, 0)
    assert seen(FaceLoader(IMAGES, TARGETS, 16, shuffle=True, seed=2)) != seen(first)


def test_it_goes_on_where_its_state_was_taken() -> None:
    loader = FaceLoader(IMAGES, TARGETS, 8, shuffle=True, seed=1)
    whole = seen(loader, 3)
    batches = iter(loader)
    next(batches)
    next(batches)
    state = loader.state_dict()
    resumed = FaceLoader(IMAGES, TARGETS, 8, shuffle=True, seed=1)
    resumed.load_state_dict(state)
    assert seen(resumed, 3) == whole[2:]
    assert seen(resumed, 3) == whole
    resumed.load_state_dict(state)
    assert seen(resumed, 4) == seen(loader, 4)  # the state is of another epoch


def test_each_training_batch_has_random_numbers_of_its_own() -> None:
    def noise() -> list[float]:
        loader = FaceLoader(IMAGES, TARGETS, 8, shuffle=True, seed=1)
        return [float(torch.rand(())) for _ in loader]

    first = noise()
    torch.rand(5)
    assert noise() == first
    assert len(set(first)) == len(first)


def test_only_the_generators_that_are_used_are_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = []
    for number in range(1, 7):
        torch.manual_seed(_entropy(1, 3, number, 0))
        expected.append(float(torch.rand(())))

    seeded: list[int] = []
    monkeypatch.setattr(torch, "manual_seed", None)  # asks every kind of device
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(manual_seed=seeded.append))
    loader = FaceLoader(IMAGES, TARGETS, 8, shuffle=True, seed=1, device=torch.device("cuda", 0))
    loader.set_epoch(3)
    assert [float(torch.rand(())) for _ in loader] == expected
    assert seeded == [_entropy(1, 3, number, 0) for number in range(1, 7)]
    loader = FaceLoader(IMAGES, TARGETS, 8, shuffle=True, seed=1)
    loader.set_epoch(3)
    assert [float(torch.rand(())) for _ in loader] == expected
    assert len(seeded) == 6


def test_batches_are_gathered_where_the_rows_are() -> None:
    away = torch.device("meta")  # stands for a GPU: tensors there cannot be mixed with others
    for faces, targets in FaceLoader(IMAGES.to(away), TARGETS.to(away), 8, device=torch.device("cpu")):
        assert faces.device == targets.device == away
    weights = torch.ones(50).double()
    loader = FaceLoader(IMAGES.to(away), TARGETS.to(away), 8, True, weights, device=torch.device("cpu"))
    assert [len(faces) for faces, _ in loader] == [8] * 6


@pytest.mark.parametrize("shuffle", [False, True])
def test_processes_share_the_rows_out(shuffle: bool) -> None:
    loaders = [FaceLoader(IMAGES, TARGETS, 8, shuffle, seed=1, rank=rank, world_size=3) for rank in range(3)]
    rows = [list(chain(*seen(loader))) for loader in loaders]
    together = list(chain(*rows))
    assert len(set(together)) == len(together)
    if shuffle:
        assert {len(loader) for loader in loaders} == {2}  # 50 rows fill two batches of 3 x 8
    else:
        assert sorted(together) == list(range(50))


def test_weights_change_how_often_a_class_is_drawn() -> None:
    weights = torch.where(TARGETS == 2, 10.0, 1.0).double()
    loader = FaceLoader(IMAGES, TARGETS, 50, shuffle=True, weights=weights, seed=1)
    drawn = torch.cat([targets for epoch in range(20) for targets in [next(iter(_at(loader, epoch)))[1]]])
    expected = float(weights[TARGETS == 2].sum() / weights.sum())
    assert abs(float((drawn == 2).float().mean()) - expected) < 0.05


def _at(loader: FaceLoader, epoch: int) -> FaceLoader:
    loader.set_epoch(epoch)
    return loader


def test_a_set_smaller_than_a_batch_is_one_batch() -> None:
    assert [len(batch) for batch in seen(FaceLoader(IMAGES[:5], TARGETS[:5], 16, shuffle=True))] == [5]
