#!/usr/bin/env bash
# Guess: what timm's forward_intermediates returns for a stage is what the network goes on from, so that putting it back at
# the module that timm's own feature_info names for it, while another picture runs, gives the first picture's result.
#
# What happens: for the pre-activation Xceptions (xception41p, xception65p) the module is the last convolution inside a
# block, before the block's shortcut is added. The features are one branch of the stage; the shortcut still carries the
# other picture past it, and the result is off by about half of its largest value. For ResNet the guess holds.
#
# Why it matters: dictionaries that are trained on such features decompose a branch and not the stream, and an edit of
# them leaves the shortcut as it was; its effect is then measured too small, though every shape and hook is in order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchvision==0.28.0 timm==1.0.31
cat > "$folder/resume.py" <<'PYTHON'
import sys

import torch

if torch.version.cuda is None:  # a torchvision for CUDA beside a torch for the CPU looks for two operators
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                     "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"):
        library.define(operator)
import timm

print(f"timm {timm.__version__}, torch {torch.__version__}")


@torch.no_grad()
def put_back(name):
    """How far a pass ends from the first picture's when a stage's features are put back under another picture."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    first, other = torch.randn(2, 1, 3, 96, 96)
    whole, off = model.forward_features(first), {}
    features = model.forward_intermediates(first, intermediates_only=True)
    for entry, known in list(zip(model.feature_info, features, strict=True))[1:-1]:
        hook = model.get_submodule(entry["module"]).register_forward_hook(lambda _m, _i, _o, known=known: known)
        off[entry["module"]] = float((model.forward_features(other) - whole).abs().max() / whole.abs().max())
        hook.remove()
    for module, value in off.items():
        print(f"  {name} {module}: off by {value:.2g} of the largest value")
    return off.values()


holds = max(put_back("resnet18")) < 1e-4
fails = min(put_back("xception41p")) > 0.1
sys.exit(0 if holds and fails else 1)
PYTHON
"$folder/venv/bin/python" "$folder/resume.py"
echo "as the first lines say"
