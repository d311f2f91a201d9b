# One forward pass a shard writes all layers that are missing; a light job a layer publishes its manifest.
#
# A new layer runs `extract` again, which finds the old layers whole and leaves them. Their manifests depend on the
# receipts as `ancient`, so nothing that was made from an old layer is made again.


localrules:
    store,


rule extract:
    input:
        index=INDEX,
        card=CARD,
    output:
        receipt=RECEIPT,
    log:
        f"logs/{RECEIPT}.log",
    benchmark:
        f"benchmarks/{RECEIPT}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        mem_mb=grown(8000),
        runtime=grown(240),
        gpus=GPUS,
    params:
        spec=lambda wildcards: activation_spec(
            SETTINGS.models[wildcards.model],
            wildcards.dataset,
            layers=layers_of(wildcards.dataset, wildcards.model),
        ),
    message:
        "Reading activations of {wildcards.model} on {wildcards.dataset}, shard {wildcards.shard}"
    script:
        "../scripts/extract.py"


rule store:
    input:
        index=INDEX,
        card=CARD,
        receipts=lambda wildcards: ancient(
            expand(
                RECEIPT,
                shard=range(SETTINGS.datasets[wildcards.dataset].shards),
                allow_missing=True,
            )
        ),
    output:
        manifest=STORE,
    log:
        f"logs/{STORE}.log",
    benchmark:
        f"benchmarks/{STORE}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=grown(2000),
        runtime=grown(30),
    params:
        spec=lambda wildcards: activation_spec(
            SETTINGS.models[wildcards.model].as_stored(), wildcards.dataset
        ),
    message:
        "Publishing layer {wildcards.layer} of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/store.py"
