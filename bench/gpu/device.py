"""The device itself, whether sparse gradients on it are right, and the tests that are marked for it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from xml.etree import ElementTree

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.gpu.report import Report
from bench.gpu.sizes import Size
from bench.harness import FOLDER, Target, measurement
from visae.sae.variants.relu import Relu
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Step, Weights

# Float32 sums of a few thousand products.
AS_DENSE = Target("value", "<=", 1e-4)
NONE = Target("value", "<=", 0)
L1 = 0.02


def waited(device: str) -> None:
    """Return when the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(device: str, work: Callable[[], object]) -> float:
    """How long work takes on a device."""
    waited(device)
    started = time.perf_counter()
    work()
    waited(device)
    return time.perf_counter() - started


# --- environment ---------------------------------------------------------------------------------


def environment(size: Size, report: Report) -> None:
    """Name the device and what software there is, and time its products."""
    packages = ("timm", "torchvision", "numpy", "polars", "triton", "eai-sparsify", "dictionary-learning")
    known = ", ".join(f"{name} {_version(name)}" for name in packages)
    print(f"torch {torch.__version__}, {known}", flush=True)
    software = f"torch {torch.__version__}, {known}"
    if size.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        report.add(measurement(f"environment: {properties.name}, memory", properties.total_memory / 1e9, "GB"))
        software = f"driver {_driver()}, {software}"
    report.add(measurement(f"environment: {software}; threads", torch.get_num_threads(), "threads"))
    for dtype in (torch.bfloat16, torch.float32):
        left, right = torch.randn(2, size.square, size.square, device=size.device).to(dtype)
        left @ right
        taken = min(seconds(size.device, lambda left=left, right=right: left @ right) for _ in range(size.repetitions))
        name = f"environment: {str(dtype).removeprefix('torch.')} product of {size.square} squared"
        report.add(measurement(name, 2 * size.square**3 / taken / 1e12, "TFLOP/s"))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip() or "unknown"
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


# --- gradients -----------------------------------------------------------------------------------


def gradients(size: Size, report: Report) -> None:
    """Relative difference of a step's gradients, float32, from autograd's through dense codes in float64."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(size.batch, size.d_model, generator=generator).to(size.device)
    decoder = normalize(torch.randn(size.width, size.d_model, generator=generator)).to(size.device)
    # ReLU latents then are active on one token in fifty or so.
    for name, variant, bias in (("topk", TopK(size.k), 0.0), ("relu", Relu(L1, 0), -2.0)):
        encoder_bias = torch.full((size.width,), bias, device=size.device)
        weights = Weights(decoder.clone(), encoder_bias, decoder, torch.zeros(size.d_model, device=size.device))
        nobody = torch.zeros(size.width, dtype=torch.bool, device=size.device)
        taken = seconds(size.device, lambda v=variant, w=weights, dead=nobody: v.step(w, inputs, 0, dead))
        print(f"{name}: first step {taken:.1f} s, which compiles", flush=True)
        step = variant.step(weights, inputs, 0, nobody)
        expected = _dense_gradients(weights, inputs, step, L1 if name == "relu" else 0.0)
        for field, found, right in zip(Weights._fields, step.gradients, expected, strict=True):
            off = float((found - right).norm() / right.norm().clamp(min=1e-30))
            row = f"gradients: {name}, {field.replace('_', ' ')}, relative difference from dense autograd"
            report.add(measurement(row, off, "", None, AS_DENSE))


def _dense_gradients(weights: Weights, inputs: Tensor, step: Step, l1: float) -> tuple[Tensor, ...]:
    """Autograd's, in float64, with the codes' places given."""
    leaves = Weights(*(weight.double().requires_grad_() for weight in weights))
    active = step.codes.dense() > 0
    codes = (inputs.double() @ leaves.encoder.T + leaves.encoder_bias) * active
    error = codes @ leaves.decoder + leaves.decoder_bias - inputs
    (error.square().mean() + l1 * codes.sum(1).mean()).backward()
    return tuple(leaf.grad.float() for leaf in leaves)


# --- tests ---------------------------------------------------------------------------------------


def tests(size: Size, report: Report) -> None:
    """Run the tests marked `gpu`; a row for each that fails. Without a GPU all are skipped."""
    folder = FOLDER.parent / "tests" / "unit"
    files = [path for path in sorted(folder.glob("test_*.py")) if re.search(r"mark\.gpu\b", path.read_text())]
    results = size.scratch / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={results}"]
    subprocess.run([*command, *files], cwd=FOLDER.parent)
    cases = list(ElementTree.parse(results).iter("testcase"))
    skipped = [case for case in cases if case.find("skipped") is not None]
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    report.add(
        measurement("tests: passed", len(cases) - len(skipped) - len(failed), "tests"),
        measurement("tests: skipped", len(skipped), "tests"),
        measurement("tests: failed", len(failed), "tests", None, NONE),
        *(measurement(f"tests: {case.get('classname')}, {case.get('name')}", 1, "failed") for case in failed),
    )
