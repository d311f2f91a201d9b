# The experiment: edit one latent inside the network and measure what the heads then say, against fair controls.


rule segmentation_arms:
    input:
        manifest=of_study(STORE, dataset="segmentation"),
        sae=of_study(f"{SAE}/config.json"),
        codes=of_study(f"{FEATURES}/codes/manifest.json", dataset="segmentation"),
        scores=of_study(f"{FEATURES}/scores.parquet", dataset="segmentation"),
        head=of_study(f"{HEADS}/segmentation/metrics.json", dataset="segmentation"),
        labels=of_study(PATCH_LABELS, dataset="segmentation"),
        index=of_study(INDEX, dataset="segmentation"),
        card=of_study(CARD),
    output:
        arms=f"{INTERVENTIONS}/segmentation/arms.parquet",
        becomes=f"{INTERVENTIONS}/segmentation/becomes.parquet",
        maps=f"{INTERVENTIONS}/segmentation/maps.parquet",
        doses=f"{INTERVENTIONS}/segmentation/doses.parquet",
        untrained=f"{INTERVENTIONS}/segmentation/untrained.parquet",
        summary=f"{INTERVENTIONS}/segmentation/summary.json",
    log:
        f"logs/{INTERVENTIONS}/segmentation/summary.json.log",
    benchmark:
        f"benchmarks/{INTERVENTIONS}/segmentation/summary.json.tsv"
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
            "visae.interventions.segmentation",
            layer=edited_layer(wildcards),
            min_purity=SETTINGS.features.min_purity,
            manual=STUDIES[wildcards.study]
            .manual.get(wildcards.sae, {})
            .get("segmentation", {}),
        ),
    message:
        "Editing latents of {wildcards.sae} and measuring segmentation, study {wildcards.study}"
    script:
        "../scripts/segmentation_arms.py"


rule classification_edits:
    input:
        manifest=of_study(STORE, dataset="classification"),
        sae=of_study(f"{SAE}/config.json"),
        codes=of_study(f"{FEATURES}/codes/manifest.json", dataset="classification"),
        probe=of_study(f"{HEADS}/probe/metrics.json", dataset="classification"),
        index=of_study(INDEX, dataset="classification"),
        card=of_study(CARD),
    output:
        edits=f"{INTERVENTIONS}/classification/edits.parquet",
        moved=f"{INTERVENTIONS}/classification/moved.parquet",
        examples=f"{INTERVENTIONS}/classification/examples.parquet",
        summary=f"{INTERVENTIONS}/classification/summary.json",
    log:
        f"logs/{INTERVENTIONS}/classification/summary.json.log",
    benchmark:
        f"benchmarks/{INTERVENTIONS}/classification/summary.json.tsv"
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
            "visae.interventions.classification",
            layer=edited_layer(wildcards),
            manual=STUDIES[wildcards.study]
            .manual.get(wildcards.sae, {})
            .get("classification", {}),
        ),
    message:
        "Editing latents of {wildcards.sae} and measuring classification, study {wildcards.study}"
    script:
        "../scripts/classification_edits.py"


rule faithfulness:
    input:
        sae=of_study(f"{SAE}/config.json"),
        card=of_study(CARD),
        classification_manifest=of_task(STORE, "classification"),
        classification_index=of_task(INDEX, "classification"),
        probe_metrics=of_task(f"{HEADS}/probe/metrics.json", "classification"),
        segmentation_manifest=of_task(STORE, "segmentation"),
        segmentation_index=of_task(INDEX, "segmentation"),
        patch_labels=of_task(PATCH_LABELS, "segmentation"),
        head_metrics=of_task(f"{HEADS}/segmentation/metrics.json", "segmentation"),
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
            "visae.interventions.faithfulness",
            layer=edited_layer(wildcards),
        ),
    message:
        "Measuring what the reconstruction of {wildcards.sae} keeps, study {wildcards.study}"
    script:
        "../scripts/faithfulness.py"
