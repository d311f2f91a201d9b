# What an SAE adds to dictionaries that learned less, in studies that ask for it: these are trained once for each SAE.

COMPARED = f"{SAE}/compared/manifest.json"


localrules:
    gain_figure,


rule compared_dictionaries:
    input:
        manifests=train_stores,
        config=f"{SAE}/config.json",
        summary=f"{SAE}/summary.json",
    output:
        manifest=COMPARED,
    log:
        f"logs/{COMPARED}.log",
    benchmark:
        f"benchmarks/{COMPARED}.tsv"
    priority: LEADS
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(12000),
        runtime=grown(480),
        gpu=GPUS,
    params:
        spec=spec(SETTINGS.gain.trained(), "visae.gain.train"),
    message:
        "Training dictionaries to compare {wildcards.sae} with"
    script:
        "../scripts/compared.py"


rule gain_of_task:
    input:
        unpack(files_of_experiment),
        compared=of_study(COMPARED),
    output:
        table=f"{INTERVENTIONS}/{{task}}/gain.parquet",
        tests=f"{INTERVENTIONS}/{{task}}/gain_tests.parquet",
        discoveries=f"{INTERVENTIONS}/{{task}}/discoveries.parquet",
        summary=f"{INTERVENTIONS}/{{task}}/gain.json",
    log:
        f"logs/{INTERVENTIONS}/{{task}}/gain.json.log",
    benchmark:
        f"benchmarks/{INTERVENTIONS}/{{task}}/gain.json.tsv"
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
            SETTINGS.gain,
            "visae.gain.compare",
            layer=edited_layer(wildcards),
            first=PATHS[wildcards.study].first,
            min_purity=SETTINGS.features.min_purity,
        ),
    message:
        "Measuring what {wildcards.sae} adds on {wildcards.task}, study {wildcards.study}"
    script:
        "../scripts/gain.py"


rule gain_figure:
    input:
        table=f"{INTERVENTIONS}/{{task}}/gain.parquet",
    output:
        **drawn(
            f"{MEASURED}/{{task}}_gain", "gain", "Interventions", "what an SAE adds"
        ),
    log:
        f"logs/{MEASURED}/{{task}}_gain.log",
    benchmark:
        f"benchmarks/{MEASURED}/{{task}}_gain.tsv"
    wildcard_constraints:
        task=names(TASKS),
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.gain", figure="gain"),
    message:
        "Drawing what {wildcards.sae} adds on {wildcards.task}"
    script:
        "../scripts/figures/of_tables.py"
