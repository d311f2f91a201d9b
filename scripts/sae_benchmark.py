"""Measure an SAE by the metrics of visaebench and saev."""

from pathlib import Path

from visae.config.benchmark import BenchmarkSettings
from visae.features.benchmark.table import BenchmarkFiles, DatasetFiles, write_benchmark
from visae.running import running_job

with running_job(globals()) as job:
    own = {name: job.input[name] for name in ("codes", "store", "index", "sae")}
    optional = {name: str(job.input[name]) for name in ("labels", "judge") if job.input[name]}
    files = zip(job.input.other_codes, job.input.other_stores, job.input.other_indices, strict=True)
    others = [DatasetFiles(codes=codes, store=store, index=index) for codes, store, index in files]
    write_benchmark(
        BenchmarkFiles(**own, **optional),
        Path(job.output.benchmark),
        job.settings(BenchmarkSettings),
        dict(zip(job.spec["others"], others, strict=True)),
        min_purity=job.spec["min_purity"],
        seed=job.seed,
        device=job.device,
    )
