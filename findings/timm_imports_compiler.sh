#!/usr/bin/env bash
# What importing timm loads of torch.compile, in a program that compiles nothing.
#
# One would guess: nothing. torch itself takes care to load torch._dynamo on the first call of a function that needs it,
# and timm and torchvision call none of them to be imported.
#
# What happens: `import timm` loads torch._dynamo whole, by two ways, each of which is enough. torchvision.ops.roi_align
# takes one function from torch._dynamo.utils at its top. timm.models.naflexvit decorates a method with
# torch.compiler.disable, which loads torch._dynamo as it decorates, not as the method is called. With both ways closed
# the import loads over 700 modules less, a network is built and run as before, and torch.compile still works afterwards.
# On two cores of an AMD EPYC this was a second of processor time, half of what importing timm beside torch takes.
#
# Why it matters: a workflow whose jobs each build a network pays it in every job, and a command line that only prints
# its help pays it where timm is imported at the top.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchvision==0.28.0 timm==1.0.31

cat > "$folder/run.py" <<'PYTHON'
import functools
import importlib.metadata as metadata
import sys
import types

closed = set(sys.argv[1].split("+"))
import torch

if torch.version.cuda is None:  # torchvision's operators are built for CUDA; their names are enough
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
before = len(sys.modules)
if "torchvision" in closed:
    stand_in = types.ModuleType("torch._dynamo.utils")
    stand_in.is_compile_supported = lambda device: False
    sys.modules[stand_in.__name__] = stand_in
decorator = torch.compiler.disable
if "timm" in closed:
    torch.compiler.disable = lambda function=None, *given, **named: function or (lambda later: later)
import torchvision

if "torchvision" in closed:
    del sys.modules["torch._dynamo.utils"]
import timm

torch.compiler.disable = decorator
loaded, modules = "torch._dynamo" in sys.modules, len(sys.modules) - before
with torch.inference_mode():
    network = timm.create_model("vit_tiny_patch16_224").eval()
    answers = network(torch.zeros(1, 3, 224, 224)).shape[1]
still = "torch._dynamo" in sys.modules
compiled = torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "torchvision", "timm"))
print(f"{versions}; closed: {sys.argv[1]}", file=sys.stderr)
print(loaded, still, answers, compiled, modules)
PYTHON

said() { "$folder/venv/bin/python" -W ignore "$folder/run.py" "$1"; }
none=$(said none) && one=$(said torchvision) && other=$(said timm) && both=$(said torchvision+timm)
printf 'torch._dynamo loaded by the import, after a forward pass; classes; torch.compile works; modules\n'
printf '%-22s %s\n' "as it is" "$none" "without torchvision's" "$one" "without timm's" "$other" "without both" "$both"
[[ ${none% *} == "True True 1000 True" && ${one% *} == "${none% *}" && ${other% *} == "${none% *}" ]]
[[ ${both% *} == "False False 1000 True" && $((${none##* } - ${both##* })) -gt 700 ]]
