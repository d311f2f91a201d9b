"""overcomplete's training: its train_sae over one batch at a time, without monitoring, as its README calls it.

The loss is what a user hands over. TopK and BatchTopK get the README's (the squared error alone, so no auxiliary
loss); ReLU its own `mse_l1`, whose penalty is a sum over the whole batch and is therefore divided by the batch's size;
JumpReLU the squared error, and a pull on the thresholds while more than k codes a token are active, which is how its
users steer it. Adam at 5e-4 is the README's too. BatchTopK's `top_k` counts a whole batch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torchvision_operators  # noqa: F401
from torch import Tensor
from trainee import SomeBatches, Trainee
from training_protocol import serve_training

L1 = 1e-3


def squared_error(x: Tensor, x_hat: Tensor, *_: Tensor) -> Tensor:
    """Mean squared error."""
    return (x - x_hat).square().mean()


def prepare(given: dict[str, Any], batches: SomeBatches) -> Trainee:
    """Make the SAE, its loss and its optimizer."""
    from overcomplete.sae import SAE, BatchTopKSAE, JumpSAE, TopKSAE, mse_l1, train_sae

    d_model, width, k = given["d_model"], given["width"], given["k"]
    if given["variant"] == "topk":
        sae, criterion = TopKSAE(d_model, width, top_k=k), squared_error
    elif given["variant"] == "batchtopk":
        sae, criterion = BatchTopKSAE(d_model, width, top_k=k * batches.size), squared_error
    elif given["variant"] == "jumprelu":
        sae = JumpSAE(d_model, width)

        def criterion(x: Tensor, x_hat: Tensor, pre_codes: Tensor, codes: Tensor, dictionary: Tensor) -> Tensor:
            active = (codes > 0).float().mean().detach()
            return squared_error(x, x_hat) - (sae.thresholds.sum() if active * width > k else 0)
    else:
        sae = SAE(d_model, width)

        def criterion(*found: Tensor) -> Tensor:
            return mse_l1(*found, penalty=weight["l1"] / batches.size)

    weight = {"l1": L1}
    optimizer = torch.optim.Adam(sae.parameters(), lr=given.get("learning_rate", 5e-4))

    def step(rows: Tensor) -> None:
        train_sae(sae, [rows], criterion, optimizer, nb_epochs=1, monitoring=0)

    def codes(rows: Tensor) -> Tensor:
        if given["variant"] != "batchtopk":
            return sae.encode(rows)[1]
        return sae.eval().encode(rows)[1]  # the running threshold: top_k is for whole batches

    def dense_codes(rows: Tensor) -> Tensor:
        return sae.encoder(rows)[1] if given["variant"] == "batchtopk" else sae.encode(rows)[1]

    return Trainee(
        step,
        codes,
        sae.encoder.final_block[0].bias.data,
        lambda rows: sae.encoder(rows)[0],
        dense_codes,
        sae.decode,
        L1,
        partial(weight.__setitem__, "l1"),
        sae.eval,
    )


if __name__ == "__main__":
    serve_training(prepare)
