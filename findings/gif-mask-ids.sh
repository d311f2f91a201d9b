#!/usr/bin/env bash
# One would guess: a mask of class ids (0 to 255, with a palette or as greys) that is saved as GIF keeps its ids, as it does
# in PNG: GIF has no loss.
#
# What happens: Pillow's writer of GIF leaves out colours that a picture does not have and numbers the others anew. Masks of
# greys always, masks with a palette where they have fewer than 512 x 512 pixels. So the ids of one data set depend on the
# size of each picture, and on which classes it shows; nothing says so. With `optimize=False` all ids are kept.
#
# Why it matters: patches are labelled by these ids. Two crops of one scene, or one scene in two sizes, then have other
# classes for the same thing, and a latent's F1, a segmentation head and edits by class are wrong with plausible numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.4.0
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys
from importlib.metadata import version

import numpy as np
from PIL import Image

print("pillow", version("pillow"), "numpy", version("numpy"))
PALETTE = np.random.default_rng(0).integers(1, 255, (21, 3)).astype(np.uint8)  # as many colours as VOC has classes


def read_back(side, kind, **options):
    """Ids 3, 7 and 15 in three bands, written and read."""
    ids = np.repeat(np.array([3, 7, 15], dtype=np.uint8), -(-side // 3))[:side, None].repeat(side, axis=1)
    mask = Image.fromarray(ids)
    if options.pop("palette"):
        mask.putpalette(PALETTE.ravel().tolist())
    buffer = io.BytesIO()
    mask.save(buffer, kind, **options)
    return np.unique(np.asarray(Image.open(buffer))).tolist()


expected = {
    ("GIF", True, 511): [0, 1, 2],
    ("GIF", True, 512): [3, 7, 15],
    ("GIF", False, 511): [0, 1, 2],
    ("GIF", False, 512): [0, 1, 2],
    ("PNG", True, 511): [3, 7, 15],
    ("PNG", False, 511): [3, 7, 15],
}
found = {}
for kind, palette, side in expected:
    found[kind, palette, side] = read_back(side, kind, palette=palette)
    form = "palette" if palette else "greys"
    print(f"{kind}, {form:7}, {side} x {side}: ids 3, 7, 15 become {found[kind, palette, side]}")
kept = read_back(511, "GIF", palette=True, optimize=False)
print(f"GIF, palette, 511 x 511, optimize=False: {kept}")
sys.exit(found != expected or kept != [3, 7, 15])
PYTHON
