# Sparse autoencoders, each trained on the stores of one data set at one layer; of each sweep one is taken, and those that
# somebody published are taken in where others are trained.
#
# Every member of a sweep is a job of its own, so that adding one redoes nothing of the others. The first of those jobs
# trains all that are missing on one reading of the data; the others then find theirs made. Which those are is a
# resource: it decides how fast a job is and not what it makes. So is where training runs, and what it asks Slurm for.

ASKED = {
    "slurm_partition": SETTINGS.slurm.partition,
    "slurm_account": SETTINGS.slurm.account,
    "qos": SETTINGS.slurm.qos,
    "constraint": SETTINGS.slurm.constraint,
}


localrules:
    select_sae,


rule train_sae:
    input:
        manifests=train_stores,
        targets=target_stores,
    output:
        config=f"{SAE}/config.json",
        weights=f"{SAE}/sae.safetensors",
        metrics=f"{SAE}/metrics.parquet",
        summary=f"{SAE}/summary.json",
    log:
        f"logs/{SAE}/summary.json.log",
    benchmark:
        f"benchmarks/{SAE}/summary.json.tsv"
    wildcard_constraints:
        sae=names(EVERY_SAE),
    priority: LEADS
    # Where Slurm trains, jobs only wait: all at once, beside Snakemake, and without a core.
    localrule: WHERE == "slurm"
    conda:
        ENVIRONMENT
    threads: training_threads
    resources:
        **{key: value for key, value in ASKED.items() if value is not None},
        mem_mb=training_memory,
        runtime=grown(SETTINGS.slurm.minutes),
        gpu=GPUS if SETTINGS.slurm.gpus is None else SETTINGS.slurm.gpus,
        cpus_per_task=SETTINGS.slurm.cpus,
        slurm=json.dumps(to_plain(SETTINGS.slurm)),
        where=WHERE,
        snakemake=os.getpid(),
        train_jobs=1,
        attempt=lambda wildcards, attempt: attempt,
        loggers=json.dumps(SETTINGS.loggers),
        scratch=SETTINGS.scratch or "",
        together=lambda wildcards: json.dumps(together(wildcards)),
    params:
        spec=lambda wildcards: spec(
            EVERY_SAE[wildcards.sae],
            "visae.sae.trainer",
            rates=EVERY_SAE[wildcards.sae].rates,
            runs=f"{RESULTS}/.runs",
        ),
    message:
        "Training SAE {wildcards.sae} on {wildcards.trained_on}, layer {wildcards.layer} of {wildcards.model}"
    script:
        "../scripts/train_sae.py"


rule select_sae:
    input:
        summaries=of_members("summary.json"),
        configs=of_members("config.json"),
    output:
        config=f"{SAE}/config.json",
        weights=f"{SAE}/sae.safetensors",
        metrics=f"{SAE}/metrics.parquet",
        summary=f"{SAE}/summary.json",
        selection=f"{SAE}/selection.json",
    log:
        f"logs/{SAE}/selection.json.log",
    benchmark:
        f"benchmarks/{SAE}/selection.json.tsv"
    wildcard_constraints:
        sae=names(SWEEPS),
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.sweeps[wildcards.sae].select, "visae.sae.choice"
        ),
    message:
        "Choosing among the members of sweep {wildcards.sae}"
    script:
        "../scripts/select_sae.py"


rule import_sae:
    input:
        source=files_of_published,
        manifests=train_stores,
    output:
        config=f"{SAE}/config.json",
        weights=f"{SAE}/sae.safetensors",
        metrics=f"{SAE}/metrics.parquet",
        summary=f"{SAE}/summary.json",
    log:
        f"logs/{SAE}/summary.json.log",
    benchmark:
        f"benchmarks/{SAE}/summary.json.tsv"
    wildcard_constraints:
        sae=names(PUBLISHED),
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=grown(8000),
        runtime=grown(60),
    params:
        spec=lambda wildcards: spec(
            PUBLISHED[wildcards.sae], "visae.sae.foreign.published_sae"
        ),
    message:
        "Taking in SAE {wildcards.sae} for {wildcards.trained_on}, layer {wildcards.layer} of {wildcards.model}"
    script:
        "../scripts/import_sae.py"


rule stability:
    input:
        configs=of_members("config.json"),
    output:
        stability=f"{SAE}/stability.parquet",
    log:
        f"logs/{SAE}/stability.parquet.log",
    benchmark:
        f"benchmarks/{SAE}/stability.parquet.tsv"
    wildcard_constraints:
        sae=names(SEED_SWEEPS),
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=grown(8000),
        runtime=grown(240),
    params:
        spec=spec(SETTINGS.features.described(), "visae.features.stability"),
    message:
        "Matching the latents of the members of sweep {wildcards.sae} that differ in their seed"
    script:
        "../scripts/stability.py"
