#!/usr/bin/env bash
# `datasets` 5.2.0: a function of `map` that changes a mask in place changes it or not, depending on how the row holds it.
#
# One would guess: `map` hands a picture of Pillow to the function and stores what the function returns. Class ids that
# `mask.paste(7, box)` writes, and the size that `mask.thumbnail((16, 16))` leaves, are in the new data set.
#
# What happens: that holds for rows that have the picture's bytes, as Parquet shards of the hub do. Of rows that have its path,
# as `imagefolder` and lists of files give them, Pillow's picture remembers the name of its file; after the function it is
# stored as that name again, and nothing of what was done to it. The new data set has the ids and size of before, no error and
# no warning. Functions that return a new picture (`resize`, `convert`, an array) are kept in both cases. The same script is
# therefore right on the hub's copy of a data set and without effect on one's own folders.
#
# Why it matters: unlabelled ids of masks (255) are often taken out so, before an SAE's latents are scored against classes.
# Tested on a shard of the hub, the step works; on one's own files the scores are those of masks that were never changed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pillow==13.0.0 pyarrow==26.0.1 numpy==2.4.6

cat > "$folder/run.py" <<'PYTHON'
import importlib.metadata as metadata
import sys
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

for name in ("datasets", "pillow", "pyarrow"):
    print(name, metadata.version(name))
datasets.disable_progress_bars()
where = Path(sys.argv[1])
ids = np.zeros((64, 64), np.uint8)
ids[32:] = 255
Image.fromarray(ids).save(where / "mask.png")


def pasted(row):
    row["mask"].paste(7, (0, 32, 64, 64))
    return row


def shrunk(row):
    row["mask"].thumbnail((16, 16), Image.Resampling.NEAREST)
    return row


def anew(row):
    return {"mask": Image.fromarray(np.where(np.asarray(row["mask"]) == 255, 7, 0).astype(np.uint8))}


as_mask = datasets.Features({"mask": datasets.Image()})
held = {
    "path": {"path": str(where / "mask.png"), "bytes": None},
    "bytes": {"path": None, "bytes": (where / "mask.png").read_bytes()},
}
found = {}
for how, cell in held.items():
    rows = datasets.Dataset.from_dict({"mask": [cell]}, features=as_mask)
    for change in (pasted, shrunk, anew):
        mask = rows.map(change)[0]["mask"]
        found[how, change.__name__] = mask.size, np.unique(np.asarray(mask)).tolist()
        print(f"held as {how}, {change.__name__}: size and ids {found[how, change.__name__]}")
expected = {
    **{("path", name): ((64, 64), [0, 255]) for name in ("pasted", "shrunk")},
    ("bytes", "pasted"): ((64, 64), [0, 7]),
    ("bytes", "shrunk"): ((16, 16), [0, 255]),
    **{(how, "anew"): ((64, 64), [0, 7]) for how in held},
}
sys.exit(found != expected)
PYTHON
HF_HOME="$folder/home" "$folder/venv/bin/python" "$folder/run.py" "$folder"
