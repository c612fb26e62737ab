"""How often a network claims an emotion with confidence where there is no face, or none that can be read.

    python benchmarks/no_face.py                                    the packaged network, pictures that are drawn
    python benchmarks/no_face.py CKPT --data fer2013.csv            besides, PublicTest's faces turned and in pieces
    python benchmarks/no_face.py CKPT --data fer2013.csv --ferplus fer2013new.csv    and those that people doubted

A claim is an answer of at least the checkpoint's confidence for 90 % right answers. A hundred pictures of each kind.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fer.checkpoint import load_network
from fer.data.faces import VAL
from fer.data.ferplus import NOT_A_FACE, UNKNOWN, read_votes, votes_of, winner
from fer.data.reader import read
from fer.data.synthetic import make_faces
from fer.weights import packaged

COUNT, SIZE = 100, 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", nargs="?", type=Path, default=packaged("senet_7"))
    parser.add_argument("--data", type=Path, help="FER2013, in any form that data.path takes")
    parser.add_argument("--ferplus", type=Path, help="FER+'s votes")
    given = parser.parse_args()
    network = load_network(given.ckpt)
    minimum = network.spec.thresholds["0.9"]

    table = Table("pictures", "number", "claimed", "mostly as", title=f"{given.ckpt.name}, at least {minimum:.3f}")
    for name, pictures in kinds(given.data, given.ferplus):
        probabilities = network.probabilities(pictures)
        confidence, answers = probabilities.max(dim=1)
        claimed = answers[confidence >= minimum]
        usual = network.spec.classes[int(claimed.mode().values)] if len(claimed) else ""
        table.add_row(name, str(len(pictures)), f"{len(claimed) / len(pictures):.0%}", usual)
    Console().print(table)


def kinds(data: Path | None, ferplus: Path | None) -> Iterator[tuple[str, Tensor]]:
    """Names and uint8 pictures (N, 1, 48, 48); the same at every call."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.rand(COUNT, 1, *shape, generator=generator)

    def clouds(cells: int) -> Tensor:
        return torch.nn.functional.interpolate(numbers(cells, cells), (SIZE, SIZE), mode="bicubic")

    place = torch.arange(SIZE) / SIZE
    angle = 2 * torch.pi * numbers(1, 1)
    along = place[:, None] * torch.sin(angle) + place * torch.cos(angle)
    yield "blank", gray(numbers(1, 1).expand(COUNT, 1, SIZE, SIZE))
    yield "noise", gray(numbers(SIZE, SIZE))
    yield "ramps of light", gray(0.5 + 0.5 * (along - along.mean(dim=(2, 3), keepdim=True)))
    yield "clouds, coarse", gray(clouds(5))
    yield "clouds, fine", gray(clouds(14))
    yield "stripes", gray(0.5 + 0.5 * torch.sin(2 * torch.pi * along * (2 + 8 * numbers(1, 1))))
    drawn = make_faces(train=0, val=COUNT, test=0, seed=0)
    yield "drawn faces", torch.from_numpy(drawn.images).unsqueeze(1)
    if data is None:
        return
    faces = read(data)
    votes = None if ferplus is None else votes_of(faces, read_votes(ferplus), ferplus)
    public = faces.splits == VAL
    faces = faces.select(public)
    real = torch.from_numpy(faces.images).unsqueeze(1)
    yield "real faces", real
    some = real[np.sort(np.random.default_rng(0).permutation(len(real))[:COUNT])]
    yield "a hundred of them upside down", some.flip(-2)
    yield "these in sixteen shuffled pieces", shuffled(some, generator)
    if votes is not None:
        said = winner(votes[public])
        yield "by FER+ no faces", real[said == NOT_A_FACE]
        yield "by FER+ unknown", real[said == UNKNOWN]


def gray(light: Tensor) -> Tensor:
    """Of 0 to 1."""
    return (255 * light).clamp(0, 255).to(torch.uint8)


def shuffled(faces: Tensor, generator: torch.Generator) -> Tensor:
    side = SIZE // 4
    pieces = faces.unfold(2, side, side).unfold(3, side, side).reshape(len(faces), 16, side, side)
    order = torch.rand(len(faces), 16, generator=generator).argsort(dim=1)
    mixed = torch.stack([own[places] for own, places in zip(pieces, order, strict=True)])
    return mixed.reshape(-1, 1, 4, 4, side, side).transpose(3, 4).reshape(faces.shape)


if __name__ == "__main__":
    main()
