# An SAE by the metrics of visaebench and saev, and the page of the report that has them.


localrules:
    sae_benchmark_page,


rule sae_benchmark:
    input:
        codes=f"{FEATURES}/codes/manifest.json",
        store=STORE,
        index=INDEX,
        sae=f"{SAE}/config.json",
        labels=labels_if_any,
        judge=judge_if_any,
        groups=SETTINGS.benchmark.groups or [],
        other_codes=of_others(f"{FEATURES}/codes/manifest.json"),
        other_stores=of_others(STORE),
        other_indices=of_others(INDEX),
    output:
        benchmark=f"{FEATURES}/benchmark.parquet",
    log:
        f"logs/{FEATURES}/benchmark.parquet.log",
    benchmark:
        f"benchmarks/{FEATURES}/benchmark.parquet.tsv"
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(240),
        gpu=GPUS,
    params:
        spec=lambda wildcards: spec(
            SETTINGS.benchmark,
            "visae.features.benchmark.table",
            others=others_of(wildcards.dataset),
            min_purity=SETTINGS.features.min_purity,
        ),
    message:
        "Measuring {wildcards.sae} on {wildcards.dataset} by the metrics of visaebench and saev"
    script:
        "../scripts/sae_benchmark.py"


rule sae_benchmark_page:
    input:
        tables=every_sae_described("benchmark", left_out=()),
    output:
        html=report(
            f"{FIGURES}/{{dataset}}/benchmark.html",
            caption="../report/benchmark.rst",
            category="Features",
            labels={
                "study": "{study}",
                "dataset": "{dataset}",
                "figure": "metrics of visaebench and saev",
            },
        ),
        csv=f"{FIGURES}/{{dataset}}/benchmark.csv",
    log:
        f"logs/{FIGURES}/{{dataset}}/benchmark.log",
    benchmark:
        f"benchmarks/{FIGURES}/{{dataset}}/benchmark.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            None, "visae.figures.benchmark", saes=STUDIES[wildcards.study].saes
        ),
    message:
        "Writing the metrics of visaebench and saev of study {wildcards.study} on {wildcards.dataset}"
    script:
        "../scripts/figures/benchmark.py"
