"""How fast the synthetic faces are drawn, and how much harder they are for a linear classifier than for a network.

    python benchmarks/synthetic.py [--train 4000] [--test 1000] [--epochs 12] [--threads 1]

Logistic regression (its regularisation chosen on the validation faces) and a plain network of four convolutions see the
same standardised pixels; the network also sees mirrored faces. Test accuracy is printed for both.
"""

import argparse
import time
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional

from fer.data.faces import TEST, TRAIN, VAL
from fer.data.synthetic import make_faces
from fer.labels import EMOTIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    make_faces(70, 0, 0, options.seed)  # warm up
    start = time.perf_counter()
    faces = make_faces(options.train, options.test, options.test, options.seed)
    seconds = time.perf_counter() - start
    print(f"drawing: {len(faces)} faces in {seconds:.2f} s, {len(faces) / seconds:.0f} faces/s on one core")

    images = faces.images.astype(np.float32)
    images -= images.mean(axis=(1, 2), keepdims=True)
    images /= images.std(axis=(1, 2), keepdims=True) + 1
    split = {code: np.flatnonzero(faces.splits == code) for code in (TRAIN, VAL, TEST)}

    flat = images.reshape(len(images), -1)
    fits = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in (1e-5, 1e-4, 1e-3):
            model = LogisticRegression(C=strength, max_iter=100).fit(flat[split[TRAIN]], faces.labels[split[TRAIN]])
            fits.append((model.score(flat[split[VAL]], faces.labels[split[VAL]]), strength, model))
    _, strength, model = max(fits, key=lambda fit: fit[0])
    score = model.score(flat[split[TEST]], faces.labels[split[TEST]])
    print(f"logistic regression (C={strength:g}): test accuracy {score:.1%}")

    network = train_network(
        torch.from_numpy(images[split[TRAIN], None]), torch.from_numpy(faces.labels[split[TRAIN]]), options.epochs
    )
    with torch.no_grad():
        logits = [network(part) for part in torch.split(torch.from_numpy(images[split[TEST], None]), 500)]
    guess = torch.cat(logits).argmax(dim=1).numpy()
    truth = faces.labels[split[TEST]]
    print(f"network, {options.epochs} epochs: test accuracy {(guess == truth).mean():.1%}; recall by emotion:")
    print("  " + "  ".join(f"{name} {(guess[truth == i] == i).mean():.0%}" for i, name in enumerate(EMOTIONS)))


def train_network(images: torch.Tensor, labels: torch.Tensor, epochs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 64), (64, 96), (96, 128)):
        layers += [
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * 9, len(EMOTIONS)))
    network = network.to(memory_format=torch.channels_last)
    batch, start = 64, time.perf_counter()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs * (len(images) // batch))
    for _ in range(epochs):
        for index in torch.split(torch.randperm(len(images))[: len(images) // batch * batch], batch):
            mirrored = (torch.rand(batch) < 0.5)[:, None, None, None]
            faces = torch.where(mirrored, images[index].flip(3), images[index])
            loss = functional.cross_entropy(network(faces), labels[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    print(f"network: {epochs * len(images) / (time.perf_counter() - start):.0f} faces/s in training")
    return network.eval()


if __name__ == "__main__":
    main()
