"""Data parallel training: several processes, each on its part of every batch, as `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from visae.errors import TrainingError


class Ranks:
    """Processes that train together. This class is a process that is alone: nothing is exchanged or changed."""

    number, count = 0, 1

    def part(self, rows: Tensor) -> Tensor:
        """Return this process's rows of a batch (n, ...)."""
        return rows

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes."""
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes."""
        return values

    def greatest(self, values: Tensor) -> Tensor:
        """Largest over the processes, element by element."""
        return values

    def gathered(self, values: Tensor) -> Tensor:
        """Values (n,) of all processes one after the other; n may differ."""
        return values

    def first(self, values: Tensor) -> None:
        """Take over the first process's values, in place."""


ALONE = Ranks()


class Joined(Ranks):
    """Processes of torch.distributed's default group; each has an equal part of every batch."""

    def __init__(self) -> None:
        self.number, self.count = dist.get_rank(), dist.get_world_size()

    def part(self, rows: Tensor) -> Tensor:
        """Return this process's rows of a batch (n, ...).

        Raises
        ------
        TrainingError
            If the batch cannot be parted evenly: means over the parts would not be means over the batch.
        """
        if len(rows) % self.count:
            raise TrainingError(
                f"batch_size: {len(rows)} tokens cannot be parted among {self.count} processes; allowed: multiples "
                f"of {self.count}"
            )
        size = len(rows) // self.count
        return rows[self.number * size : (self.number + 1) * size]

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes."""
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes."""
        return self.total(values).div_(self.count)

    def greatest(self, values: Tensor) -> Tensor:
        """Largest over the processes, element by element."""
        largest = values.clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return largest

    def gathered(self, values: Tensor) -> Tensor:
        """Values (n,) of all processes one after the other; n may differ."""
        own = torch.tensor([len(values)], device=values.device)
        sizes = [torch.zeros_like(own) for _ in range(self.count)]
        dist.all_gather(sizes, own)
        longest = max(int(size) for size in sizes)
        padded = values.new_zeros(longest)
        padded[: len(values)] = values
        parts = [torch.zeros_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])

    def first(self, values: Tensor) -> None:
        """Take over the first process's values, in place."""
        dist.broadcast(values, src=0)


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes that torchrun has started, if it has; yields them and this process's own device."""
    # What torchrun tells its processes is in the environment; without it this process is alone.
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield ALONE, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Joined(), device
    finally:
        dist.destroy_process_group()
