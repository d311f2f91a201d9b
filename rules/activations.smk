# A job a shard and layer, and a light job a layer that publishes its manifest.
#
# The first job of a shard writes all layers that are missing in one forward pass; the jobs of the other layers then find
# theirs whole. Which layers those are, and how the model is fed, are resources: they decide how fast a job is and not
# what it makes, so that a new layer or batch size redoes nothing that was there.


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
    priority: LEADS
    conda:
        ENVIRONMENT
    # As many as there are, up to this: two forward passes side by side would do the work twice.
    threads: 16
    resources:
        mem_mb=grown(8000),
        runtime=grown(240),
        gpu=GPUS,
        layers=lambda wildcards: " ".join(
            layers_of(SETTINGS, wildcards.dataset, wildcards.model)
        ),
        edited=lambda wildcards: " ".join(edited_layers(SETTINGS, wildcards.model)),
        batch_size=lambda wildcards: SETTINGS.models[wildcards.model].batch_size,
        workers=lambda wildcards: str(SETTINGS.models[wildcards.model].workers),
    params:
        spec=stored_spec,
    message:
        "Reading layer {wildcards.layer} of {wildcards.model} on {wildcards.dataset}, shard {wildcards.shard}"
    script:
        "../scripts/extract.py"


rule store:
    input:
        index=INDEX,
        card=CARD,
        receipts=receipts,
    output:
        manifest=STORE,
    log:
        f"logs/{STORE}.log",
    benchmark:
        f"benchmarks/{STORE}.tsv"
    wildcard_constraints:
        dataset=names(set(SETTINGS.datasets) - {*UNIONS, *GIVEN_SETS}),
    priority: LEADS
    conda:
        ENVIRONMENT
    resources:
        mem_mb=grown(2000),
        runtime=grown(30),
    params:
        spec=stored_spec,
    message:
        "Publishing layer {wildcards.layer} of {wildcards.model} on {wildcards.dataset}"
    script:
        "../scripts/store.py"


rule adopt:
    input:
        unpack(made_activations),
    output:
        manifest=STORE,
    log:
        f"logs/{STORE}.log",
    benchmark:
        f"benchmarks/{STORE}.tsv"
    wildcard_constraints:
        dataset=names(GIVEN_SETS),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=grown(4000),
        runtime=grown(240),
    params:
        spec=lambda wildcards: spec(
            SETTINGS.datasets[wildcards.dataset], "visae.activations.given"
        ),
    message:
        "Taking in the given activations {wildcards.dataset}"
    script:
        "../scripts/adopt.py"
