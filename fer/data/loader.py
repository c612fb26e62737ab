"""Batches out of a data set that is held in memory: a gather by index, no worker processes, no per-image work.

Knows nothing of augmentation, files or Lightning, but offers what Lightning asks of a resumable loader.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


class FaceLoader:
    """Iterates over (faces, targets): uint8 (B, 1, S, S) and int64 (B,) or float (B, C), where `images` are.

    A training loader shuffles. Its order, and every random number that is drawn while a batch is worked on
    (augmentation, dropout), depend only on seed, epoch, batch number and rank: before each batch it seeds torch. A run
    that resumes from the middle of an epoch therefore repeats what an unbroken one would have done.

    Several processes share the rows out: training drops the rows that do not fill a batch of every process;
    evaluation gives every row to exactly one process, so that nothing is counted twice.

    Args:
        images: uint8 (N, 1, S, S).
        targets: int64 (N,), or float (N, C) where they are distributions; on the device of `images`.
        batch_size: rows per batch and process.
        shuffle: whether this is a training loader.
        weights: float64 (N,): rows are drawn with replacement in this proportion; None takes each once.
        seed: of the order and of each batch.
        rank: number of this process.
        world_size: number of processes.
        device: where the batches are worked on, so whose random numbers are seeded besides the CPU's.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        batch_size: int,
        shuffle: bool = False,
        weights: Tensor | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.images = images
        self.targets = targets
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.weights = weights
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.device = images.device if device is None else device
        self._epoch = 0
        self._position = 0  # batches of this epoch that were handed out
        self._resume: dict[str, int] | None = None

    batch_sampler = None  # Lightning reads it of whatever has a sampler

    @property
    def sampler(self) -> "FaceLoader":
        """Lightning calls `loader.sampler.set_epoch(epoch)` before every epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch that the next iteration is of."""
        self._epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """The place in the epoch, for a checkpoint."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next iteration of that epoch begin where `state` was taken."""
        self._resume = state

    def __len__(self) -> int:
        """Batches per epoch and process."""
        if self.shuffle:
            # A lone last batch would be noisier than the rest, and batch norm cannot train on one row.
            return max(1, len(self.targets) // (self.batch_size * self.world_size))
        return -(-len(self._order()) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # A generator: this runs when the first batch is asked for, after Lightning has set the epoch.
        resume, self._resume = self._resume, None
        self._position = resume["position"] if resume is not None and resume["epoch"] == self._epoch else 0
        order = self._order().to(self.images.device)
        count = len(self)
        seeds = [_entropy(self.seed, self._epoch, 1 + number, self.rank) for number in range(count) if self.shuffle]
        for number in range(self._position, count):
            index = order[number * self.batch_size : (number + 1) * self.batch_size]
            if self.shuffle:
                self._set_seed(seeds[number])
            self._position = number + 1
            yield self.images[index], self.targets[index]

    def _set_seed(self, seed: int) -> None:
        """What `torch.manual_seed` does, without asking every kind of device: that takes as long as a small batch."""
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def _order(self) -> Tensor:
        """Row positions for this process, in order."""
        count = len(self.targets)
        if not self.shuffle:
            return torch.arange(self.rank, count, self.world_size)
        generator = torch.Generator().manual_seed(_entropy(self.seed, self._epoch, 0, 0))
        if self.weights is not None:
            order = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        else:
            order = torch.randperm(count, generator=generator)
        return order[self.rank :: self.world_size]


def _entropy(*numbers: int) -> int:
    """One well mixed 63-bit seed from several small numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
