# Latents that serve a shortcut: found, suppressed and compared with retraining, in studies that ask for it.


localrules:
    groups_figure,


rule groups_of_task:
    input:
        unpack(files_of_experiment),
    output:
        accuracies=f"{INTERVENTIONS}/{{task}}/groups.parquet",
        latents=f"{INTERVENTIONS}/{{task}}/spurious.parquet",
        summary=f"{INTERVENTIONS}/{{task}}/groups.json",
    log:
        f"logs/{INTERVENTIONS}/{{task}}/groups.json.log",
    benchmark:
        f"benchmarks/{INTERVENTIONS}/{{task}}/groups.json.tsv"
    wildcard_constraints:
        task=names(ON_PICTURES),
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
            SETTINGS.groups,
            "visae.groups.experiment",
            layer=edited_layer(wildcards),
            first=PATHS[wildcards.study].first,
            min_purity=SETTINGS.features.min_purity,
        ),
    message:
        "Finding and suppressing latents of {wildcards.sae} that help on train and harm in some groups, {wildcards.task}, study {wildcards.study}"
    script:
        "../scripts/groups.py"


rule groups_figure:
    input:
        accuracies=f"{INTERVENTIONS}/{{task}}/groups.parquet",
        latents=f"{INTERVENTIONS}/{{task}}/spurious.parquet",
    output:
        **drawn(f"{MEASURED}/{{task}}_groups", "groups", "Interventions", "groups"),
    log:
        f"logs/{MEASURED}/{{task}}_groups.log",
    benchmark:
        f"benchmarks/{MEASURED}/{{task}}_groups.tsv"
    wildcard_constraints:
        task=names(ON_PICTURES),
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.groups"),
    message:
        "Drawing accuracies by group before and after edits of {wildcards.sae}, {wildcards.task}"
    script:
        "../scripts/figures/groups.py"
