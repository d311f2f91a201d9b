"""Training on a GPU: tokens a second and memory beside peers, quality after equally many steps, memory by width."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch
from training_protocol import Batches, peak_megabytes
from visae_training import started

from bench.gpu.report import Report
from bench.gpu.sizes import Size
from bench.harness import Measurement, Target, fastest, measurement, median_ratio
from bench.peer_processes import Peer
from bench.trainer.contenders import DICTIONARY_LEARNING, SPARSIFY, VISAE, Contender, Found, compare, reason

# As each is run by its users on a GPU: visae and sparsify compute products in bfloat16, dictionary_learning in float32.
OURS = "visae"
CONTENDERS = [
    VISAE,
    *SPARSIFY,
    DICTIONARY_LEARNING,
    Contender("visae, float32", "visae", {"options": {"precision": "float32"}}),
    Contender("dictionary_learning, bfloat16", "dictionary_learning", {"autocast": True}),
    Contender("sparsify, Adam, without its kernel", "sparsify", {"optimizer": "adam", "triton": False}),
]
FIRST = CONTENDERS[:4]
AT_LEAST_AS_FAST = Target("ratio", ">=", 1)
LESS = Target("ratio", "<", 1)
AS_GOOD = Target("ratio", "<=", 1.05)


def trainer(size: Size, report: Report) -> None:
    """Tokens a second of TopK, and peak memory."""
    found = _compared(size, CONTENDERS, size.worker_settings(), "trainer")
    report.add(*_rows(f"trainer, batch {size.batch}", found))


def large(size: Size, report: Report) -> None:
    """Tokens a second at large batches."""
    found = _compared(size, FIRST, size.worker_settings(batch_size=size.large_batch), "large")
    report.add(*_rows(f"large, batch {size.large_batch}", found))


def variants(size: Size, report: Report) -> None:
    """Tokens a second of visae's other variants."""
    for variant in ("batchtopk", "relu"):
        found = _compared(size, [VISAE], size.worker_settings(variant=variant), variant)
        report.add(*_rows(f"variants, {variant}", found))


def _compared(size: Size, contenders: list[Contender], given: dict[str, Any], logs: str) -> Found:
    folder = size.scratch / "logs" / logs
    found = compare(contenders, given, size.timing, folder, at_once=True)
    if found.missing:
        _show_logs(folder)
    return found


def _show_logs(folder: Path) -> None:
    """Print the ends of what workers said: a machine that is lent for minutes keeps no files."""
    for log in sorted(folder.glob("*.log")):
        print(f"{log.name}: ...{log.read_text()[-1500:]}", file=sys.stderr, flush=True)


def _rows(title: str, found: Found) -> list[Measurement]:
    ours = OURS in found.rates
    over = {name: median_ratio(found.rates, OURS, name) for name in found.rates} if ours else {}
    rows = [
        measurement(f"{title}: {name}", median(rates), "tokens/s", over.get(name))
        for name, rates in found.rates.items()
    ]
    rows += [measurement(f"{title}: {name}", 0, f"not run: {why}") for name, why in found.missing.items()]
    peers = [name for name in found.rates if not name.startswith(OURS)]
    if ours and peers:
        best = fastest(found.rates, peers)
        name = f"{title}: visae over the fastest peer ({best})"
        rows.append(measurement(name, over[best], "x", over[best], AT_LEAST_AS_FAST))
    rows += [measurement(f"{title}: codes a token, {name}", value, "L0") for name, value in found.l0.items()]
    for name, megabytes in found.megabytes.items():
        judged = name == OURS and peers
        ratio = megabytes / min(found.megabytes[peer] for peer in peers) if judged else None
        rows.append(measurement(f"{title}: peak memory, {name}", megabytes, "MB", ratio, LESS if judged else None))
    return rows


# --- quality -------------------------------------------------------------------------------------


def quality(size: Size, report: Report) -> None:
    """Held-out normalized MSE after equally many steps: all train side by side, which is not timed."""
    more = {"steps": size.quality_steps, "held_out": str(size.data()[1]), "normalization": None}
    given, folder = size.worker_settings(**more), size.scratch / "logs" / "quality"
    folder.mkdir(parents=True)
    with ThreadPoolExecutor(len(FIRST)) as pool:
        answers = list(pool.map(lambda contender: _quality(contender, given, folder), FIRST))
    title = f"quality, {size.quality_steps} steps"
    found = list(zip(FIRST, answers, strict=True))
    errors = {contender.name: answer["nmse"] for contender, answer in found if "nmse" in answer}
    for contender, answer in found:
        name = contender.name
        if "cannot" in answer:
            report.add(measurement(f"{title}: {name}", 0, f"not run: {answer['cannot']}"))
            continue
        others = [error for other, error in errors.items() if other != OURS]
        judged = name == OURS and others
        ratio = errors[name] / min(others) if judged else None
        report.add(
            measurement(f"{title}: {name}", answer["nmse"], "NMSE", ratio, AS_GOOD if judged else None),
            measurement(f"{title}: codes a token, {name}", answer["l0"], "L0"),
            measurement(f"{title}: silent latents, {name}", answer["silent_share"], ""),
        )
    if len(errors) < len(FIRST):
        _show_logs(folder)


def _quality(contender: Contender, given: dict[str, Any], folder: Path) -> dict[str, Any]:
    log = folder / f"{contender.name.replace(', ', '-')}.log"
    try:
        with Peer(contender.peer, contender.script, {**given, **contender.options}, log) as peer:
            return peer.repeat()
    except (RuntimeError, OSError) as error:
        return {"cannot": reason(error)}


# --- memory --------------------------------------------------------------------------------------


def memory(size: Size, report: Report) -> None:
    """Peak memory of visae's TopK training by width; the ratio is over weights, gradients and Adam's two moments."""
    for width in size.widths:
        given = size.worker_settings(width=width, sample_tokens=min(size.sample_tokens, 4 * size.batch))
        batches = Batches(Path(given["data"]), size.d_model, size.batch, size.device)
        run = started(given, batches)
        if size.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for number in range(3):
            run.advance(batches[number])
        peak = peak_megabytes(size.device)
        state = 4 * 4 * sum(parameter.numel() for parameter in run.sae.parameters()) / 1e6
        report.add(measurement(f"memory: peak at width {width}, batch {size.batch}", peak, "MB", peak / state))
        del run
