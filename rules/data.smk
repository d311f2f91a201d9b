# Pictures on disk -> one index row a picture; masks -> one label a patch.


rule index:
    output:
        index=INDEX,
        summary=f"{RESULTS}/datasets/{{dataset}}/summary.json",
        skipped=f"{RESULTS}/datasets/{{dataset}}/skipped.csv",
    log:
        f"logs/{INDEX}.log",
    benchmark:
        f"benchmarks/{INDEX}.tsv"
    wildcard_constraints:
        dataset=names(set(SETTINGS.datasets) - {*UNIONS, *USERS}),
    priority: LEADS
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(4000),
        runtime=grown(120),
    params:
        spec=lambda wildcards: spec(
            SETTINGS.datasets[wildcards.dataset], "visae.data.index"
        ),
    message:
        "Indexing the pictures of {wildcards.dataset}"
    script:
        "../scripts/index.py"


rule users:
    output:
        index=INDEX,
        summary=f"{RESULTS}/datasets/{{dataset}}/summary.json",
        skipped=f"{RESULTS}/datasets/{{dataset}}/skipped.csv",
        readout=USERS_READOUT,
        truth=f"{RESULTS}/datasets/{{dataset}}/truth.safetensors",
        liked=f"{RESULTS}/datasets/{{dataset}}/liked.parquet",
    log:
        f"logs/{INDEX}.log",
    benchmark:
        f"benchmarks/{INDEX}.tsv"
    wildcard_constraints:
        dataset=names(USERS),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=grown(2000),
        runtime=grown(30),
    params:
        spec=lambda wildcards: spec(
            SETTINGS.datasets[wildcards.dataset], "visae.data.users"
        ),
    message:
        "Making the users of {wildcards.dataset}"
    script:
        "../scripts/users.py"


rule patch_labels:
    input:
        index=INDEX,
        # It says which ids of masks count as unlabelled.
        summary=f"{RESULTS}/datasets/{{dataset}}/summary.json",
        card=CARD,
    output:
        labels=PATCH_LABELS,
    log:
        f"logs/{PATCH_LABELS}.log",
    benchmark:
        f"benchmarks/{PATCH_LABELS}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=grown(4000),
        runtime=grown(60),
    params:
        spec=spec(SETTINGS.features.described(), "visae.data.patch_labels"),
    message:
        "Labelling the patches of {wildcards.dataset} on the grid of {wildcards.model}, layer {wildcards.layer}"
    script:
        "../scripts/patch_labels.py"
