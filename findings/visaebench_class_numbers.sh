#!/usr/bin/env bash
# One would guess: numbers of classes are names. Adding 1 to each of them, or taking 20 classes of ImageNet out of the middle
# of its list, changes no accuracy.
#
# What happens: visaebench's downstream_preservation and sparse_probing split pictures by class, evenly, only where the
# smallest entry of bincount(labels) is 2 or more. Labels that do not start at 0, or that leave a number out, have an entry
# of 0 there, and the split is drawn without regard to classes, without a word. The same pictures and the same seed then
# give other values.
#
# Why it matters: whoever evaluates on a part of ImageNet keeps its class numbers. With few pictures a class some classes
# are then not tested at all and others not learned, and two people who measured the same SAE on the same pictures
# disagree because one of them counted classes from 1.
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

import torch

if torch.version.cuda is None:  # torchvision of PyPI beside a CPU build of torch looks for these two
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import visaebench

CLASSES, EACH, PATCHES, D, WIDTH = 20, 5, 4, 32, 200
METRICS = ["downstream_preservation", "sparse_probing"]


class Sae:
    """Random directions and their positive parts."""

    def __init__(self):
        rows = torch.randn(WIDTH, D, generator=torch.Generator().manual_seed(1))
        self.rows = torch.nn.functional.normalize(rows, dim=1)

    def encode(self, x):
        return (x @ self.rows.T - 1).relu()

    def decode(self, z):
        return z @ self.rows * D / WIDTH


def values(labels):
    more = {"metrics": METRICS, "ood_datasets": {}, "grid_size": (2, 2), "device": "cpu", "seed": 42}
    with contextlib.redirect_stdout(io.StringIO()):
        found = visaebench.evaluate(Sae(), activations=activations, labels=labels.numpy(), **more)
    return {result.name: round(result.value, 4) for result in found}


names = ("visaebench", "torch", "scikit-learn")
print({name: importlib.metadata.version(name) for name in names})
generator = torch.Generator().manual_seed(0)
labels = torch.arange(CLASSES).repeat(EACH)
centres = torch.randn(CLASSES, 1, D, generator=generator)
activations = centres[labels] + 1.5 * torch.randn(len(labels), PATCHES, D, generator=generator)
counted = {"from 0": values(labels), "from 1": values(labels + 1), "from 200, as ImageNet's": values(labels + 200)}
again = values(labels)
for name, found in counted.items():
    print(f"classes counted {name}: {found}")
assert len(counted["from 0"]) == 2
assert again == counted["from 0"], "not even the same labels give the same values"
assert counted["from 1"] == counted["from 200, as ImageNet's"]
assert all(counted["from 0"][name] != counted["from 1"][name] for name in counted["from 0"]), "class numbers are names now"
print("As described: the same pictures, seed and classes, other values.")
PY
OMP_NUM_THREADS=1 "$work/env/bin/python" run.py 2> errors.txt || { tail -5 errors.txt; exit 1; }
