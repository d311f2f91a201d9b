#!/usr/bin/env bash
# Gradients through a frozen batch norm, of tokens that are made of its grid, for one picture and for several.
#
# One would guess: in evaluation mode batch norm is a scale and a shift for each channel, so the gradient of its input is the
# gradient of its output times the scale, whatever the strides of the latter and however many pictures there are.
#
# What happens: on a CPU, where the grid (b, d, rows, columns) goes on as tokens, flatten(2).transpose(1, 2), the gradient that
# comes back has the strides of tokens. For a batch of two or more that makes no difference. For a single picture the
# gradient of the input is wrong by more than its own norm, in float32 and float64, and nothing is said: channels and
# places are mixed up. A copy that is contiguous mends it; so does asking for the gradient in a batch of two.
#
# Why it matters: attributions, saliency and latents chosen by gradient are often computed picture by picture, and tokens
# of convolutional networks are made just so. Vision transformers have layer norm and show nothing of it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6

cat > "$folder/run.py" <<'PYTHON'
import sys

import torch
from torch import nn

print("torch", torch.__version__.split("+")[0], "on cpu")
torch.manual_seed(0)


def error(n_pictures, dtype, copied):
    """Of the gradient of a weighted sum of tokens, relative to the closed form."""
    norm = nn.BatchNorm2d(5, dtype=dtype).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data.uniform_(0.5, 2)
    pictures = torch.randn(n_pictures, 5, 4, 3, dtype=dtype, requires_grad=True)
    weights = torch.randn(n_pictures, 12, 5, dtype=dtype)
    grid = norm(pictures)
    if copied:
        grid.register_hook(torch.Tensor.contiguous)
    tokens = grid.flatten(2).transpose(1, 2)
    (found,) = torch.autograd.grad((tokens * weights).sum(), pictures)
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    exact = scale[:, None, None] * weights.transpose(1, 2).unflatten(2, (4, 3))
    return ((found - exact).norm() / exact.norm()).item()


as_guessed = True
for n_pictures in (1, 2, 8):
    for dtype in (torch.float32, torch.float64):
        plain, copied = error(n_pictures, dtype, False), error(n_pictures, dtype, True)
        print(f"{n_pictures} pictures, {dtype}: relative error {plain:.0e}, with a contiguous gradient {copied:.0e}")
        as_guessed &= copied < 1e-5 and (plain > 0.5 if n_pictures == 1 else plain < 1e-5)
sys.exit(0 if as_guessed else 1)
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
