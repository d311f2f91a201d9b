#!/usr/bin/env bash
# One would guess: visaebench's fvu, documented as Var(x - x') / Var(x), is never below 0, does not change when one constant
# is added to the activations and to what the SAE gives, and is the same for activations in a tensor and in a file of them.
#
# What happens: an SAE that is wrong by 1 in every value of 64 dimensions has an fvu of about -63, that is an explained
# variance of about 64. With 5 added to all values on either side it is infinite, for any error. The reason: the sum
# over all dimensions of a token is squared as if it were the mean of one value. And one tensor of (pictures, patches,
# dimensions) gives another number than the same tensor in a file, because pictures are then counted as tokens.
#
# Why it matters: raw activations of vision transformers have means far from 0, and errors of SAEs do too. A table of
# fvu then ranks SAEs by the mean of their error, and an SAE that is off by a constant looks better than a perfect one.
# cross_domain, where activations are centred by another data set's mean, takes the same number, cut to between 0 and 1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet torch==2.13.0 torchvision==0.28.0 timm==1.0.31 transformers==5.24.0 scikit-learn==1.9.1
"$work/env/bin/pip" install --quiet --no-deps visaebench==0.1.0
cd "$work"
cat > run.py <<'PY'
import contextlib
import importlib.metadata
import io
import math

import torch

if torch.version.cuda is None:  # torchvision of PyPI beside a CPU build of torch looks for these two
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import visaebench

PICTURES, PATCHES, D = 200, 16, 64


class Off:
    """Gives back its input, wrong by a constant or by a share."""

    def __init__(self, by=0.0, times=1.0):
        self.by, self.times = by, times

    def encode(self, x):
        return x

    def decode(self, z):
        return self.times * z + self.by


def fvu(sae, given):
    more = {"metrics": ["fvu"], "ood_datasets": {}, "grid_size": (4, 4), "device": "cpu"}
    with contextlib.redirect_stdout(io.StringIO()):
        found = visaebench.evaluate(sae, activations=given, **more)
    return {result.name: result for result in found}["fvu"]


def in_file(x):
    torch.save(x, "shard.pt")
    return ["shard.pt"]


names = ("visaebench", "torch", "scikit-learn")
print({name: importlib.metadata.version(name) for name in names})
x = torch.randn(PICTURES, PATCHES, D, generator=torch.Generator().manual_seed(0))
x -= x.mean()
perfect, wrong, half = Off(), Off(by=1.0), Off(times=0.5)
values = {
    "perfect": fvu(perfect, in_file(x)).value,
    "wrong by 1 everywhere": fvu(wrong, in_file(x)).value,
    "half of everything": fvu(half, in_file(x)).value,
    "half of everything, all values 5 larger": fvu(Off(by=2.5, times=0.5), in_file(x + 5)).value,
    "wrong by 1 everywhere, in a tensor": fvu(wrong, x).value,
}
for name, value in values.items():
    print(f"fvu, {name}: {value:.3f}")
explained = fvu(wrong, in_file(x)).metadata["explained_variance"]
print(f"explained variance, wrong by 1 everywhere: {explained:.3f}")
right = float(torch.ones_like(x).square().sum() / (x - x.mean(dim=(0, 1))).square().sum())
print(f"squared error over squared deviation from the mean, wrong by 1 everywhere: {right:.3f}")
assert abs(values["half of everything"] - 0.25) < 1e-3, "where nothing has a mean it is right"
assert values["wrong by 1 everywhere"] < values["perfect"] == 0, "fvu is no longer below 0"
assert explained > 1
assert math.isinf(values["half of everything, all values 5 larger"]), "a constant on both sides changes nothing now"
one, other = values["wrong by 1 everywhere"], values["wrong by 1 everywhere, in a tensor"]
assert abs(one - other) > 0.5, "a tensor and a file give the same now"
print("As described.")
PY
OMP_NUM_THREADS=1 "$work/env/bin/python" run.py 2> errors.txt || { tail -5 errors.txt; exit 1; }
