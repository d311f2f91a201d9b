"""Imported before torchvision: PyPI's, beside a torch for CPUs only, needs these operators declared."""

import torch

if not torch.version.cuda:
    declared = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        declared.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
