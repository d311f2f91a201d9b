# Figures of features.


localrules:
    ground_truth_figure,
    feature_map_figure,
    exemplar_figure,
    exemplar_range_figure,
    class_latents_figure,
    score_nulls_figure,


rule ground_truth_figure:
    input:
        tables=every_sae_described("causes"),
    output:
        **drawn(
            f"{FIGURES}/{{dataset}}/ground_truth",
            "ground_truth",
            "Features",
            "known causes",
        ),
    log:
        f"logs/{FIGURES}/{{dataset}}/ground_truth.log",
    benchmark:
        f"benchmarks/{FIGURES}/{{dataset}}/ground_truth.tsv"
    wildcard_constraints:
        dataset=names(SCENES),
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures.style(),
            "visae.figures.ground_truth",
            figure="ground_truth",
            saes=[
                sae for sae in STUDIES[wildcards.study].saes if sae not in PATCHLESS
            ],
        ),
    message:
        "Drawing how well study {wildcards.study} tells the known causes of {wildcards.dataset}"
    script:
        "../scripts/figures/of_tables.py"


rule feature_map_figure:
    input:
        statistics=described_table("stats"),
        scores=scores_if_any,
        names=names_if_any,
    output:
        **drawn(f"{DESCRIBED}/feature_map", "feature_map", "Features", "feature map"),
    log:
        f"logs/{DESCRIBED}/feature_map.log",
    benchmark:
        f"benchmarks/{DESCRIBED}/feature_map.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.feature_map"),
    message:
        "Drawing the map of the latents of {wildcards.sae} on {wildcards.dataset}"
    script:
        "../scripts/figures/feature_map.py"


rule exemplar_figure:
    input:
        exemplars=described_table("exemplars"),
        statistics=described_table("stats"),
        scores=scores_if_any,
        names=names_if_any,
        index=INDEX,
        card=of_study(CARD),
    output:
        **drawn(f"{DESCRIBED}/exemplars", "exemplars", "Features", "exemplars"),
    log:
        f"logs/{DESCRIBED}/exemplars.log",
    benchmark:
        f"benchmarks/{DESCRIBED}/exemplars.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures,
            "visae.figures.exemplars",
            layer=STUDIES[wildcards.study].layer,
            whole_range=False,
        ),
    message:
        "Drawing exemplars of {wildcards.sae} on {wildcards.dataset}"
    script:
        "../scripts/figures/exemplars.py"


rule exemplar_range_figure:
    input:
        exemplars=described_table("exemplars"),
        statistics=described_table("stats"),
        scores=scores_if_any,
        names=names_if_any,
        index=INDEX,
        card=of_study(CARD),
    output:
        **drawn(
            f"{DESCRIBED}/exemplar_range", "exemplar_range", "Features", "whole range"
        ),
    log:
        f"logs/{DESCRIBED}/exemplar_range.log",
    benchmark:
        f"benchmarks/{DESCRIBED}/exemplar_range.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=lambda wildcards: spec(
            SETTINGS.figures,
            "visae.figures.exemplars",
            layer=STUDIES[wildcards.study].layer,
            whole_range=True,
        ),
    message:
        "Drawing the whole range of {wildcards.sae} on {wildcards.dataset}"
    script:
        "../scripts/figures/exemplars.py"


rule class_latents_figure:
    input:
        scores=described_table("scores"),
        names=names_if_any,
    output:
        **drawn(f"{DESCRIBED}/class_latents", "class_latents", "Features", "classes"),
    log:
        f"logs/{DESCRIBED}/class_latents.log",
    benchmark:
        f"benchmarks/{DESCRIBED}/class_latents.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(SETTINGS.figures.style(), "visae.figures.class_latents"),
    message:
        "Drawing the best latents of each class of {wildcards.dataset} in {wildcards.sae}"
    script:
        "../scripts/figures/class_latents.py"


rule score_nulls_figure:
    input:
        table=described_table("scores"),
    output:
        **drawn(
            f"{DESCRIBED}/score_nulls", "score_nulls", "Features", "scores and nulls"
        ),
    log:
        f"logs/{DESCRIBED}/score_nulls.log",
    benchmark:
        f"benchmarks/{DESCRIBED}/score_nulls.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec(
            SETTINGS.figures.style(), "visae.figures.score_nulls", figure="score_nulls"
        ),
    message:
        "Drawing scores of {wildcards.sae} on {wildcards.dataset} against their nulls"
    script:
        "../scripts/figures/of_tables.py"
