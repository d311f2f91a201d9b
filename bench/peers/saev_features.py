"""saev's own description of latents: dump_activations of its visuals.py up to where it saves, on given activations.

It computes mean values, sparsity, an estimate of the 99th percentile and the top 128 pictures of each latent, its
default. The SAE is the benchmark's: unit rows and one bias, 32 latents active a patch. Prints its seconds and its
peak memory as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
import torchvision_operators  # noqa: F401  # before saev, which imports torchvision
from saev import config, nn, visuals
from saev_reading import write_metadata

WIDTH, PATCHES, D_MODEL, LAYER = 6144, 256, 384, 0
BIAS = -2.561


def main() -> None:
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    folder, images = Path(given["folder"]), given["images"]
    write_metadata(folder, LAYER, [images, 1 + PATCHES, D_MODEL], images)
    sae = nn.SparseAutoencoder(config.SparseAutoencoder(d_vit=D_MODEL, exp_factor=WIDTH // D_MODEL))
    with torch.no_grad():
        rows = torch.nn.functional.normalize(torch.randn(WIDTH, D_MODEL))
        sae.W_enc.copy_(rows.T)
        sae.W_dec.copy_(rows)
        sae.b_enc.fill_(BIAS)
    nn.dump(str(folder / "sae.pt"), sae)
    data = config.DataLoad(shard_root=str(folder), layer=LAYER, scale_mean=False, scale_norm=False)
    # One batch of its default size; workers would only wait for each other on so little.
    chosen = config.Visuals(ckpt=str(folder / "sae.pt"), data=data, device="cpu", n_workers=0, dump_to=str(folder))
    started = time.perf_counter()
    found = visuals.get_topk_patch(chosen)
    seconds = time.perf_counter() - started
    assert found.top_values.shape == (WIDTH, chosen.top_k, PATCHES)
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    found = {
        "seconds": seconds,
        "megabytes": int(line.split()[1]) / 1e3,
        "patches_a_second": images * PATCHES / seconds,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
