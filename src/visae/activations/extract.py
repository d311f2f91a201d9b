"""One forward pass over a shard's pictures writes every hook point that is still missing."""

from __future__ import annotations

import json
import logging
import os
import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from visae.activations.manifest import image_ranges, write_manifest
from visae.activations.schema import ShardHeader, ShardRecord, TokenChoice, shard_name
from visae.activations.writer import BackgroundWriter, ShardWriter
from visae.config.settings import ModelSettings
from visae.data.images import pixels
from visae.data.index import read_index
from visae.device import chosen_device, described
from visae.errors import DataError, StoreError
from visae.files import file_sha256, text_sha256, write_json
from visae.progress import progress_bar
from visae.provenance import Provenance, code_fingerprint
from visae.vision.model import HookPoint, ModelCard, VisionModel, load_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreSource:
    """What stores of all layers of a model are made from.

    Attributes
    ----------
    index_path, card_path
        The data set's index.parquet and the model's model.json.
    shards
        In how many parts.
    tokens_per_image
        Patches kept of each picture; all without it.
    token_seed
        Decides which.
    """

    index_path: Path
    card_path: Path
    shards: int
    tokens_per_image: int | None = None
    token_seed: int = 0


def extract_shard(
    settings: ModelSettings,
    source: StoreSource,
    shard: int,
    layer: str,
    others: list[str],
    receipt: Path,
    device: str = "auto",
    edited: list[str] | None = None,
) -> None:
    """Write one shard's activations of a layer, and of the other layers that are missing, in one forward pass.

    A shard that is whole and was made from the same things stays. Shards go to `layer{layer}/`, of which
    the receipt's folder is one.

    Parameters
    ----------
    settings
        The model's section: dtype, batch size, decoding processes.
    source
        What it is made from.
    shard
        Which of `source.shards`.
    layer
        The block that the receipt is for, counted from 0; with a hook as `10-attention`.
    others
        Blocks that will be asked for next.
    receipt
        JSON to write at the end: the shard's record.
    device
        auto, cpu or cuda.
    edited
        Layers whose patches will be edited.

    Raises
    ------
    ModelError
        If the model has no such layer, or it cannot be read or edited.
    StoreError
        If an activation is not finite, or the disk has too few bytes left.
    """
    card = ModelCard.read(source.card_path)
    wanted = HookPoint.parse(layer)
    points = sorted({wanted, *map(HookPoint.parse, others)})
    card.check_uses([*map(str, points)], edited or [])
    index = read_index(source.index_path)
    # A shard without pictures (more shards than pictures) has a receipt and no files.
    first, stop = next(
        ((a, b) for number, a, b in image_ranges(index.height, source.shards) if number == shard), (0, 0)
    )
    store = _Made(settings, card, source)
    headers = {point: store.header(point, first, stop - first) for point in points}
    paths = {point: receipt.parent.parent / f"layer{point}" / shard_name(shard) for point in points}
    record = ShardRecord.read_whole(paths[wanted], headers[wanted].fingerprint)
    if record is not None:
        logger.info("shard %d of layer %s is whole already", shard, wanted)
    elif stop > first:
        missing = [point for point in points if not ShardRecord.read_whole(paths[point], headers[point].fingerprint)]
        _refuse_full_disk(receipt.parent.parent, [headers[point] for point in missing])
        model = load_model(source.card_path, chosen_device(device))
        pictures = index["path"][first:stop]
        del index  # of a large data set it is hundreds of MB, which decoding processes would inherit
        _forward(model, settings, pictures, {point: headers[point] for point in missing}, paths)
        record = ShardRecord.read_whole(paths[wanted], headers[wanted].fingerprint)
    write_json(receipt, asdict(record) if record else {})


def publish_store(
    settings: ModelSettings,
    source: StoreSource,
    layer: str,
    manifest: Path,
    device: str = "auto",
) -> None:
    """Check one layer's shards against their records and write the manifest that later stages depend on.

    Raises
    ------
    StoreError
        If a shard is missing or was made from something else.
    """
    card, point = ModelCard.read(source.card_path), HookPoint.parse(layer)
    index = read_index(source.index_path)
    provenance = Provenance(settings, [source.index_path, source.card_path], 0, described(chosen_device(device)))
    store = _Made(settings, card, source)
    records = []
    for shard, first, stop in image_ranges(index.height, source.shards):
        header = store.header(point, first, stop - first)
        path = manifest.parent / shard_name(shard)
        record = ShardRecord.read_whole(path, header.fingerprint)
        if record is None:
            raise StoreError(
                f"{path} is missing or was made from other pictures, weights or settings; delete "
                f"{manifest.parent / f'receipt-{shard}.json'} and run snakemake again"
            )
        records.append(record)
    bounds = index.group_by("split", maintain_order=True).agg(
        first=pl.col("image_id").min(), stop=pl.col("image_id").max() + 1
    )
    write_manifest(
        manifest.parent,
        header,
        records,
        {split: (first, stop) for split, first, stop in bounds.iter_rows()},
        index_sha256=file_sha256(source.index_path),
        model=asdict(card),
        provenance=provenance.record(),
    )


class _Made:
    """What a store's shards share, and the headers that follow from it."""

    def __init__(self, settings: ModelSettings, card: ModelCard, source: StoreSource) -> None:
        self.settings, self.card, self.source = settings, card, source
        self.index_sha256 = file_sha256(source.index_path)

    def header(self, point: HookPoint, first: int, n_images: int) -> ShardHeader:
        """Header of a shard; its fingerprint covers all that decides the values."""
        shape = self.card.layers[point.layer]
        choice = TokenChoice(tuple(self.card.tokens(point.layer)), self.source.tokens_per_image, self.source.token_seed)
        made_from = {
            "index": self.index_sha256,
            "model": asdict(self.card),
            "point": str(point),
            "choice": asdict(choice),
            "dtype": self.settings.dtype,
            "images": [first, n_images],
            "code": [code_fingerprint("visae.vision.model"), code_fingerprint("visae.data.images")],
        }
        return ShardHeader(
            fingerprint=text_sha256(json.dumps(made_from, sort_keys=True)),
            layer=point.layer,
            hook=point.hook,
            d_model=shape.d_model,
            dtype=self.settings.dtype,
            choice=choice,
            grid=shape.grid,
            first_image=first,
            n_images=n_images,
        )


def _refuse_full_disk(folder: Path, headers: list[ShardHeader]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(header.n_bytes for header in headers)
    free = shutil.disk_usage(folder).free
    logger.info("activations to write: %.1f MB; free: %.1f MB", needed / 1e6, free / 1e6)
    if needed > free:
        raise StoreError(
            f"{folder}: {needed / 1e6:.1f} MB of activations are to be written and {free / 1e6:.1f} MB are free; "
            "free some space, or set `results:` to another disk"
        )


class _Pictures(Dataset):
    """Decoded pictures, in index order."""

    def __init__(self, paths: pl.Series, card: ModelCard) -> None:
        self.paths, self.card = paths, card

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int) -> torch.Tensor:
        try:
            return pixels(self.paths[item], self.card)
        except DataError as error:
            raise DataError(f"{error}; it could be read when the data set was indexed: index it again") from error


def _forward(
    model: VisionModel,
    settings: ModelSettings,
    pictures: pl.Series,
    headers: dict[HookPoint, ShardHeader],
    paths: dict[HookPoint, Path],
) -> None:
    device = next(model.parameters()).device
    workers = settings.workers
    if workers is None:
        workers = 1 if device.type == "cpu" else max(1, len(os.sched_getaffinity(0)) - 1)
    loader = DataLoader(
        _Pictures(pictures, model.card),
        batch_size=settings.batch_size,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
    )
    points = sorted(headers)
    logger.info(
        "forward pass in %s on %s, layers %s", model.card.precision, described(device), ", ".join(map(str, points))
    )
    next_image = headers[points[0]].first_image
    with ExitStack() as stack:
        writers = {
            point: stack.enter_context(ShardWriter(paths[point], header, pictures.__getitem__))
            for point, header in sorted(headers.items())
        }
        background = BackgroundWriter(writers)
        bar = stack.enter_context(_ByteBar(len(pictures), sum(header.n_bytes for header in headers.values())))
        try:
            for batch in loader:
                tokens = model.read(batch.to(device, non_blocking=True), points)
                images = range(next_image, next_image + len(batch))
                background.add({point: _kept(tokens[point], headers[point].choice, images) for point in points})
                next_image = images.stop
                bar.update(len(batch))
        finally:
            background.close()


def _kept(tokens: torch.Tensor, choice: TokenChoice, images: range) -> torch.Tensor:
    """Of tokens (n_images, n_tokens, d_model) those that are stored."""
    if choice.is_whole:
        return tokens
    positions = torch.from_numpy(choice.positions(images)).to(tokens.device)
    return tokens.take_along_dim(positions.unsqueeze(2), dim=1)


class _ByteBar:
    """Progress in pictures and bytes: how many a second, how many are to come, and when it ends."""

    def __init__(self, n_images: int, n_bytes: int) -> None:
        self.bar = progress_bar(n_images, "activations", "images")
        self.bytes_an_image = n_bytes / max(1, n_images)

    def __enter__(self) -> _ByteBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, n_images: int) -> None:
        """Count pictures that went through the model."""
        self.bar.update(n_images)
        rate = self.bar.n / max(self.bar.format_dict["elapsed"], 1e-9)
        to_come = tqdm.format_sizeof((self.bar.total - self.bar.n) * self.bytes_an_image, "B")
        self.bar.set_postfix_str(f"{rate * self.bytes_an_image / 1e6:.1f} MB/s, {to_come} to come")
