#!/usr/bin/env bash
# Guess: scaling only the box of a picture that a centre crop keeps gives what scaling the whole picture and cutting the
# centre out gives. Pillow's documentation of resize(box=...) describes the box as the part of the picture to be scaled.
#
# What happens: Pillow 13 scales rows first or columns first, whichever is cheaper for that call, and rounds to 8 bits in
# between. A box makes other sizes, so the order can differ from that of the whole picture, and pixels of the same place
# differ by several levels: on noise by more than 10 of 255, on upright pictures that are scaled up. On Pillow 11 both ways
# agree to one level.
#
# Why it matters: a pipeline that fuses "resize, then centre crop" into one call (to save work, or to cut masks and
# pictures alike) feeds a vision transformer other pixels than timm's and open_clip's transforms do, without any change of
# geometry that a test on smooth pictures would see. Activations that are stored by one and compared with the other differ.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 11.3.0 13.0.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet "pillow==$version" numpy==2.3.5
done
cat > "$folder/compare.py" <<'PYTHON'
import sys

import numpy
import PIL
from PIL import Image

# 38 x 112 noise: the shorter side becomes 64, and the centre 64 x 64 is kept.
noise = numpy.random.default_rng(0).integers(0, 256, (112, 38, 3), dtype=numpy.uint8)
picture = Image.fromarray(noise)
whole = picture.resize((64, 188), Image.Resampling.BICUBIC).crop((0, 62, 64, 126))
box = (0, 62 * 112 / 188, 38, 126 * 112 / 188)
fused = picture.resize((64, 64), Image.Resampling.BICUBIC, box=box)
rows_first = picture.resize((38, 64), Image.Resampling.BICUBIC, box=box).resize((64, 64), Image.Resampling.BICUBIC)


def apart(one, other):
    return int(numpy.abs(numpy.asarray(one).astype(int) - numpy.asarray(other).astype(int)).max())


print(f"Pillow {PIL.__version__}, numpy {numpy.__version__}")
print(f"  scaled and cut against scaled by its box: {apart(whole, fused)} of 255 levels")
print(f"  the box's rows first, then its columns, against scaled by its box: {apart(rows_first, fused)} of 255 levels")
sys.exit(0 if (apart(whole, fused) > 10) == (sys.argv[1] == "apart") else 1)
PYTHON
"$folder/11.3.0/bin/python" "$folder/compare.py" alike
"$folder/13.0.0/bin/python" "$folder/compare.py" apart
echo "as the first lines say"
