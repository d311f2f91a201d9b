# What a study is, and the experiment: edit latents inside the network and measure what a task's readout then says, against fair controls.


localrules:
    study,


rule study:
    output:
        study=STUDY,
    log:
        f"logs/{STUDY}.log",
    benchmark:
        f"benchmarks/{STUDY}.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(STUDIES[wildcards.study]),
    message:
        "Writing what study {wildcards.study} is"
    script:
        "../scripts/study.py"


rule experiment:
    input:
        unpack(files_of_experiment),
    output:
        arms=f"{INTERVENTIONS}/{{task}}/arms.parquet",
        becomes=f"{INTERVENTIONS}/{{task}}/becomes.parquet",
        examples=f"{INTERVENTIONS}/{{task}}/examples.parquet",
        doses=f"{INTERVENTIONS}/{{task}}/doses.parquet",
        untrained=f"{INTERVENTIONS}/{{task}}/untrained.parquet",
        summary=f"{INTERVENTIONS}/{{task}}/summary.json",
    log:
        f"logs/{INTERVENTIONS}/{{task}}/summary.json.log",
    benchmark:
        f"benchmarks/{INTERVENTIONS}/{{task}}/summary.json.tsv"
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
            SETTINGS.interventions,
            "visae.experiments.experiment",
            layer=edited_layer(wildcards),
            first=PATHS[wildcards.study].first,
            min_purity=SETTINGS.features.min_purity,
            manual=STUDIES[wildcards.study]
            .manual.get(wildcards.sae, {})
            .get(wildcards.task, {}),
        ),
    message:
        "Editing latents of {wildcards.sae} and measuring {wildcards.task}, study {wildcards.study}"
    script:
        "../scripts/experiment.py"


rule faithfulness:
    input:
        unpack(files_of_faithfulness),
    output:
        table=f"{INTERVENTIONS}/faithfulness.parquet",
        summary=f"{INTERVENTIONS}/faithfulness.json",
    log:
        f"logs/{INTERVENTIONS}/faithfulness.json.log",
    benchmark:
        f"benchmarks/{INTERVENTIONS}/faithfulness.json.tsv"
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(120),
        gpu=GPUS,
    params:
        spec=lambda wildcards: spec(
            SETTINGS.faithfulness,
            "visae.experiments.faithfulness",
            layer=edited_layer(wildcards),
            first=PATHS[wildcards.study].first,
        ),
    message:
        "Measuring what the reconstruction of {wildcards.sae} keeps, study {wildcards.study}"
    script:
        "../scripts/faithfulness.py"
