# What each latent responds to: sparse codes, statistics, exemplars, scores against concepts and known causes; and what
# people call it.


localrules:
    names,


rule encode:
    input:
        manifest=STORE,
        sae=f"{SAE}/config.json",
    output:
        manifest=f"{FEATURES}/codes/manifest.json",
    log:
        f"logs/{FEATURES}/codes/manifest.json.log",
    benchmark:
        f"benchmarks/{FEATURES}/codes/manifest.json.tsv"
    priority: LEADS
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(240),
        gpu=GPUS,
    params:
        spec=spec(SETTINGS.features.described(), "visae.features.encoding"),
    message:
        "Encoding {wildcards.dataset} with SAE {wildcards.sae}"
    script:
        "../scripts/encode.py"


rule statistics:
    input:
        codes=f"{FEATURES}/codes/manifest.json",
        sae=f"{SAE}/config.json",
        index=INDEX,
        labels=labels_if_any,
    output:
        statistics=f"{FEATURES}/stats.parquet",
    log:
        f"logs/{FEATURES}/stats.parquet.log",
    benchmark:
        f"benchmarks/{FEATURES}/stats.parquet.tsv"
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(4000),
        runtime=grown(60),
    params:
        spec=spec(SETTINGS.features.described(), "visae.features.statistics"),
    message:
        "Counting what the latents of {wildcards.sae} do on {wildcards.dataset}"
    script:
        "../scripts/statistics.py"


rule exemplars:
    input:
        codes=f"{FEATURES}/codes/manifest.json",
        index=INDEX,
    output:
        exemplars=f"{FEATURES}/exemplars.parquet",
    log:
        f"logs/{FEATURES}/exemplars.parquet.log",
    benchmark:
        f"benchmarks/{FEATURES}/exemplars.parquet.tsv"
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(4000),
        runtime=grown(60),
    params:
        spec=spec(SETTINGS.features.described(), "visae.features.exemplars"),
    message:
        "Finding exemplars for the latents of {wildcards.sae} in {wildcards.dataset}"
    script:
        "../scripts/exemplars.py"


rule scores:
    input:
        codes=f"{FEATURES}/codes/manifest.json",
        labels=PATCH_LABELS,
        index=INDEX,
    output:
        scores=f"{FEATURES}/scores.parquet",
    log:
        f"logs/{FEATURES}/scores.parquet.log",
    benchmark:
        f"benchmarks/{FEATURES}/scores.parquet.tsv"
    priority: LEADS
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(4000),
        runtime=grown(240),
    params:
        spec=spec(SETTINGS.features, "visae.features.scores"),
    message:
        "Scoring the latents of {wildcards.sae} against the classes of {wildcards.dataset}"
    script:
        "../scripts/scores.py"


rule causes:
    input:
        codes=f"{FEATURES}/codes/manifest.json",
        labels=PATCH_LABELS,
        index=INDEX,
    output:
        causes=f"{FEATURES}/causes.parquet",
    log:
        f"logs/{FEATURES}/causes.parquet.log",
    benchmark:
        f"benchmarks/{FEATURES}/causes.parquet.tsv"
    wildcard_constraints:
        dataset=names(SCENES),
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(4000),
        runtime=grown(60),
    params:
        spec=spec(SETTINGS.features.described(), "visae.features.ground_truth"),
    message:
        "Scoring the latents of {wildcards.sae} against the known causes of {wildcards.dataset}"
    script:
        "../scripts/causes.py"


rule names:
    input:
        given=given_names,
        sae=f"{SAE}/config.json",
    output:
        names=NAMES,
    log:
        f"logs/{NAMES}.log",
    benchmark:
        f"benchmarks/{NAMES}.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.features.described(), "visae.features.names"),
    message:
        "Checking the names of latents of {wildcards.sae}"
    script:
        "../scripts/names.py"


rule image_scores:
    input:
        codes=f"{FEATURES}/codes/manifest.json",
        index=INDEX,
    output:
        scores=f"{FEATURES}/image_scores.parquet",
    log:
        f"logs/{FEATURES}/image_scores.parquet.log",
    benchmark:
        f"benchmarks/{FEATURES}/image_scores.parquet.tsv"
    priority: LEADS
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(4000),
        runtime=grown(240),
    params:
        spec=spec(SETTINGS.features, "visae.features.image_scores"),
    message:
        "Scoring the latents of {wildcards.sae} against the pictures' classes of {wildcards.dataset}"
    script:
        "../scripts/image_scores.py"


rule purity:
    input:
        codes=f"{FEATURES}/codes/manifest.json",
        labels=labels_if_any,
        index=INDEX,
    output:
        purity=f"{FEATURES}/purity.parquet",
    log:
        f"logs/{FEATURES}/purity.parquet.log",
    benchmark:
        f"benchmarks/{FEATURES}/purity.parquet.tsv"
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(4000),
        runtime=grown(240),
    params:
        spec=spec(SETTINGS.features, "visae.features.purity"),
    message:
        "Comparing the labels of what the latents of {wildcards.sae} show in {wildcards.dataset}"
    script:
        "../scripts/purity.py"


rule monosemanticity:
    input:
        codes=f"{FEATURES}/codes/manifest.json",
        judge=judge_of_similarity,
        index=INDEX,
    output:
        scores=f"{FEATURES}/monosemanticity.parquet",
    log:
        f"logs/{FEATURES}/monosemanticity.parquet.log",
    benchmark:
        f"benchmarks/{FEATURES}/monosemanticity.parquet.tsv"
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(4000),
        runtime=grown(240),
        gpu=GPUS,
    params:
        spec=spec(SETTINGS.features, "visae.features.monosemanticity"),
    message:
        "Comparing the pictures that activate the latents of {wildcards.sae} in {wildcards.dataset}"
    script:
        "../scripts/monosemanticity.py"


rule concept:
    input:
        sae=of_study(f"{SAE}/config.json"),
        card=of_study(CARD),
        pictures=pictures_of_concept,
    output:
        probe=f"{CONCEPT}/probe.parquet",
        latents=f"{CONCEPT}/latents.parquet",
        summary=f"{CONCEPT}/summary.json",
    log:
        f"logs/{CONCEPT}/probe.parquet.log",
    benchmark:
        f"benchmarks/{CONCEPT}/probe.parquet.tsv"
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(60),
        gpu=GPUS,
    params:
        spec=lambda wildcards: spec(
            STUDIES[wildcards.study].concepts[wildcards.concept],
            "visae.features.semantic_probe",
            layer=STUDIES[wildcards.study].point,
            permutations=SETTINGS.features.permutations,
        ),
    message:
        "Probing {wildcards.sae} for the concept {wildcards.concept}"
    script:
        "../scripts/concept.py"
