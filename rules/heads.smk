# Task heads on the frozen model's last block, trained from the store.


rule probe:
    input:
        manifest=of_last_layer(STORE),
        index=INDEX,
        card=CARD,
    output:
        metrics=f"{HEADS}/probe/metrics.json",
        weights=f"{HEADS}/probe/weights.safetensors",
        classes=f"{HEADS}/probe/classes.parquet",
        confusion=f"{HEADS}/probe/confusion.parquet",
        reliability=f"{HEADS}/probe/reliability.parquet",
    log:
        f"logs/{HEADS}/probe/metrics.json.log",
    benchmark:
        f"benchmarks/{HEADS}/probe/metrics.json.tsv"
    priority: LEADS
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(120),
        gpu=GPUS,
    params:
        spec=spec(SETTINGS.heads.probe, "visae.heads.probe"),
    message:
        "Training a linear probe on {wildcards.dataset}"
    script:
        "../scripts/probe.py"


rule segmentation_head:
    input:
        manifest=of_last_layer(STORE),
        index=INDEX,
        labels=of_last_layer(PATCH_LABELS),
        card=CARD,
    output:
        metrics=f"{HEADS}/segmentation/metrics.json",
        weights=f"{HEADS}/segmentation/weights.safetensors",
        classes=f"{HEADS}/segmentation/classes.parquet",
        confusion=f"{HEADS}/segmentation/confusion.parquet",
    log:
        f"logs/{HEADS}/segmentation/metrics.json.log",
    benchmark:
        f"benchmarks/{HEADS}/segmentation/metrics.json.tsv"
    priority: LEADS
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(120),
        gpu=GPUS,
    params:
        spec=spec(SETTINGS.heads.segmentation, "visae.heads.segmentation"),
    message:
        "Training a segmentation head on {wildcards.dataset}"
    script:
        "../scripts/segmentation_head.py"
