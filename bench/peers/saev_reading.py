"""saev's reading of activations, as its training.py builds it: a map-style Dataset behind a shuffling DataLoader.

The shards are the raw float32 files of the benchmark: saev's own format is just that, acts000000.bin, ..., of
(pictures, layers, 1 + patches, d_model), with metadata.json beside them.

`scale_mean` and `scale_norm` are off: they are computed once when the Dataset is made, from half a million single
rows, and have no part in reading batches. `sampler=RandomSampler(dataset, num_samples=...)` is what `shuffle=True`
makes, ended early: an epoch cut off from outside would leave its workers reading batches that nobody takes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import torchvision_operators  # noqa: F401  # before saev, which imports torchvision
from protocol import rows_a_second, serve, settings
from saev import activations, config


def write_metadata(folder: Path, layer: int, shape: list[int], images: int) -> None:
    """Describe shards of `shape` (pictures in a shard, 1 + patches, d_model) as saev's own dump would."""
    images_a_shard, tokens, d_model = shape
    activations.Metadata(
        vit_family="dinov2",
        vit_ckpt="dinov2_vits14",
        layers=(layer,),
        n_patches_per_img=tokens - 1,
        cls_token=True,
        d_vit=d_model,
        seed=42,
        n_imgs=images,
        n_patches_per_shard=images_a_shard * tokens,
        data="made",
    ).dump(str(folder / "metadata.json"))


def main() -> None:
    given = settings()
    torch.set_num_threads(given["threads"])
    folder = Path(given["folder"])
    write_metadata(folder, given["layer"], given["shape"], given["images"])
    training = config.Train()
    print(f"saev's defaults: {training}", file=sys.stderr)

    def repeat(workers: int | None, rows: int) -> dict:
        """Read some rows with that many workers (None: saev's default)."""
        workers = training.n_workers if workers is None else workers
        data = config.DataLoad(shard_root=str(folder), layer=given["layer"], scale_mean=False, scale_norm=False)
        started = time.perf_counter()
        dataset = activations.Dataset(data)
        sampler = torch.utils.data.RandomSampler(dataset, num_samples=rows)
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=given["batch_size"], num_workers=workers, sampler=sampler
        )
        return {**rows_a_second((batch["act"] for batch in loader), rows, started), "workers": workers}

    serve(repeat)


if __name__ == "__main__":
    main()
