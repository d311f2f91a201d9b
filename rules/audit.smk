# The audit of meanings: what is said of latents, tested on other pictures, in studies that ask for it.


localrules:
    audit_figure,


rule audit_of_meanings:
    input:
        unpack(files_of_audit),
        codes=of_study(f"{FEATURES}/codes/manifest.json"),
        index=INDEX,
        sae=of_study(f"{SAE}/config.json"),
        manifest=of_study(STORE),
    output:
        proposals=f"{AUDIT}/proposals.parquet",
        yields=f"{AUDIT}/yields.parquet",
        summary=f"{AUDIT}/audit.json",
    log:
        f"logs/{AUDIT}/audit.json.log",
    benchmark:
        f"benchmarks/{AUDIT}/audit.json.tsv"
    conda:
        ENVIRONMENT
    threads: SHARED_CORES
    resources:
        mem_mb=grown(8000),
        runtime=grown(240),
        gpu=GPUS,
    params:
        spec=spec(
            SETTINGS.audit,
            "visae.audit.audit",
            min_purity=SETTINGS.features.min_purity,
        ),
    message:
        "Testing what is said of the latents of {wildcards.sae} on {wildcards.dataset}, study {wildcards.study}"
    script:
        "../scripts/audit.py"


rule audit_figure:
    input:
        tables=lambda wildcards: [
            f"{AUDIT}/yields.parquet".format(**wildcards, sae=sae)
            for sae in saes_audited(wildcards.study, wildcards.dataset)
        ],
    output:
        **drawn(f"{FIGURES}/{{dataset}}/audit", "audit", "Features", "audit"),
    log:
        f"logs/{FIGURES}/{{dataset}}/audit.log",
    benchmark:
        f"benchmarks/{FIGURES}/{{dataset}}/audit.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures.style(),
            "visae.figures.audit",
            figure="audit",
            saes=saes_audited(wildcards.study, wildcards.dataset),
        ),
    message:
        "Drawing what survives the audit of study {wildcards.study} on {wildcards.dataset}"
    script:
        "../scripts/figures/of_tables.py"
