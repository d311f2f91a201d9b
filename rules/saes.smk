# Sparse autoencoders, each trained on the stores of one data set at one layer.


rule train_sae:
    input:
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
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(720),
        gpus=GPUS,
    params:
        spec=lambda wildcards: spec(
            SETTINGS.saes[wildcards.sae], "visae.sae.trainer", runs=f"{RESULTS}/.runs"
        ),
    message:
        "Training SAE {wildcards.sae} on {wildcards.trained_on}, layer {wildcards.layer} of {wildcards.model}"
    script:
        "../scripts/train_sae.py"
