"""How many atoms of a known dictionary come back as decoder rows: for every variant, simple baselines and no training.

Tokens are sums of a few of the atoms, so the truth is known. Atoms, tokens and initial weights have seeds of their own:
weights that share the atoms' seed would start out as the atoms. Variants with a `k` are given the true number of atoms
in a token; the penalties of the others are steered to it while they train.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from quality_protocol import Steering
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize
from trainee import Trainee

from bench.harness import FOLDER, Measurement, Target, measurement
from bench.quality.runs import KeptRuns, own_code
from visae.config import settings as sections
from visae.files import file_sha256
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.initial import initial_sae
from visae.sae.run import TrainingRun

ATOM_SEED, TOKEN_SEED, WEIGHT_SEED = 11, 12, 13
FOUND_ABOVE = 0.9
_SCRIPTS = (FOLDER / "quality" / "planted.py", FOLDER / "peers" / "quality_protocol.py")
NEARLY_ALL = Target("value", ">=", 0.97)
# Steps between two looks at the number of codes.
LOOK_EVERY = 5


@dataclass(frozen=True)
class Planted:
    """A dictionary and how tokens are made of it."""

    atoms: int = 2000
    d_model: int = 384
    active: int = 20
    noise: float = 0.05
    expansion: float = 4096 / 384
    batch_size: int = 2048
    steps: int = 2000

    @property
    def width(self) -> int:
        """Number of latents."""
        return round(self.expansion * self.d_model)


def dictionary(planted: Planted) -> Tensor:
    """Random unit atoms (atoms, d_model)."""
    generator = torch.Generator().manual_seed(ATOM_SEED)
    return normalize(torch.randn(planted.atoms, planted.d_model, generator=generator))


def tokens(planted: Planted, atoms: Tensor, number: int, count: int) -> Tensor:
    """Batch `number` of tokens (count, d_model).

    Each is the sum of `active` different atoms with values from 0.5 to 1.5, and noise of `noise` times its norm.
    """
    generator = torch.Generator().manual_seed(TOKEN_SEED + 1000 * number)
    chosen = torch.randint(planted.atoms, (count, planted.active), generator=generator)
    while len(twice := (chosen.sort(1).values.diff(dim=1) == 0).any(1).nonzero()[:, 0]):
        chosen[twice] = torch.randint(planted.atoms, (len(twice), planted.active), generator=generator)
    values = 0.5 + torch.rand(chosen.shape, generator=generator)
    clean = embedding_bag(chosen, atoms, mode="sum", per_sample_weights=values)
    noise = normalize(torch.randn(clean.shape, generator=generator))
    return clean + planted.noise * clean.norm(dim=1, keepdim=True) * noise


def recovered(rows: Tensor, atoms: Tensor) -> float:
    """Share of the atoms (m, d) to which some row (n, d) has a cosine above FOUND_ABOVE."""
    return float(((normalize(rows) @ normalize(atoms).T).max(0).values > FOUND_ABOVE).double().mean())


def settings(variant: str, planted: Planted) -> sections.AnySae:
    """Visae's defaults for a variant, with the true number of codes a token where that is a setting."""
    shape = {"expansion": planted.expansion, "steps": planted.steps, "batch_size": planted.batch_size}
    fixed: dict[str, Any] = {f"{PENALTIES[variant]}_warmup_steps": 0} if variant in PENALTIES else {"k": planted.active}
    return VARIANTS[variant](variant=variant, **shape, **fixed)


VARIANTS: dict[str, Callable[..., sections.AnySae]] = {
    "topk": sections.TopKSettings,
    "batchtopk": sections.BatchTopKSettings,
    "relu": sections.ReluSettings,
    "jumprelu": sections.JumpReluSettings,
    "gated": sections.GatedSettings,
    "matryoshka": sections.MatryoshkaSettings,
    "archetypal": sections.ArchetypalSettings,
}
# What weighs the penalty of variants without a k.
PENALTIES = {"relu": "l1", "jumprelu": "sparsity", "gated": "l1"}


def trained(variant: str, planted: Planted, steps: int) -> dict[str, float]:
    """Share of atoms found by a variant after some steps (0: untrained), codes a token and error on new tokens."""
    atoms = dictionary(planted)
    made = settings(variant, planted)
    sample = tokens(planted, atoms, planted.steps, 1 << 16)
    run = TrainingRun(made, initial_sae(made, sample, WEIGHT_SEED))
    steering = _steering(run, variant, planted)
    for number in range(steps):
        batch = tokens(planted, atoms, number, planted.batch_size)
        if steering is not None and number % LOOK_EVERY == 0:
            steering.look(batch)
        run.advance(batch)
    new = tokens(planted, atoms, planted.steps + 1, 4096)
    return {"found": recovered(run.sae.decoder_weight.detach(), atoms), **_described(run.sae, new)}


def _steering(run: TrainingRun, variant: str, planted: Planted) -> Steering | None:
    if variant not in PENALTIES:
        return None
    sae, name = run.sae, PENALTIES[variant]
    trainee = Trainee(
        run.advance,
        lambda rows: sae.sparse_codes(rows).dense(),
        penalty=getattr(sae.variant, name),
        set_penalty=partial(setattr, sae.variant, name),
    )
    return Steering(trainee, planted.active)


def _described(sae: SparseAutoencoder, new: Tensor) -> dict[str, float]:
    codes = sae.sparse_codes(new)
    error = (sae.decode(codes) - new).square().sum() / (new - new.mean(0)).square().sum()
    return {"l0": len(codes.values) / len(new), "nmse": float(error.detach())}


def baseline(name: str, planted: Planted) -> dict[str, float]:
    """Share of atoms found by what no SAE was trained for."""
    atoms = dictionary(planted)
    sample = tokens(planted, atoms, planted.steps, 1 << 14)
    if name == "random directions":
        rows = torch.randn(planted.width, planted.d_model, generator=torch.Generator().manual_seed(WEIGHT_SEED))
    elif name == "PCA":
        found = PCA().fit(sample.numpy()).components_
        rows = torch.from_numpy(found)
        rows = torch.cat([rows, -rows])
    else:
        clusters = MiniBatchKMeans(min(planted.width, len(sample)), init="random", n_init=1, random_state=WEIGHT_SEED)
        rows = torch.from_numpy(clusters.fit(sample.numpy()).cluster_centers_)
    return {"found": recovered(rows.float(), atoms)}


def measure(kept: KeptRuns, quick: bool, at_once: int, only_kept: bool) -> list[Measurement]:
    """Train all variants, some at once, each in a process of its own with one thread; none with `only_kept`."""
    planted = Planted(atoms=100, d_model=32, active=3, expansion=8, batch_size=512, steps=300) if quick else Planted()
    untrained: dict[str, Callable[[], dict[str, float]]] = {
        "topk, untrained": partial(trained, "topk", planted, 0),
        **{name: partial(baseline, name, planted) for name in ("random directions", "PCA", "k-means")},
    }
    jobs = untrained | {name: partial(trained, name, planted, planted.steps) for name in VARIANTS}
    code = [*map(file_sha256, _SCRIPTS), *own_code()]
    made_by = {
        name: {"planted": name, "code": code, **asdict(planted)}
        | ({"settings": repr(settings(name, planted))} if name in VARIANTS else {})
        for name in jobs
    }
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, context, torch.set_num_threads, (1,)) as pool:
        missing = [name for name in jobs if kept.get(made_by[name]) is None and not only_kept]
        for name, future in [(name, pool.submit(jobs[name])) for name in missing]:
            kept.keep(made_by[name], future.result())
    return rows_of({name: kept.get(made_by[name]) for name in jobs}, quick)


def rows_of(found: dict[str, dict[str, float] | None], quick: bool) -> list[Measurement]:
    """One row each: the share found, beside codes a token and error where there are codes."""
    rows = []
    for name, values in found.items():
        if values is None:
            rows.append(measurement(f"planted: {name}", 0, "not run: not measured yet"))
            continue
        unit = "of the atoms"
        if "l0" in values:
            unit += f", {values['l0']:.1f} codes a token, NMSE {values['nmse']:.3f}"
        target = NEARLY_ALL if name == "topk" and not quick else None
        rows.append(measurement(f"planted: {name}", values["found"], unit, target=target))
    return [*rows, measurement("planted: NMF", 0, "not run: it needs data without negative values")]
