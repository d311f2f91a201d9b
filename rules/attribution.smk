# Where in their pictures latents look, in studies that ask for it: gradients followed back to the pixels, and their check.


localrules:
    attribution_figure,
    attribution_of_pairs_figure,


rule attribution:
    input:
        unpack(files_of_attribution),
    output:
        table=f"{FEATURES}/attribution.parquet",
        summary=f"{FEATURES}/attribution.json",
    log:
        f"logs/{FEATURES}/attribution.json.log",
    benchmark:
        f"benchmarks/{FEATURES}/attribution.json.tsv"
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(240),
        gpu=GPUS,
    params:
        spec=spec(SETTINGS.attribution, "visae.attribution.exemplars"),
    message:
        "Finding where the latents of {wildcards.sae} look in {wildcards.dataset}"
    script:
        "../scripts/attribution.py"


rule attribution_figure:
    input:
        table=described_table("attribution"),
        statistics=described_table("stats"),
        scores=scores_if_any,
        names=names_if_any,
        index=INDEX,
        card=of_study(CARD),
    output:
        **drawn(
            f"{DESCRIBED}/attribution", "attribution", "Features", "where latents look"
        ),
    log:
        f"logs/{DESCRIBED}/attribution.log",
    benchmark:
        f"benchmarks/{DESCRIBED}/attribution.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures.style(),
            "visae.figures.attribution",
            layer=STUDIES[wildcards.study].layer,
        ),
    message:
        "Drawing where the latents of {wildcards.sae} look in {wildcards.dataset}"
    script:
        "../scripts/figures/attribution.py"


rule attribution_of_pairs:
    input:
        card=CARD,
        sae=f"{SAE}/config.json",
        index=INDEX,
        codes=f"{FEATURES}/codes/manifest.json",
    output:
        table=f"{FEATURES}/attribution_of_pairs.parquet",
        summary=f"{FEATURES}/attribution_of_pairs.json",
    log:
        f"logs/{FEATURES}/attribution_of_pairs.json.log",
    benchmark:
        f"benchmarks/{FEATURES}/attribution_of_pairs.json.tsv"
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(240),
        gpu=GPUS,
    params:
        spec=spec(SETTINGS.attribution, "visae.attribution.of_pairs"),
    message:
        "Measuring whether latents of {wildcards.sae} look where pairs of {wildcards.dataset} differ"
    script:
        "../scripts/attribution_of_pairs.py"


rule attribution_of_pairs_figure:
    input:
        table=described_table("attribution_of_pairs"),
        summary=of_study(f"{FEATURES}/attribution_of_pairs.json"),
        index=INDEX,
        card=of_study(CARD),
    output:
        **drawn(
            f"{DESCRIBED}/attribution_of_pairs",
            "attribution_of_pairs",
            "Features",
            "where latents look on pairs",
        ),
    log:
        f"logs/{DESCRIBED}/attribution_of_pairs.log",
    benchmark:
        f"benchmarks/{DESCRIBED}/attribution_of_pairs.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures.style(),
            "visae.figures.attribution_of_pairs",
            layer=STUDIES[wildcards.study].layer,
        ),
    message:
        "Drawing whether latents of {wildcards.sae} look where pairs of {wildcards.dataset} differ"
    script:
        "../scripts/figures/attribution_of_pairs.py"
