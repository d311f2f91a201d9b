"""Training a segmentation head on final patch tokens, and measuring it."""

from __future__ import annotations

import logging
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn import functional

from visae.activations.store import ActivationStore
from visae.config.settings import SegmentationHeadSettings
from visae.data.index import read_classes
from visae.device import chosen_device, described
from visae.errors import DataError
from visae.files import atomic_path, write_json
from visae.heads.files import SegmentationFiles
from visae.heads.masks import UNLABELLED, Masks, patch_channels
from visae.heads.metrics import confusion_matrix, mean_iou
from visae.heads.segmentation_head import SegmentationHead, new_head
from visae.heads.segmentation_metrics import SegmentationTally
from visae.heads.tokens import final_tokens, open_store
from visae.heads.training_tokens import TrainingTokens
from visae.intervals import COVERAGE, RESAMPLES
from visae.progress import progress_bar
from visae.provenance import Provenance
from visae.vision.model import VisionModel, load_model

logger = logging.getLogger(__name__)

# The loss is taken on a grid this many times finer than the patches. Compared with one majority label a patch it
# raised CamVid's pixel mIoU by a point or two; the full resolution gave no more and took ten times as long.
FINER = 4
# Share of the training pictures on which the members of a sweep are compared.
HELD_OUT_SHARE = 0.2


def train_segmentation_head(
    settings: SegmentationHeadSettings,
    files: SegmentationFiles,
    output: str | Path,
    *,
    fit_split: str = "train",
    measure_split: str = "val",
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Train and measure a head; write its weights, metrics.json and tables into `output`.

    Tables are classes.parquet (IoU of each class with its interval, by patches and by pixels) and confusion.parquet.
    Pixels of a class that no picture of `fit_split` has count nowhere, and `not_learned` names the class.

    Parameters
    ----------
    files
        What it is trained from.
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
    provenance = Provenance(settings, files.named(), seed, described(chosen))
    model = load_model(files.card_path, chosen)
    store = open_store(files.manifest, model.card, model.card.depth - 1)
    names = {i: name for i, name in sorted(read_classes(files.index_path).items()) if i != 0}
    masks = Masks(files.index_path, model.card, list(names))
    head, class_ids, learned = _learned(settings, store, model, masks=masks, split=fit_split, device=chosen, seed=seed)
    head.classes = [{"id": i, "name": names[i]} for i in class_ids]
    head.not_learned = [{"id": i, "name": name} for i, name in names.items() if i not in class_ids]
    for c in head.not_learned:
        logger.warning("class %s is in no mask of split %s: it is neither learned nor judged", c["name"], fit_split)
    masks = Masks(files.index_path, model.card, class_ids)
    output = Path(output)
    with atomic_path(output / "weights.safetensors") as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in head.state_dict().items()}, temporary)
    tally = _measured(
        head, store, model, masks=masks, patch_labels=files.patch_labels, split=measure_split, device=chosen
    )
    for name, table in tally.tables(seed).items():
        with atomic_path(output / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)
    measured = tally.metrics(seed)
    metrics = {
        **measured,
        "class_iou": measured["class_iou"] | {c["name"]: None for c in head.not_learned},
        "coverage": COVERAGE,
        "resamples": RESAMPLES,
        **learned,
        "classes": head.classes,
        "not_learned": head.not_learned,
        "n_prefix": head.n_prefix,
        "grid": list(head.grid),
        "model_sha256": model.card.weights_sha256,
        "provenance": provenance.record(),
    }
    write_json(output / "metrics.json", metrics)
    return metrics


def _learned(
    settings: SegmentationHeadSettings,
    store: ActivationStore,
    model: VisionModel,
    *,
    masks: Masks,
    split: str,
    device: torch.device,
    seed: int,
) -> tuple[SegmentationHead, list[int], dict[str, Any]]:
    """Head that has learned from all labelled pictures of a split.

    Also the ids of the classes that it has learned, and how its learning rate and decay were chosen.
    """
    image_ids = [i for i in store.image_ids(split) if i in masks]
    if not image_ids:
        raise DataError(f"{masks.index_path}: no picture of split {split!r} has a mask; segmentation needs masks")
    shape = model.card.grid[0] * FINER, model.card.grid[1] * FINER
    data = TrainingTokens(store, masks, image_ids, shape, settings.memory_gb * 1e9)
    if not data.class_ids:
        raise DataError(f"{masks.index_path}: no pixel of split {split!r} is labelled; segmentation needs masks there")
    members = list(product(settings.learning_rates, settings.weight_decays))
    everything = torch.arange(len(image_ids))
    training = _Training(settings, model, data, device, seed)
    held_out: list[dict[str, float]] = []
    if len(members) > 1:
        if len(image_ids) < 2:
            raise DataError(
                f"{masks.index_path}: split {split!r} has one picture with a mask, so that none can be held out to "
                "choose between learning_rates and weight_decays; give one value of each"
            )
        order = torch.randperm(len(image_ids), generator=torch.Generator().manual_seed(seed))
        n_judged = max(1, round(HELD_OUT_SHARE * len(image_ids)))
        heads = training.heads(members, order[n_judged:].sort().values)
        found = training.judged(heads, order[:n_judged])
        held_out = [
            {"learning_rate": rate, "weight_decay": decay, "miou": miou}
            for (rate, decay), miou in zip(members, found, strict=True)
        ]
        members = [members[found.index(max(found))]]
    head = training.heads(members, everything)[0]
    return (
        head,
        data.class_ids,
        {
            "kind": settings.kind,
            "learning_rate": members[0][0],
            "weight_decay": members[0][1],
            "held_out": held_out,
            "n_fit": len(image_ids),
        },
    )


class _Training:
    """Trains heads side by side on the same batches."""

    def __init__(
        self,
        settings: SegmentationHeadSettings,
        model: VisionModel,
        data: TrainingTokens,
        device: torch.device,
        seed: int,
    ) -> None:
        self.settings, self.model, self.data = settings, model, data
        self.n_classes, self.device, self.seed = len(data.class_ids), device, seed

    def heads(self, members: list[tuple[float, float]], rows: torch.Tensor) -> list[SegmentationHead]:
        """Frozen heads, one for each learning rate and weight decay, that have learned from some rows of the data."""
        settings = self.settings
        heads = [new_head(settings, self.model.card, self.n_classes, self.seed).to(self.device) for _ in members]
        optimizers = [
            torch.optim.AdamW(head.parameters(), rate, weight_decay=decay)
            for head, (rate, decay) in zip(heads, members, strict=True)
        ]
        steps = settings.epochs * -(-len(rows) // settings.batch_size)
        schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) for optimizer in optimizers]
        generator = torch.Generator().manual_seed(self.seed)
        with progress_bar(steps, "segmentation heads", "steps") as bar:
            for _ in range(settings.epochs):
                for tokens, labels in self.data.epoch(rows, settings.batch_size, generator):
                    final, truth = self.model.final_norm(tokens.to(self.device)), labels.long().to(self.device)
                    for head, optimizer, schedule in zip(heads, optimizers, schedules, strict=True):
                        optimizer.zero_grad()
                        _loss(head(final), truth).backward()
                        optimizer.step()
                        schedule.step()
                    bar.update()
        return [head.requires_grad_(False) for head in heads]

    @torch.inference_mode()
    def judged(self, heads: list[SegmentationHead], rows: torch.Tensor) -> list[float]:
        """Mean IoU of each head on some rows; -1 where they have no label at all."""
        confusions = torch.zeros(len(heads), self.n_classes, self.n_classes, dtype=torch.int64)
        generator = torch.Generator().manual_seed(self.seed)
        for tokens, labels in self.data.epoch(rows, self.settings.batch_size, generator):
            final = self.model.final_norm(tokens.to(self.device))
            for member, head in enumerate(heads):
                fine = functional.interpolate(head(final), labels.shape[1:], mode="bilinear", align_corners=False)
                confusions[member] += confusion_matrix(labels, fine.argmax(dim=1).cpu(), self.n_classes)
        return [mean_iou(confusion) if confusion.any() else -1.0 for confusion in confusions]


def _loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits, scaled up to the labels' grid (b, height, width), where there are labels."""
    fine = functional.interpolate(logits, truth.shape[1:], mode="bilinear", align_corners=False)
    loss = functional.cross_entropy(fine, truth, ignore_index=UNLABELLED, reduction="sum")
    # A batch without any label has a loss of 0, not of 0 / 0.
    return loss / (truth != UNLABELLED).sum().clamp(min=1)


def _measured(
    head: SegmentationHead,
    store: ActivationStore,
    model: VisionModel,
    *,
    masks: Masks,
    patch_labels: str | Path,
    split: str,
    device: torch.device,
) -> SegmentationTally:
    """What the head says of a split's labelled pictures, counted."""
    by_image = patch_channels(patch_labels, masks.class_ids, head.grid)
    tally = SegmentationTally(head.classes)
    for image_ids, tokens in final_tokens(store, model, split, device, batch_images=16):
        keep = [i for i, image_id in enumerate(image_ids) if int(image_id) in masks]
        if keep:
            labelled = [int(image_ids[i]) for i in keep]
            truth = torch.stack([masks.read(i) for i in labelled])
            tally.add(head(tokens[keep]), torch.stack([by_image[i] for i in labelled]), truth)
    if tally.is_empty:
        raise DataError(f"{masks.index_path}: no patch of split {split!r} is labelled; segmentation needs masks there")
    return tally
