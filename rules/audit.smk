# The audit of meanings: what is said of latents, tested on other pictures, in studies that ask for it.

# Data sets with classes: of patches, or of pictures that some task is about.
AUDITED = [
    (name, dataset)
    for name, study in STUDIES.items()
    if study.audit
    for dataset in study.describe
    if has_masks(dataset) or dataset in study.tasks.values()
]


localrules:
    audit_figure,


def saes_audited(study, dataset):
    """SAEs of a study of which meanings can be tested there: those of class tokens say nothing of patches."""
    labelled = SETTINGS.datasets[dataset].may_have_labels
    return [sae for sae in STUDIES[study].saes if labelled or sae not in PATCHLESS]


def files_of_audit(wildcards):
    """Files that proposals of meanings come from, those that there are."""
    study = STUDIES[wildcards.study]
    on_patches = has_masks(wildcards.dataset) and wildcards.sae not in PATCHLESS
    found = {"names": names_if_any(wildcards)}
    found["labels"] = of_study(PATCH_LABELS)(wildcards) if on_patches else []
    found["proposals"] = study.proposals.get(wildcards.sae, [])
    found["effects"] = [
        f"{INTERVENTIONS}/{task}/effects.parquet".format(**wildcards)
        for task, dataset in study.tasks.items()
        if study.atlas and dataset == wildcards.dataset
    ]
    return {name: path for name, path in found.items() if path}


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
