"""The worker's side of a comparison of quality: for each line that comes in one SAE, trained and then measured.

All contenders are measured by the same function, in the units of the raw activations. What a contender's users do to
activations before training (`Trainee.normalization`) is done to the batches, and undone to what comes out.

ReLU SAEs have no fixed number of codes a token. So that all have about the same, the weight of each one's own penalty
is steered while it trains: raised where a batch has more codes than wanted, and lowered where it has fewer. All codes
that an SAE then has are measured, and their number with them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor
from trainee import CannotRun, Prepare, Trainee

# Steering looks at so many tokens, about so many times in the shortest runs, at most every so many steps.
_LOOKED_AT, _LOOKS, _LONGEST_GAP = 256, 100, 10
# Gains on the logarithm of codes a token over wanted ones: of the sum over looks, and of the newest look.
_SUMMED, _NEWEST = 0.1, 0.5


class ShuffledBatches:
    """Batches of a file of float32 rows: every epoch in an order of its own, which the seed alone decides."""

    def __init__(self, path: Path, d_model: int, size: int, seed: int, device: str = "cpu") -> None:
        self.path, self.d_model, self.size, self.seed, self.device = path, d_model, size, seed, device
        self.rows = np.memmap(path, np.float32, "r").reshape(-1, d_model)
        self.count = len(self.rows) // size  # in an epoch
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __getitem__(self, number: int) -> Tensor:
        epoch, place = divmod(number, self.count)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch, 0xDA7A]).permutation(len(self.rows))
        chosen = np.sort(self._order[place * self.size : (place + 1) * self.size])
        return torch.from_numpy(self.rows[chosen]).to(self.device)


class Normalized:
    """The same batches as a contender's users hand them over."""

    def __init__(self, batches: ShuffledBatches, shift: Tensor, scale: Tensor) -> None:
        self.batches, self.shift, self.scale, self.size = batches, shift, scale, batches.size

    def __getitem__(self, number: int) -> Tensor:
        return (self.batches[number] - self.shift) / self.scale


def largest_of_batch(codes: Tensor, k: int) -> Tensor:
    """Keep the k * n largest of dense codes (n, width)."""
    flat = codes.flatten()
    values, places = flat.topk(k * len(codes))
    return torch.zeros_like(flat).scatter_(0, places, values).view_as(codes)


def quality_of(
    encode: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor], rows: Tensor, size: int, k: int
) -> dict[str, float]:
    """Normalized squared error and sparsity on held-out raw activations (n, d_model), taken `size` at a time.

    Of codes that are more than k a token, the smallest of each batch are dropped, so that no SAE has more.

    Parameters
    ----------
    encode, decode
        From raw activations (m, d_model) to dense codes (m, width), and back.

    Returns
    -------
    dict
        `nmse`: the squared error's mean over that of the rows' deviation from their mean. `l0`: codes a token.
        `silent_share`: share of latents that no row has.
    """
    deviation = (rows - rows.mean(0)).double().square().sum()
    squared, codes, fired = 0.0, 0, torch.zeros(0)
    for part in rows.split(size):
        latents = largest_of_batch(encode(part), k)
        squared += float((decode(latents) - part).double().square().sum())
        active = latents != 0
        codes += int(active.sum())
        fired = active.any(0) if not len(fired) else fired | active.any(0)
    return {
        "nmse": squared / float(deviation),
        "l0": codes / len(rows),
        "silent_share": float((~fired).double().mean()),
    }


class Steering:
    """Moves the weight of a penalty until a batch has as many codes a token as wanted."""

    def __init__(self, trainee: Trainee, l0: float) -> None:
        assert trainee.penalty is not None
        assert trainee.set_penalty is not None
        self.trainee, self.l0, self.first = trainee, l0, trainee.penalty
        self.sum = 0.0

    def look(self, rows: Tensor) -> None:
        """Count the codes of a batch and set the weight anew."""
        with torch.no_grad():
            found = float((self.trainee.codes(rows[:_LOOKED_AT]) != 0).sum()) / min(len(rows), _LOOKED_AT)
        excess = max(-1.0, min(1.0, math.log(max(found, 0.1) / self.l0)))
        self.sum += _SUMMED * excess
        self.trainee.set_penalty(self.first * math.exp(self.sum + _NEWEST * excess))


def trained(prepare: Prepare, given: dict[str, Any]) -> dict[str, float]:
    """Train one SAE and measure it."""
    torch.manual_seed(given["seed"])
    d_model, size, steps = given["d_model"], given["batch_size"], given["steps"]
    # Of another seed than the weights are of.
    device = given.get("device", "cpu")
    raw = ShuffledBatches(Path(given["data"]), d_model, size, given["seed"] + 1_000_000, device)
    shift, scale = torch.zeros(()), torch.ones(())
    if given["normalization"] is not None:
        sample = torch.cat([raw[number] for number in range(min(raw.count, 8192 // size + 1))])
        shift, scale = NORMALIZATIONS[given["normalization"]](sample)
    batches = Normalized(raw, shift, scale)
    trainee = prepare(given, batches)
    steering = Steering(trainee, given["l0"]) if "l0" in given else None
    gap = max(1, min(_LONGEST_GAP, steps // _LOOKS))
    for number in range(steps):
        rows = batches[number]
        if steering is not None and number % gap == 0:
            steering.look(rows)
        trainee.step(rows)
    trainee.finish()

    encode, decode = trainee.dense_codes, trainee.decode
    assert encode is not None
    assert decode is not None
    held_out = torch.from_numpy(np.fromfile(given["held_out"], np.float32)).view(-1, d_model).to(device)
    with torch.no_grad():
        return quality_of(
            lambda rows: encode((rows - shift) / scale),
            lambda codes: decode(codes) * scale + shift,
            held_out,
            size,
            given["k"],
        )


def serve_quality(prepare: Prepare, given: dict[str, Any], answers: TextIO) -> None:
    """Say that it is ready; then train and measure an SAE for each line, which has what differs between them."""
    answers.write("{}\n")
    for line in sys.stdin:
        try:
            found: dict[str, Any] = trained(prepare, {**given, **json.loads(line)})
        except CannotRun as reason:
            found = {"cannot": str(reason)}
        answers.write(json.dumps(found) + "\n")


def _mean_norm(sample: Tensor) -> tuple[Tensor, Tensor]:
    """SAELens's `expected_average_only_in`: a mean norm of sqrt(d_model)."""
    return torch.zeros(()), sample.norm(dim=1).mean() / sample.shape[1] ** 0.5


def _unit_square(sample: Tensor) -> tuple[Tensor, Tensor]:
    """dictionary_learning's `normalize_activations`: a mean squared norm of 1."""
    return torch.zeros(()), sample.square().sum(1).mean().sqrt()


def _centred(sample: Tensor) -> tuple[Tensor, Tensor]:
    """saev's `scale_mean` and `scale_norm`: no mean, then a mean norm of sqrt(d_model)."""
    shift = sample.mean(0)
    return shift, (sample - shift).norm(dim=1).mean() / sample.shape[1] ** 0.5


NORMALIZATIONS = {"mean norm": _mean_norm, "unit square": _unit_square, "centred": _centred}
