# The atlas of causes: which latents a task uses, estimated for all of an SAE and proven for some, in studies that ask for it.


localrules:
    atlas_figure,
    interactions_figure,
    sets_figure,


rule atlas_of_task:
    input:
        unpack(files_of_experiment),
    output:
        effects=f"{INTERVENTIONS}/{{task}}/effects.parquet",
        summary=f"{INTERVENTIONS}/{{task}}/atlas.json",
    log:
        f"logs/{INTERVENTIONS}/{{task}}/atlas.json.log",
    benchmark:
        f"benchmarks/{INTERVENTIONS}/{{task}}/atlas.json.tsv"
    wildcard_constraints:
        task=names(TASKS),
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
            SETTINGS.atlas.proven(),
            "visae.discovery.atlas",
            layer=edited_layer(wildcards),
            first=PATHS[wildcards.study].first,
            min_purity=SETTINGS.features.min_purity,
        ),
    message:
        "Finding the latents of {wildcards.sae} that {wildcards.task} uses, study {wildcards.study}"
    script:
        "../scripts/atlas.py"


rule atlas_figure:
    input:
        effects=f"{INTERVENTIONS}/{{task}}/effects.parquet",
        summary=f"{INTERVENTIONS}/{{task}}/atlas.json",
    output:
        **drawn(f"{MEASURED}/{{task}}_atlas", "atlas", "Interventions", "atlas"),
    log:
        f"logs/{MEASURED}/{{task}}_atlas.log",
    benchmark:
        f"benchmarks/{MEASURED}/{{task}}_atlas.tsv"
    wildcard_constraints:
        task=names(TASKS),
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.atlas"),
    message:
        "Drawing which latents of {wildcards.sae} {wildcards.task} uses"
    script:
        "../scripts/figures/atlas.py"


rule interactions_of_task:
    input:
        unpack(files_of_experiment),
        effects=f"{INTERVENTIONS}/{{task}}/effects.parquet",
        atlas=f"{INTERVENTIONS}/{{task}}/atlas.json",
    output:
        interactions=f"{INTERVENTIONS}/{{task}}/interactions.parquet",
        summary=f"{INTERVENTIONS}/{{task}}/interactions.json",
    log:
        f"logs/{INTERVENTIONS}/{{task}}/interactions.json.log",
    benchmark:
        f"benchmarks/{INTERVENTIONS}/{{task}}/interactions.json.tsv"
    wildcard_constraints:
        task=names(TASKS),
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(240),
        gpu=GPUS,
    params:
        spec=lambda wildcards: spec(
            SETTINGS.interactions,
            "visae.discovery.interactions",
            layer=edited_layer(wildcards),
            first=PATHS[wildcards.study].first,
            min_purity=SETTINGS.features.min_purity,
        ),
    message:
        "Editing latents of {wildcards.sae} together, {wildcards.task}, study {wildcards.study}"
    script:
        "../scripts/interactions.py"


rule interactions_figure:
    input:
        interactions=f"{INTERVENTIONS}/{{task}}/interactions.parquet",
        summary=f"{INTERVENTIONS}/{{task}}/interactions.json",
    output:
        **drawn(
            f"{MEASURED}/{{task}}_interactions",
            "interactions",
            "Interventions",
            "interactions",
        ),
    log:
        f"logs/{MEASURED}/{{task}}_interactions.log",
    benchmark:
        f"benchmarks/{MEASURED}/{{task}}_interactions.tsv"
    wildcard_constraints:
        task=names(TASKS),
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.interactions"),
    message:
        "Drawing what latents of {wildcards.sae} do together, {wildcards.task}"
    script:
        "../scripts/figures/interactions.py"


rule atlas_sets:
    input:
        unpack(files_of_experiment),
        effects=f"{INTERVENTIONS}/{{task}}/effects.parquet",
        others=other_saes,
    output:
        table=f"{INTERVENTIONS}/{{task}}/sets.parquet",
        summary=f"{INTERVENTIONS}/{{task}}/sets.json",
    log:
        f"logs/{INTERVENTIONS}/{{task}}/sets.json.log",
    benchmark:
        f"benchmarks/{INTERVENTIONS}/{{task}}/sets.json.tsv"
    wildcard_constraints:
        task=names(TASKS),
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(240),
        gpu=GPUS,
    params:
        spec=lambda wildcards: spec(
            SETTINGS.atlas,
            "visae.discovery.sets",
            layer=edited_layer(wildcards),
            first=PATHS[wildcards.study].first,
            min_purity=SETTINGS.features.min_purity,
        ),
    message:
        "Finding sets of latents of {wildcards.sae} that move {wildcards.task}, study {wildcards.study}"
    script:
        "../scripts/atlas_sets.py"


rule sets_figure:
    input:
        table=f"{INTERVENTIONS}/{{task}}/sets.parquet",
    output:
        **drawn(f"{MEASURED}/{{task}}_sets", "sets", "Interventions", "sets"),
    log:
        f"logs/{MEASURED}/{{task}}_sets.log",
    benchmark:
        f"benchmarks/{MEASURED}/{{task}}_sets.tsv"
    wildcard_constraints:
        task=names(TASKS),
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.sets", figure="sets"),
    message:
        "Drawing how far sets of latents of {wildcards.sae} move {wildcards.task}"
    script:
        "../scripts/figures/of_tables.py"
