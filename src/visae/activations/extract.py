"""One forward pass over a shard's pictures writes every layer that is still missing."""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from visae.activations.schema import DTYPES, ShardHeader, ShardRecord, shard_name
from visae.activations.store import image_ranges, write_manifest
from visae.activations.writer import BackgroundWriter, ShardWriter
from visae.config.settings import ModelSettings
from visae.data.images import pixels
from visae.data.index import read_index
from visae.device import chosen_device, described
from visae.errors import DataError, StoreError
from visae.files import file_sha256, text_sha256, write_json
from visae.progress import progress_bar
from visae.provenance import Provenance, code_fingerprint
from visae.vision.model import ModelCard, VisionTransformer, load_model

logger = logging.getLogger(__name__)


def extract_shard(
    settings: ModelSettings,
    shard: int,
    shards: int,
    layer: int,
    others: list[int],
    index_path: Path,
    card_path: Path,
    receipt: Path,
    device: str = "auto",
) -> None:
    """Write one shard's activations of a layer, and of the other layers that are missing, in one forward pass.

    A shard that is whole and was made from the same things stays. Shards go to `layer{layer}/`, of which
    the receipt's folder is one.

    Parameters
    ----------
    settings
        The model's section: dtype, batch size, decoding processes.
    shard, shards
        Which of how many.
    layer
        The block that the receipt is for, counted from 0.
    others
        Blocks that will be asked for next.
    index_path, card_path
        The data set's index.parquet and the model's model.json.
    receipt
        JSON to write at the end: the shard's record.
    device
        auto, cpu or cuda.

    Raises
    ------
    ModelError
        If the model has no such layer.
    StoreError
        If an activation is not finite, or the disk has too few bytes left.
    """
    card = ModelCard.read(card_path)
    layers = sorted({layer, *others})
    for one in layers:
        card.check_layer(one, "studies: layer")
    index = read_index(index_path)
    # A shard without pictures (more shards than pictures) has a receipt and no files.
    first, stop = next(((a, b) for number, a, b in image_ranges(index.height, shards) if number == shard), (0, 0))
    headers = {one: _header(settings, card, index_path, one, first, stop - first) for one in layers}
    paths = {one: receipt.parent.parent / f"layer{one}" / shard_name(shard) for one in layers}
    record = ShardRecord.read_whole(paths[layer], headers[layer].fingerprint)
    if record is not None:
        logger.info("shard %d of layer %d is whole already", shard, layer)
    elif stop > first:
        missing = [one for one in layers if not ShardRecord.read_whole(paths[one], headers[one].fingerprint)]
        _refuse_full_disk(receipt.parent.parent, [headers[one] for one in missing])
        model = load_model(card_path, chosen_device(device))
        pictures = index["path"].to_list()[first:stop]
        _forward(model, settings, pictures, {one: headers[one] for one in missing}, paths)
        record = ShardRecord.read_whole(paths[layer], headers[layer].fingerprint)
    write_json(receipt, asdict(record) if record else {})


def publish_store(
    settings: ModelSettings, layer: int, shards: int, index_path: Path, card_path: Path, manifest: Path, device: str
) -> None:
    """Check one layer's shards against their records and write the manifest that later stages depend on.

    Raises
    ------
    StoreError
        If a shard is missing or was made from something else.
    """
    card = ModelCard.read(card_path)
    index = read_index(index_path)
    provenance = Provenance(settings, [index_path, card_path], 0, described(chosen_device(device)))
    records = []
    for shard, first, stop in image_ranges(index.height, shards):
        header = _header(settings, card, index_path, layer, first, stop - first)
        path = manifest.parent / shard_name(shard)
        record = ShardRecord.read_whole(path, header.fingerprint)
        if record is None:
            raise StoreError(
                f"{path} is missing or was made from other pictures, weights or settings; delete "
                f"{manifest.parent / f'receipt-{shard}.json'} and run snakemake again"
            )
        records.append(record)
    splits = {}
    for split in index["split"].unique(maintain_order=True):
        ids = index.filter(index["split"] == split)["image_id"]
        splits[split] = (ids[0], ids[-1] + 1)
    write_manifest(
        manifest.parent,
        header,
        records,
        splits,
        index_sha256=file_sha256(index_path),
        model=asdict(card),
        provenance=provenance.record(),
    )


def _header(
    settings: ModelSettings, card: ModelCard, index_path: Path, layer: int, first: int, n_images: int
) -> ShardHeader:
    """Header of a shard; its fingerprint covers all that decides the values."""
    made_from = {
        "index": file_sha256(index_path),
        "model": asdict(card),
        "layer": layer,
        "dtype": settings.dtype,
        "images": [first, n_images],
        "code": [code_fingerprint("visae.vision.model"), code_fingerprint("visae.data.images")],
    }
    return ShardHeader(
        fingerprint=text_sha256(json.dumps(made_from, sort_keys=True)),
        layer=layer,
        d_model=card.d_model,
        dtype=settings.dtype,
        tokens=tuple(card.tokens),
        grid=card.grid,
        first_image=first,
        n_images=n_images,
    )


def _row_bytes(header: ShardHeader) -> int:
    """Bytes of a row: its activation, image_id and token."""
    return header.d_model * DTYPES[header.dtype].itemsize + 4 + 2


def _refuse_full_disk(folder: Path, headers: list[ShardHeader]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(_row_bytes(header) * len(header.tokens) * header.n_images for header in headers)
    free = shutil.disk_usage(folder).free
    logger.info("activations to write: %.1f MB; free: %.1f MB", needed / 1e6, free / 1e6)
    if needed > free:
        raise StoreError(
            f"{folder}: {needed / 1e9:.2f} GB of activations are to be written and {free / 1e9:.2f} GB are free; "
            "free some space, or set `results:` to another disk"
        )


class _Pictures(Dataset):
    """Decoded pictures, in index order."""

    def __init__(self, paths: list[str], card: ModelCard) -> None:
        self.paths, self.card = paths, card

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int) -> torch.Tensor:
        try:
            return pixels(self.paths[item], self.card)
        except DataError as error:
            raise DataError(f"{error}; it could be read when the data set was indexed: index it again") from error


def _forward(
    model: VisionTransformer,
    settings: ModelSettings,
    pictures: list[str],
    headers: dict[int, ShardHeader],
    paths: dict[int, Path],
) -> None:
    device = next(model.parameters()).device
    loader = DataLoader(
        _Pictures(pictures, model.card),
        batch_size=settings.batch_size,
        num_workers=settings.workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if settings.workers else None,
    )
    layers = sorted(headers)
    logger.info("forward pass on %s, layers %s", described(device), layers)
    bytes_a_picture = sum(
        header.d_model * DTYPES[header.dtype].itemsize * len(header.tokens) for header in headers.values()
    )
    with ExitStack() as stack:
        writers = {layer: stack.enter_context(ShardWriter(paths[layer], headers[layer])) for layer in layers}
        background = BackgroundWriter(writers)
        bar = stack.enter_context(progress_bar(len(pictures), "activations", "images"))
        try:
            for batch in loader:
                background.add(model.read_layers(batch.to(device, non_blocking=True), layers))
                bar.update(len(batch))
                seconds = max(bar.format_dict["elapsed"], 1e-9)
                bar.set_postfix_str(f"{bar.n * bytes_a_picture / seconds / 1e6:.1f} MB/s")
        finally:
            background.close()
