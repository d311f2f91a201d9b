"""Linear segmentation head on final patch tokens."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from visae.activations.store import ActivationStore
from visae.config.settings import SegmentationHeadSettings
from visae.data.images import fitted_mask
from visae.data.index import read_classes, read_ignore_ids, read_index
from visae.device import chosen_device, described
from visae.errors import DataError
from visae.files import atomic_path, read_json, write_json
from visae.heads.metrics import accuracy, class_iou, confusion_matrix, mean_iou
from visae.heads.tokens import final_tokens, open_store
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.vision.model import ModelCard, VisionModel, load_model

UNLABELLED = -1
# The loss is taken on a grid this many times finer than the patches. Compared with one majority label a patch it
# raised CamVid's pixel mIoU by a point or two; the full resolution gave no more and took ten times as long.
FINER = 4


class SegmentationHead(nn.Module):
    """One linear map from a patch token to class logits.

    Parameters
    ----------
    weight, bias
        (n_classes, d_model) and (n_classes,).
    n_prefix
        Tokens before the patches.
    grid
        Patches down and across.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, n_prefix: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.n_prefix, self.grid = n_prefix, grid
        self.classes: list[dict[str, Any]] = []

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (b, n_classes, grid_height, grid_width) of final-normed tokens (b, n_tokens, d_model)."""
        logits = functional.linear(tokens[:, self.n_prefix :], self.weight, self.bias)
        return logits.transpose(1, 2).unflatten(2, self.grid)


def load_segmentation_head(metrics_path: str | Path, device: str | torch.device = "cpu") -> SegmentationHead:
    """Load the frozen head whose metrics.json and weights.safetensors lie in one folder.

    `.classes` lists {"id", "name"} in the order of the logits.
    """
    metrics = read_json(metrics_path)
    tensors = load_file(Path(metrics_path).with_name("weights.safetensors"))
    head = SegmentationHead(tensors["weight"], tensors["bias"], metrics["n_prefix"], tuple(metrics["grid"]))
    head.classes = metrics["classes"]
    return head.requires_grad_(False).to(device)


def train_segmentation_head(
    settings: SegmentationHeadSettings,
    *,
    manifest: str | Path,
    index_path: str | Path,
    patch_labels: str | Path,
    card_path: str | Path,
    output: str | Path,
    fit_split: str = "train",
    measure_split: str = "val",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Train and measure a head; write weights.safetensors and metrics.json into `output`.

    Parameters
    ----------
    manifest
        Store of the model's last block.
    patch_labels
        Parquet of patch labels: what `patch_miou` is measured against.
    output
        Folder.
    seed
        Global seed, added to the settings' own.

    Returns
    -------
    dict
        What metrics.json holds.
    """
    chosen, seed = chosen_device(device), seed + settings.seed
    provenance = Provenance(settings, [manifest, index_path, card_path], seed, described(chosen))
    model = load_model(card_path, chosen)
    store = open_store(manifest, model.card)
    names = {i: name for i, name in sorted(read_classes(index_path).items()) if i != 0}
    classes = [{"id": i, "name": name} for i, name in names.items()]
    masks = Masks(index_path, model.card, list(names))
    head = _trained(settings, store, model, masks=masks, split=fit_split, device=chosen, seed=seed)
    head.classes = classes
    tensors = {"weight": head.weight.detach().cpu().contiguous(), "bias": head.bias.detach().cpu()}
    with atomic_path(Path(output) / "weights.safetensors") as temporary:
        save_file(tensors, temporary)
    metrics = {
        **_measured(head, store, model, masks=masks, patch_labels=patch_labels, split=measure_split, device=chosen),
        "classes": classes,
        "n_prefix": head.n_prefix,
        "grid": list(head.grid),
        "provenance": provenance.record(),
    }
    write_json(Path(output) / "metrics.json", metrics)
    return metrics


class Masks:
    """Masks through the model's geometry, as class channels with UNLABELLED where there is no class.

    Parameters
    ----------
    class_ids
        Class id of each channel.
    """

    def __init__(self, index_path: str | Path, card: ModelCard, class_ids: list[int]) -> None:
        self.index_path, self.card = index_path, card
        columns = ["image_id", "mask_path", "width", "height"]
        rows = read_index(index_path).filter(pl.col("mask_path").is_not_null()).select(columns).iter_rows()
        self._rows = {image_id: (path, width, height) for image_id, path, width, height in rows}
        self.class_ids, self.ignore_ids = class_ids, read_ignore_ids(index_path)

    def __contains__(self, image_id: int) -> bool:
        return image_id in self._rows

    def read(self, image_id: int) -> torch.Tensor:
        """Channels int16 (height, width) of a picture."""
        path, width, height = self._rows[image_id]
        mask = fitted_mask(path, (width, height), self.card.image_size, self.card.fit, self.ignore_ids)
        return torch.from_numpy(channels(mask, self.class_ids))


def channels(ids: np.ndarray, class_ids: list[int]) -> np.ndarray:
    """Turn class ids of any shape into positions in `class_ids`, int16; UNLABELLED for 0 and unknown ids."""
    table = np.full(max([*class_ids, int(ids.max(initial=0))]) + 1, UNLABELLED, dtype=np.int16)
    table[class_ids] = np.arange(len(class_ids))
    return table[ids]


def _trained(
    settings: SegmentationHeadSettings,
    store: ActivationStore,
    model: VisionModel,
    *,
    masks: Masks,
    split: str,
    device: torch.device,
    seed: int,
) -> SegmentationHead:
    """Train on the labelled pictures of a split, which are held in memory as they are stored."""
    card = model.card
    image_ids = [i for i in store.image_ids(split) if i in masks]
    if not image_ids:
        raise DataError(f"{masks.index_path}: no picture of split {split!r} has a mask; segmentation needs masks")
    tokens = torch.cat([t.to(getattr(torch, store.dtype)) for _, t in store.iterate(split, kinds="all")])
    tokens = tokens[torch.tensor(image_ids) - store.image_ids(split).start]
    height, width = card.grid[0] * FINER, card.grid[1] * FINER
    labels = torch.stack([_coarse(masks.read(i), height, width) for i in image_ids])

    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(len(masks.class_ids), card.d_final)
    head = SegmentationHead(weight, torch.zeros(len(weight)), card.n_prefix, card.grid).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    batches = -(-len(tokens) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * batches)
    with progress_bar(settings.epochs * batches, "segmentation head", "steps") as bar:
        for _ in range(settings.epochs):
            for batch in torch.randperm(len(tokens), generator=generator).split(settings.batch_size):
                logits = head(model.final_norm(tokens[batch].float().to(device)))
                fine = functional.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
                truth = labels[batch].long().to(device)
                loss = functional.cross_entropy(fine, truth, ignore_index=UNLABELLED, reduction="sum")
                # A batch without any label has a loss of 0, not of 0 / 0.
                loss = loss / (truth != UNLABELLED).sum().clamp(min=1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    return head.requires_grad_(False)


def _coarse(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Nearest samples of a mask (h, w) at the centres of a grid (height, width)."""
    return functional.interpolate(mask[None, None].float(), (height, width), mode="nearest-exact")[0, 0].to(mask.dtype)


@torch.inference_mode()
def _measured(
    head: SegmentationHead,
    store: ActivationStore,
    model: VisionModel,
    *,
    masks: Masks,
    patch_labels: str | Path,
    split: str,
    device: torch.device,
) -> dict[str, Any]:
    n_classes, size = len(head.classes), model.card.image_size
    by_image = patch_channels(patch_labels, masks.class_ids)
    patches, pixels = torch.zeros(2, n_classes, n_classes, dtype=torch.int64)
    n_images = 0
    for image_ids, tokens in final_tokens(store, model, split, device, batch_images=16):
        keep = [i for i, image_id in enumerate(image_ids) if int(image_id) in masks]
        if not keep:
            continue
        logits = head(tokens[keep])
        coarse = logits.argmax(dim=1).flatten(1).cpu()
        fine = functional.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(dim=1).cpu()
        labelled = [int(image_ids[i]) for i in keep]
        patches += confusion_matrix(torch.stack([by_image[i] for i in labelled]), coarse, n_classes)
        pixels += confusion_matrix(torch.stack([masks.read(i) for i in labelled]), fine, n_classes)
        n_images += len(keep)
    if pixels.sum() == 0 or patches.sum() == 0:
        raise DataError(f"{masks.index_path}: no patch of split {split!r} is labelled; segmentation needs masks there")
    iou = class_iou(pixels).tolist()
    return {
        "patch_miou": mean_iou(patches),
        "pixel_miou": mean_iou(pixels),
        "pixel_accuracy": accuracy(pixels),
        "class_iou": {
            c["name"]: None if math.isnan(value) else value for c, value in zip(head.classes, iou, strict=True)
        },
        "n_images": n_images,
    }


def patch_channels(patch_labels: str | Path, class_ids: list[int]) -> dict[int, torch.Tensor]:
    """Majority class of each patch as a channel, int16 (n_patches,), by picture."""
    frame = pl.read_parquet(patch_labels).sort("image_id", "token")
    ids = frame["image_id"].to_numpy()
    labels = channels(frame["label"].to_numpy().astype(np.int64), class_ids)
    pictures, starts = np.unique(ids, return_index=True)
    return {
        int(picture): torch.from_numpy(part)
        for picture, part in zip(pictures, np.split(labels, starts[1:]), strict=True)
    }
