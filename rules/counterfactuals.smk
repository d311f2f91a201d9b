# Latents and single causes: dictionaries measured on pairs of pictures that differ in one, in studies that name some.


localrules:
    selective_figure,
    cause_latents_figure,
    cause_edits_figure,


rule counterfactuals_of_study:
    input:
        manifest=lambda wildcards: PATHS[wildcards.study].counterfactuals["manifest"],
        index=lambda wildcards: PATHS[wildcards.study].counterfactuals["index"],
        card=lambda wildcards: PATHS[wildcards.study].counterfactuals["card"],
        saes=lambda wildcards: PATHS[wildcards.study].saes,
    output:
        changes=f"{COUNTERFACTUALS}/counterfactuals.parquet",
        dictionaries=f"{COUNTERFACTUALS}/dictionaries.parquet",
        editing=f"{COUNTERFACTUALS}/editing.parquet",
        summary=f"{COUNTERFACTUALS}/summary.json",
    log:
        f"logs/{COUNTERFACTUALS}/summary.json.log",
    benchmark:
        f"benchmarks/{COUNTERFACTUALS}/summary.json.tsv"
    priority: LEADS
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(240),
        gpu=GPUS,
    params:
        spec=lambda wildcards: spec(
            SETTINGS.counterfactuals,
            "visae.counterfactual.experiment",
            layer=edited_layer(wildcards),
        ),
    message:
        "Measuring how selective dictionaries are for single causes, study {wildcards.study}"
    script:
        "../scripts/counterfactuals.py"


rule selective_figure:
    input:
        table=f"{COUNTERFACTUALS}/dictionaries.parquet",
    output:
        **drawn(
            f"{FIGURES}/selective", "selective", "Interventions", "selective latents"
        ),
    log:
        f"logs/{FIGURES}/selective.log",
    benchmark:
        f"benchmarks/{FIGURES}/selective.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(
            SETTINGS.figures.style(), "visae.figures.selective", figure="selective"
        ),
    message:
        "Drawing how many latents are selective for one cause, study {wildcards.study}"
    script:
        "../scripts/figures/of_tables.py"


rule cause_latents_figure:
    input:
        table=f"{COUNTERFACTUALS}/counterfactuals.parquet",
    output:
        **drawn(
            f"{FIGURES}/cause_latents",
            "cause_latents",
            "Interventions",
            "latents by cause",
        ),
    log:
        f"logs/{FIGURES}/cause_latents.log",
    benchmark:
        f"benchmarks/{FIGURES}/cause_latents.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(
            SETTINGS.figures.style(),
            "visae.figures.cause_latents",
            figure="cause_latents",
        ),
    message:
        "Drawing the latents of each cause, study {wildcards.study}"
    script:
        "../scripts/figures/of_tables.py"


rule cause_edits_figure:
    input:
        table=f"{COUNTERFACTUALS}/editing.parquet",
    output:
        **drawn(
            f"{FIGURES}/cause_edits", "cause_edits", "Interventions", "edits by cause"
        ),
    log:
        f"logs/{FIGURES}/cause_edits.log",
    benchmark:
        f"benchmarks/{FIGURES}/cause_edits.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(
            SETTINGS.figures.style(),
            "visae.figures.cause_edits",
            figure="cause_edits",
        ),
    message:
        "Drawing what edits of each cause's latents do, study {wildcards.study}"
    script:
        "../scripts/figures/of_tables.py"
