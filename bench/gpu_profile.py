"""Where a TopK training step and a dump spend their time on a GPU, and what other ways of each part would take.

Plain text; each part in a try of its own, each skipped once the budget is spent. `--device cpu --tiny` tries it out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "bench"), str(ROOT / "bench/peers")]

import torch  # noqa: E402
from gpu_sizes import TINY, WHOLE  # noqa: E402
from planted import write_planted  # noqa: E402
from torch.nn import functional  # noqa: E402
from training_protocol import Batches  # noqa: E402
from visae_training import started  # noqa: E402

from visae.sae.selection import blocks, largest_per_token  # noqa: E402
from visae.sae.sparse import by_latent, gathered_products, offsets_of, value_gradients, weighted_rows  # noqa: E402
from visae.sae.variant import reconstruction_error, sparse_pass, without_parallel  # noqa: E402

BEGAN = time.monotonic()


class Bench:
    def __init__(self, device, budget):
        self.device, self.budget = device, budget

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()

    def left(self):
        return self.budget - (time.monotonic() - BEGAN)

    def time(self, name, work, repetitions=10, warm=2):
        """Median ms by the wall clock with synchronization around, and ms a call of a queue of calls (GPU bound)."""
        if self.left() < 5:
            print(f"{name:75} skipped", flush=True)
            return None
        try:
            first = time.perf_counter()
            for _ in range(warm):
                result = work()
            self.wait()
            if time.perf_counter() - first > 2:
                repetitions = 4
            alone = []
            for _ in range(repetitions):
                self.wait()
                begun = time.perf_counter()
                work()
                self.wait()
                alone.append(time.perf_counter() - begun)
            self.wait()
            begun = time.perf_counter()
            for _ in range(repetitions):
                work()
            self.wait()
            queued = (time.perf_counter() - begun) / repetitions
            print(f"{name:75} {1e3 * median(alone):9.3f} ms alone {1e3 * queued:9.3f} ms queued", flush=True)
            return result
        except Exception as error:
            print(f"{name:75} FAILED {type(error).__name__}: {str(error)[:300]}", flush=True)
            return None


def section(name):
    print(f"\n=== {name}  [{time.monotonic() - BEGAN:.0f} s]", flush=True)


# --- other ways ----------------------------------------------------------------------------------


def teamed(block, k, team):
    """Two stages: the largest of each team of columns first."""
    n, width = block.shape
    teams = width // team
    members = block.view(n, team, teams)
    best = members.amax(1).topk(k, dim=1, sorted=False).indices
    candidates = members.gather(2, best.unsqueeze(1).expand(n, team, k)).view(n, -1)
    values, found = candidates.topk(k, dim=1, sorted=False)
    return values, best.gather(1, found % k) + (found // k) * teams


def teamed_adjacent(block, k, team):
    n, width = block.shape
    members = block.view(n, width // team, team)
    best = members.amax(2).topk(k, dim=1, sorted=False).indices
    candidates = members.gather(1, best.unsqueeze(2).expand(n, k, team)).view(n, -1)
    values, found = candidates.topk(k, dim=1, sorted=False)
    return values, best.gather(1, found // team) * team + found % team


def teamed_twice(block, k, team, second):
    n, width = block.shape
    teams = width // team
    members = block.view(n, team, teams)
    best = teamed(members.amax(1), k, second)[1]
    candidates = members.gather(2, best.unsqueeze(1).expand(n, team, k)).view(n, -1)
    values, found = candidates.topk(k, dim=1, sorted=False)
    return values, best.gather(1, found % k) + (found // k) * teams


def chunked(block, k, chunks):
    n, width = block.shape
    values, columns = block.view(n, chunks, width // chunks).topk(k, dim=2, sorted=False)
    columns = columns + torch.arange(0, width, width // chunks, device=block.device)[:, None]
    values, found = values.reshape(n, -1).topk(k, dim=1, sorted=False)
    return values, columns.reshape(n, -1).gather(1, found)


def short_bags(rows, members, weights, offsets, size):
    """Long bags in pieces of at most `size`, whose sums are summed; no synchronization."""
    n_bags, nnz = len(offsets) - 1, len(members)
    counts = offsets.diff()
    pieces = (counts + size - 1) // size
    ends = pieces.cumsum(0)
    most = nnz // size + n_bags
    number = torch.arange(most, device=rows.device)
    bag = torch.searchsorted(ends, number, right=True).clamp_(max=n_bags - 1)
    start = offsets[bag] + (number - (ends - pieces)[bag]) * size
    start = torch.where(number < ends[-1], start, nnz)
    edges = torch.cat([start, start.new_full((1,), nnz)])
    part = functional.embedding_bag(members, rows, edges, mode="sum", per_sample_weights=weights, include_last_offset=True)
    whole = torch.cat([ends - pieces, ends[-1:]])
    return functional.embedding_bag(number, part, whole, mode="sum", include_last_offset=True)


def fixed_pieces(rows, members, weights, latents_sorted, n_bags, size, out=None):
    """Pieces of exactly `size` entries in the order of latents; within each, gathered rows; index_add of all."""
    gathered = rows[members] * weights.unsqueeze(1)
    out = torch.zeros(n_bags, rows.shape[1], device=rows.device)
    return out.index_add_(0, latents_sorted, gathered)


def triton_kernels():
    import triton
    import triton.language as tl

    @triton.jit
    def rows_of_bags(rows, members, weights, offsets, out, d, WIDE: tl.constexpr):
        bag = tl.program_id(0)
        columns = tl.arange(0, WIDE)
        keep = columns < d
        first = tl.load(offsets + bag)
        end = tl.load(offsets + bag + 1)
        total = tl.zeros([WIDE], dtype=tl.float32)
        for entry in range(first, end):
            row = tl.load(members + entry)
            weight = tl.load(weights + entry)
            total += weight * tl.load(rows + row * d + columns, mask=keep, other=0.0)
        tl.store(out + bag.to(tl.int64) * d + columns, total, mask=keep)

    @triton.jit
    def products(left, left_rows, right, right_rows, out, d, WIDE: tl.constexpr):
        entry = tl.program_id(0)
        columns = tl.arange(0, WIDE)
        keep = columns < d
        a = tl.load(left + tl.load(left_rows + entry) * d + columns, mask=keep, other=0.0)
        b = tl.load(right + tl.load(right_rows + entry) * d + columns, mask=keep, other=0.0)
        tl.store(out + entry, tl.sum(a * b, 0))

    def bags(r, m, w, o):
        out = torch.empty(len(o) - 1, r.shape[1], device=r.device)
        rows_of_bags[(len(o) - 1,)](r, m, w, o, out, r.shape[1], WIDE=triton.next_power_of_2(r.shape[1]))
        return out

    def inner(a, i, b, j):
        out = torch.empty(len(i), device=a.device)
        products[(len(i),)](a, i, b, j, out, a.shape[1], WIDE=triton.next_power_of_2(a.shape[1]))
        return out

    return bags, inner


# --- sections ------------------------------------------------------------------------------------


def main():
    made = argparse.ArgumentParser()
    made.add_argument("--device", default="cuda")
    made.add_argument("--tiny", action="store_true")
    made.add_argument("--budget", type=float, default=95)
    arguments = made.parse_args()
    device = arguments.device
    bench = Bench(device, arguments.budget)
    with tempfile.TemporaryDirectory() as folder:
        size = replace(TINY if arguments.tiny else WHOLE, batches=8 if not arguments.tiny else 8, held_out=1)
        size = size.on(device, Path(folder))
        for part in (training, extraction):
            try:
                part(bench, size, Path(folder))
            except Exception:
                traceback.print_exc()
                sys.stderr.flush()
    print(f"\nall: {time.monotonic() - BEGAN:.0f} s", flush=True)
    section("compiled")
    block = torch.randn(size.batch, size.width, device=device)
    team_compiled = torch.compile(lambda block: teamed(block, size.k, 16))
    if bench.left() > 15:
        bench.time("teams of 16 float32, compiled", lambda: team_compiled(block), 6)


def training(bench, size, folder):
    device, k, width, n = bench.device, size.k, size.width, size.batch
    section(f"set-up: torch {torch.__version__}, {torch.cuda.get_device_name() if device == 'cuda' else 'cpu'}")
    path = write_planted(folder / "data.bin", size.batches * n, size.d_model)
    given = {
        "d_model": size.d_model, "width": width, "batch_size": n, "k": k, "threads": size.threads, "seed": 1,
        "sample_tokens": 4 * n, "device": device, "variant": "topk", "data": str(path)}
    batches = Batches(path, size.d_model, n, device)
    run = started(given, batches)
    held = [batches[i] for i in range(batches.count)]
    for i in range(200 if not bench_tiny(size) else 3):
        row = run.advance(held[i % len(held)])
    print({name: round(value, 4) for name, value in row.items()}, "dead_after", run.settings.dead_after_tokens,
          "auxk", getattr(run.settings, "auxk", None), "precision", run.settings.precision, flush=True)
    numbers = iter(range(10**9))
    section("whole step")
    bench.time("run.advance", lambda: run.advance(held[next(numbers) % len(held)]), 20)
    profiled(bench, run, held)

    section("parts of the step, as they are")
    torch.set_grad_enabled(False)
    weights, inputs = run.sae.weights, run.sae.normalized(held[0])
    narrow = torch.bfloat16 if device == "cuda" else torch.float32
    precision = run._precision
    dead = run.silent >= run.settings.dead_after_tokens

    def under(work):
        with precision:
            return work()

    bench.time("sae.normalized(batch)", lambda: run.sae.normalized(held[0]))
    bench.time("blocks (product to float32), no top-k", lambda: under(
        lambda: [1 for _ in blocks(inputs, weights.encoder, weights.encoder_bias)]))
    codes = bench.time("largest_per_token (product + top-k)", lambda: under(
        lambda: largest_per_token(inputs, weights.encoder, weights.encoder_bias, k)))
    error = bench.time("reconstruction_error", lambda: reconstruction_error(weights, inputs, codes))
    output_gradient = error * (2 / error.numel())
    bench.time("codes.parts", lambda: [1 for _ in codes.parts(1 << 20)])
    bench.time("codes.tokens (repeat_interleave)", lambda: codes.tokens)
    if device == "cuda":
        code_gradient = bench.time("value_gradients (compiled)", lambda: value_gradients(codes, output_gradient, weights.decoder))
    else:
        code_gradient = value_gradients(codes, output_gradient, weights.decoder)
    ordered = bench.time("by_latent", lambda: by_latent(codes))
    counts = torch.bincount(codes.latents, minlength=width)
    top = counts.sort(descending=True).values
    print("largest bags:", top[:8].tolist(), "100th:", int(top[min(99, width - 1)]), "1000th:", int(top[min(999, width - 1)]), "active latents:", int((counts > 0).sum()))
    decoder_gradient = bench.time("row_gradients of the decoder", lambda: ordered.row_gradients(codes.values, output_gradient))
    encoder_gradient = bench.time("row_gradients of the encoder", lambda: ordered.row_gradients(code_gradient, inputs))
    bench.time("sums (segment_reduce)", lambda: ordered.sums(code_gradient))
    bench.time("sparse_pass", lambda: under(lambda: sparse_pass(weights, inputs, inputs, codes)))
    bench.time("variant.step", lambda: under(lambda: run.sae.variant.step(weights, inputs, 100, dead, inputs)))
    aux = dead.clone()
    aux[: width // 2] = True
    bench.time("variant.step with half of the latents dead (AuxK)", lambda: under(lambda: run.sae.variant.step(weights, inputs, 100, aux, inputs)), 5)
    done = under(lambda: run.sae.variant.step(weights, inputs, 100, dead, inputs))
    bench.time("without_parallel", lambda: without_parallel(done.gradients.decoder, weights.decoder))
    bench.time("get_total_norm", lambda: torch.nn.utils.get_total_norm(done.all_gradients))
    bench.time("clip: mul_ of all gradients", lambda: [g.mul_(0.999) for g in done.all_gradients])
    bench.time("clip: _foreach_mul_", lambda: torch._foreach_mul_(list(done.all_gradients), 0.999))
    bench.time("metrics: active counts (double bincount)", lambda: torch.bincount(codes.latents, (codes.values > 0).double(), minlength=width))
    bench.time("metrics: _described", lambda: run._described(done, inputs, counts, n))
    bench.time("silent[counts > 0] = 0", lambda: run.silent.clone().__setitem__(counts > 0, 0))
    for parameter, gradient in zip(run.sae.parameters(), done.all_gradients, strict=True):
        parameter.grad = gradient
    for group in run.optimizer.param_groups:
        group["lr"] = 0.0
    bench.time("Adam, fused, as it is", lambda: run.optimizer.step())
    bench.time("projection of the decoder", lambda: run.sae.variant.project(weights))

    section("top-k")
    whole = inputs.to(narrow) @ weights.encoder.to(narrow).T
    full = whole.float()
    bench.time("product alone, narrow", lambda: inputs.to(narrow) @ weights.encoder.to(narrow).T)
    bench.time("product alone, narrow, with bias (addmm)", lambda: torch.addmm(weights.encoder_bias.to(narrow), inputs.to(narrow), weights.encoder.to(narrow).T))
    bench.time("product alone, float32", lambda: torch.addmm(weights.encoder_bias, inputs, weights.encoder.T))
    bench.time("add bias, narrow to float32, out=", lambda: torch.add(whole, weights.encoder_bias, out=full))
    for name, block in (("narrow", whole), ("float32", full)):
        reference = bench.time(f"topk {name} unsorted", lambda block=block: block.topk(k, dim=1, sorted=False), 6)
        bench.time(f"topk {name} sorted", lambda block=block: block.topk(k, dim=1), 6)
        for team in (8, 16, 32, 64):
            found = bench.time(f"teams of {team} {name}", lambda block=block, team=team: teamed(block, k, team), 6)
            if found and name == "float32" and reference:
                same = torch.equal(found[0].sort(1).values, reference[0].sort(1).values)
                print(f"    same values: {same}")
            bench.time(f"adjacent teams of {team} {name}", lambda block=block, team=team: teamed_adjacent(block, k, team), 6)
        bench.time(f"teams of 8 then 8 {name}", lambda block=block: teamed_twice(block, k, 8, 8), 6)
        bench.time(f"teams of 16 then 4 {name}", lambda block=block: teamed_twice(block, k, 16, 4), 6)
        bench.time(f"amax of teams of 16 {name}", lambda block=block: block.view(n, 16, -1).amax(1), 6)
        for chunks in (8, 32):
            bench.time(f"chunks {chunks} {name}", lambda block=block, chunks=chunks: chunked(block, k, chunks), 4)
    bench.time("kthvalue narrow", lambda: whole.kthvalue(width - k, dim=1), 3)
    bench.time("nonzero of a mask (selected)", lambda: (full > 3.0).view(-1).nonzero(), 4)
    # On a GPU the small top-k's of the second stage, by themselves.
    small = full[:, : width // 16].contiguous()
    bench.time(f"topk of {small.shape[1]} columns float32", lambda: small.topk(k, dim=1, sorted=False), 6)
    tiny_block = full[:, : min(width, 16 * k)].contiguous()
    bench.time(f"topk of {tiny_block.shape[1]} columns float32", lambda: tiny_block.topk(k, dim=1, sorted=False), 6)
    bench.time(f"sort of {tiny_block.shape[1]} columns float32", lambda: tiny_block.sort(1, descending=True), 6)
    section("decoding and weight gradients")
    order, tokens, offsets = ordered.order, ordered.tokens, ordered.offsets
    sorted_values, sorted_gradient = codes.values[order], code_gradient[order]
    bench.time("decode embedding_bag float32", lambda: weighted_rows(weights.decoder, codes.latents, codes.values, codes.offsets))
    d16, v16 = weights.decoder.to(narrow), codes.values.to(narrow)
    bench.time("decode embedding_bag narrow", lambda: weighted_rows(d16, codes.latents, v16, codes.offsets))
    matrix = torch.zeros(n, width, dtype=narrow, device=device)

    def scatter():
        matrix.zero_()
        return matrix.scatter_(1, codes.latents.view(n, k), v16.view(n, k))

    bench.time("scatter codes to dense narrow", scatter)
    dense = scatter()
    bench.time("dense decode narrow", lambda: dense @ d16)
    g16, x16 = output_gradient.to(narrow), inputs.to(narrow)
    bench.time("dense weight gradient narrow (codes.T @ gradient)", lambda: dense.T @ g16)
    other = dense.clone()
    bench.time("dense encoder gradient narrow", lambda: other.T @ x16)
    bench.time("dense value gradients narrow + gather", lambda: (g16 @ d16.T).gather(1, codes.latents.view(n, k)))
    for piece in (16, 32, 64, 128):
        found = bench.time(f"short bags of {piece}, decoder", lambda piece=piece: short_bags(output_gradient, tokens, sorted_values, offsets, piece))
        if found is not None and decoder_gradient is not None:
            print("    relative difference", float((found - decoder_gradient).norm() / decoder_gradient.norm()))
    latents_sorted = codes.latents[order]
    bench.time("index_add_ of gathered rows", lambda: fixed_pieces(output_gradient, tokens, sorted_values, latents_sorted, width, 0))
    bench.time("index_add_, order of tokens", lambda: fixed_pieces(output_gradient, codes.tokens, codes.values, codes.latents, width, 0))
    bench.time("embedding_bag narrow rows, decoder gradient", lambda: weighted_rows(g16, tokens, sorted_values.to(narrow), offsets))
    csr = torch.sparse_csr_tensor(offsets, tokens, sorted_values, (width, n), check_invariants=False)
    bench.time("sparse CSR @ rows (cusparse)", lambda: csr @ output_gradient)
    if device == "cuda":
        try:
            bags, inner = triton_kernels()
            bench.time("triton bags: decode", lambda: bags(weights.decoder, codes.latents, codes.values, codes.offsets))
            bench.time("triton bags: decoder gradient", lambda: bags(output_gradient, tokens, sorted_values, offsets))
            bench.time("triton products", lambda: inner(weights.decoder, codes.latents, output_gradient, codes.tokens))
        except Exception as error:
            print("triton FAILED", type(error).__name__, str(error)[:300])
    bench.time("gathered_products eager", lambda: gathered_products(weights.decoder, codes.latents, output_gradient, codes.tokens), 5)
    bench.time("value gradients by bmm of gathered rows", lambda: torch.bmm(weights.decoder[codes.latents].view(n, k, -1), output_gradient.unsqueeze(2)), 5)

    section("order of latents, counts")
    for kind in (torch.int64, torch.int32, torch.int16):
        keys = codes.latents.to(kind)
        bench.time(f"sort stable {kind}", lambda keys=keys: torch.sort(keys, stable=True))
    bench.time("bincount int64", lambda: torch.bincount(codes.latents, minlength=width))
    bench.time("offsets_of", lambda: offsets_of(codes.latents, width))
    ones = torch.ones_like(codes.latents)
    bench.time("scatter_add of ones", lambda: torch.zeros(width, dtype=torch.int64, device=device).scatter_add_(0, codes.latents, ones))
    bounds = torch.arange(width + 1, device=device)
    bench.time("offsets by searchsorted of the sorted", lambda: torch.searchsorted(latents_sorted, bounds))
    bench.time("sums by index_add", lambda: torch.zeros(width, device=device).index_add_(0, codes.latents, code_gradient))
    bench.time("repeat_interleave with output_size", lambda: torch.repeat_interleave(codes.offsets.diff(), output_size=len(codes.values)))

    section("optimizer")
    parameters = [torch.nn.Parameter(torch.randn_like(p)) for p in run.sae.parameters()]
    for p in parameters:
        p.grad = torch.randn_like(p)
    for name, options in (("fused", {"fused": True}), ("foreach", {"foreach": True}), ("fused, one group", {"fused": True})):
        adam = torch.optim.Adam(parameters if "one" in name else [{"params": [p]} for p in parameters], lr=1e-4, **options)
        bench.time(f"Adam {name}", adam.step)

    section("one .tolist() against many")
    one = torch.ones((), device=device)
    bench.time("float(scalar) on an idle device", lambda: float(one), 50)
    bench.time("10 launches of a tiny kernel", lambda: [one.add_(0) for _ in range(10)], 50)
    whole_graph(bench, run, held, under)


def bench_tiny(size):
    return size.d_model < 100


def whole_graph(bench, run, held, under):
    if bench.device != "cuda":
        return
    section("launch overhead of variant.step")
    inputs = run.sae.normalized(held[0])
    dead = torch.zeros_like(run.silent, dtype=torch.bool)
    bench.wait()
    begun = time.perf_counter()
    for _ in range(10):
        under(lambda: run.sae.variant.step(run.sae.weights, inputs, 100, dead, inputs))
    launched = time.perf_counter() - begun
    bench.wait()
    print(f"10 steps: launched after {1e3 * launched:.2f} ms, done after {1e3 * (time.perf_counter() - begun):.2f} ms")


def profiled(bench, run, held):
    section("torch.profiler, 10 steps")
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if bench.device == "cuda" else [])
    with profile(activities=kinds) as found:
        for i in range(10):
            run.advance(held[i % len(held)])
        bench.wait()
    events = found.key_averages()

    def device_time(event):
        return getattr(event, "self_device_time_total", getattr(event, "self_cuda_time_total", 0))

    for title, key in (("device", device_time), ("CPU", lambda e: e.self_cpu_time_total)):
        total = sum(key(e) for e in events)
        print(f"--- by {title}: {total / 1e4:.3f} ms a step")
        for event in sorted(events, key=key, reverse=True)[:25]:
            print(f"{key(event) / 1e4:9.3f} ms a step {event.count / 10:7.1f} calls  {event.key[:110]}")
    for event in events:
        if any(word in event.key for word in ("ynchronize", "Memcpy", "aten::item", "_local_scalar", "cudaLaunchKernel", "cudaMalloc")):
            print(f"count a step {event.count / 10:7.1f}  cpu {event.self_cpu_time_total / 1e4:8.3f} ms  {event.key[:100]}")
    sys.stdout.flush()


def extraction(bench, size, folder):
    section(f"extraction: {os.cpu_count()} CPUs, affinity {len(os.sched_getaffinity(0))}")
    from store_extraction import dump, linked_pictures, made_pictures, prepared, read_layer
    from torch.utils.data import DataLoader

    from visae.activations.extract import _Pictures
    from visae.activations.writer import ShardWriter
    from visae.config.settings import ModelSettings
    from visae.data.index import read_index
    from visae.vision.model import load_model

    shared = os.statvfs("/dev/shm")
    print(f"/dev/shm: {shared.f_frsize * shared.f_blocks / 1e9:.1f} GB; /proc/cpuinfo sha_ni:", "sha_ni" in Path("/proc/cpuinfo").read_text())
    tiny = bench_tiny(size)
    n_pictures = 12 if tiny else 2048
    settings = ModelSettings(architecture=size.architecture, weights="random", image_size=size.image_size,
                             batch_size=size.image_batch, precision="bfloat16")
    made = made_pictures(folder / "scenes", min(64, n_pictures), size.image_size)
    sources = read_index(made)["path"].to_list()
    print("picture:", Path(sources[0]).suffix, Path(sources[0]).stat().st_size, "bytes")
    index = linked_pictures(sources, n_pictures, folder / "pictures")
    card = prepared(settings, folder / "model")
    model = load_model(card, torch.device(bench.device))
    pictures = _Pictures(read_index(index)["path"], model.card)
    begun = time.perf_counter()
    for item in range(min(128, n_pictures)):
        pictures[item]
    print(f"decoding here, {torch.get_num_threads()} threads: {min(128, n_pictures) / (time.perf_counter() - begun):.0f} images/s", flush=True)
    for workers in ((1,) if tiny else (15, 8)):
        for pin in ((False,) if bench.device == "cpu" else (True,)):
            loader = DataLoader(pictures, batch_size=size.image_batch, num_workers=workers, pin_memory=pin, prefetch_factor=4)
            begun = time.perf_counter()
            iterator = iter(loader)
            next(iterator)
            first = time.perf_counter() - begun
            rest = sum(len(batch) for batch in iterator)
            taken = time.perf_counter() - begun
            print(f"DataLoader alone, {workers} workers, pin {pin}: first batch {first:.2f} s, all {taken:.2f} s, rest at {rest / max(taken - first, 1e-9):.0f} images/s", flush=True)
    batch = torch.stack([pictures[i % n_pictures] for i in range(size.image_batch)]).to(bench.device)
    tokens = bench.time(f"forward pass of {size.image_batch}", lambda: read_layer(model, batch, size.layer), 6)
    print("read:", tuple(tokens.shape), tokens.dtype)
    stored = bench.time("to cpu float32 (pageable)", lambda: tokens.cpu(), 5)
    stored = bench.time("to('cpu', float16) as it is", lambda: tokens.to("cpu", torch.float16), 5)
    bench.time("half on the device, then cpu", lambda: tokens.half().cpu(), 5)
    if bench.device == "cuda":
        pinned = torch.empty(tokens.shape, dtype=torch.float16, pin_memory=True)
        bench.time("half on the device, then a pinned buffer", lambda: pinned.copy_(tokens.half()), 5)
        bench.time("aminmax on the device", lambda: tokens.half().aminmax(), 5)
    bench.time("aminmax of float16 on the CPU", lambda: stored.aminmax(), 5)
    bench.time("isfinite all", lambda: stored.isfinite().all(), 5)
    group = torch.empty_like(stored)
    bench.time("copy into the group", lambda: group.copy_(stored), 5)
    buffer = memoryview(stored.numpy()).cast("B")
    bench.time(f"sha256 of {len(buffer) / 1e6:.0f} MB", lambda: hashlib.sha256(buffer).digest(), 3)
    import zlib

    bench.time(f"crc32 of {len(buffer) / 1e6:.0f} MB", lambda: zlib.crc32(buffer), 3)

    def write():
        with open(folder / "raw", "wb") as file:
            file.write(buffer)

    bench.time(f"plain write of {len(buffer) / 1e6:.0f} MB", write, 3)
    from visae.activations.extract import _Made
    from visae.vision.model import HookPoint, ModelCard

    count = size.image_batch * (2 if tiny else 8)
    header = _Made(settings, ModelCard.read(card), index, None, 0).header(HookPoint(size.layer), 0, count)
    print("header:", header.dtype, header.images_per_group, "images a group")
    begun = time.perf_counter()
    with ShardWriter(folder / "alone" / "shard.parquet", header) as writer:
        for _ in range(count // size.image_batch):
            writer.add(tokens)
        added = time.perf_counter() - begun
    taken = time.perf_counter() - begun
    print(f"ShardWriter alone: {count} pictures, added {count / added:.0f} images/s, with its end {count / taken:.0f} images/s", flush=True)
    for name in ("first", "second"):
        if bench.left() < 8:
            return
        begun = time.perf_counter()
        dump(settings, size.layer, index, card, folder / f"dump-{name}", bench.device)
        taken = time.perf_counter() - begun
        print(f"whole dump of {n_pictures}, {name}: {taken:.2f} s, {n_pictures / taken:.0f} images/s", flush=True)


if __name__ == "__main__":
    main()
