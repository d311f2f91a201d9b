# What each stage makes for the configured studies: the lists that the named targets of the Snakefile ask for.

# --- data, models, activations ---
DATASETS = expand(INDEX, dataset=used_datasets(SETTINGS))
MODELS = expand(CARD, model=[model for model in USED_MODELS if model != GIVEN])
STORES = [
    STORE.format(dataset=dataset, model=model, layer=layer)
    for dataset in used_datasets(SETTINGS)
    for model in USED_MODELS
    for layer in layers_of(SETTINGS, dataset, model)
]

# --- sparse autoencoders ---
SAES = over_studies(f"{SAE}/summary.json") + [
    path
    for path in over_studies(f"{SAE}/stability.parquet")
    if path.split("/")[-2] in SEED_SWEEPS
]

# --- features ---
SCORED = [
    path
    for path in over_studies(f"{FEATURES}/scores.parquet")
    if has_masks(path.split("/")[-2]) and is_on_patches(path)
]
KNOWN_CAUSES = [
    path
    for path in over_studies(f"{FEATURES}/causes.parquet")
    if path.split("/")[-2] in SCENES and is_on_patches(path)
]
SCORED_BY_IMAGE = over_studies(
    f"{FEATURES}/image_scores.parquet", dataset="classification"
)
PROBED = [
    f"{CONCEPT}/probe.parquet".format(study=name, sae=sae, concept=concept)
    for name, study in STUDIES.items()
    for sae in study.saes
    for concept in study.concepts
]
LABELLED = sorted({path.rsplit("/", 1)[0] for path in SCORED + SCORED_BY_IMAGE})
FEATURE_TABLES = (
    over_studies(f"{FEATURES}/stats.parquet")
    + over_studies(f"{FEATURES}/exemplars.parquet")
    + SCORED
    + KNOWN_CAUSES
    + SCORED_BY_IMAGE
    + PROBED
    + [f"{folder}/purity.parquet" for folder in LABELLED]
    + (
        over_studies(f"{FEATURES}/benchmark.parquet")
        if SETTINGS.benchmark.enabled
        else []
    )
    + (
        over_studies(f"{FEATURES}/monosemanticity.parquet")
        if SETTINGS.features.similarity
        else []
    )
)

# --- attribution: where latents look ---
ATTRIBUTED = {name: study for name, study in STUDIES.items() if study.attribution}
ATTRIBUTIONS, ATTRIBUTION_FIGURES = (
    [
        path
        for path in over_studies(f"{folder}/attribution.{kind}", ATTRIBUTED)
        if path.split("/")[-2] not in GIVEN_SETS
    ]
    + sorted(
        {
            f"{folder}/attribution_of_pairs.{kind}".format(
                study=name,
                sae=sae,
                dataset=study.counterfactuals,
                trained_on=study.train_on,
                model=study.stored_model,
                layer=study.point,
            )
            for name, study in ATTRIBUTED.items()
            for sae in study.saes
            if study.counterfactuals
        }
    )
    for folder, kind in ((FEATURES, "json"), (DESCRIBED, "png"))
)

# --- heads ---
TASK_HEADS = over_studies(
    f"{HEADS}/probe/metrics.json", dataset="classification"
) + over_studies(f"{HEADS}/segmentation/metrics.json", dataset="segmentation")

# --- interventions ---
EXPERIMENTS = of_experiments(f"{INTERVENTIONS}/{{task}}/summary.json")
WITH_ATLAS = {name: study for name, study in STUDIES.items() if study.atlas}
OF_ATLAS = ["atlas"]
OF_ATLAS += ["interactions"] if SETTINGS.interactions.latents else []
OF_ATLAS += ["sets"] if SETTINGS.atlas.sets.sizes else []
ATLASES, ATLAS_FIGURES = (
    [
        path
        for pattern in patterns
        for path in of_experiments(pattern, SETTINGS.atlas.tasks or TASKS, WITH_ATLAS)
    ]
    for patterns in (
        [f"{INTERVENTIONS}/{{task}}/{name}.json" for name in OF_ATLAS],
        [f"{MEASURED}/{{task}}_{name}.png" for name in OF_ATLAS],
    )
)
WITH_PAIRS = [name for name, study in STUDIES.items() if study.counterfactuals]
OF_PAIRS = expand(f"{COUNTERFACTUALS}/summary.json", study=WITH_PAIRS)
FIGURES_OF_PAIRS = [
    f"{FIGURES}/{figure}.png".format(study=name)
    for name in WITH_PAIRS
    for figure in ("selective", "cause_latents", "cause_edits")
]
WITH_GROUPS = {name: study for name, study in STUDIES.items() if study.groups}
GROUPS = of_experiments(
    f"{INTERVENTIONS}/{{task}}/groups.json", ON_PICTURES, WITH_GROUPS
)
# Data sets with classes: of patches, or of pictures that some task is about.
AUDITED = [
    (name, dataset)
    for name, study in STUDIES.items()
    if study.audit
    for dataset in study.describe
    if has_masks(dataset) or dataset in study.tasks.values()
]
AUDITS = [
    f"{AUDIT}/audit.json".format(study=name, sae=sae, dataset=dataset)
    for name, dataset in AUDITED
    for sae in saes_audited(name, dataset)
]
AUDIT_FIGURES = [
    f"{FIGURES}/{{dataset}}/audit.png".format(study=name, dataset=dataset)
    for name, dataset in AUDITED
    if saes_audited(name, dataset)
]
WITH_GAIN = {name: study for name, study in STUDIES.items() if study.gain}
GAINS = of_experiments(f"{INTERVENTIONS}/{{task}}/gain.json", studies=WITH_GAIN)
FAITHFULNESS = sorted(
    f"{INTERVENTIONS}/faithfulness.json".format(study=name, sae=sae)
    for name, study in STUDIES.items()
    for sae in study.saes
    if study.tasks
)

# --- figures ---
SHEETS = [
    f"{SHEET}.png".format(dataset=dataset, model=model)
    for dataset in used_datasets(SETTINGS)
    for model in USED_MODELS
    if dataset not in GIVEN_SETS and layers_of(SETTINGS, dataset, model)
]
PICTURES = (
    [WHAT_WAS_READ]
    + SHEETS
    + over_studies(f"{FIGURES}/training.png")
    + [
        path
        for path in over_studies(f"{MEASURED}/pareto.png")
        if path.split("/")[-2] in SWEEPS
    ]
    + [
        path
        for path in over_studies(f"{FIGURES}/{{dataset}}/ground_truth.png")
        if path.split("/")[-2] in SCENES
        and set(STUDIES[path.split("/")[-3]].saes) - set(PATCHLESS)
    ]
    + (
        over_studies(f"{FIGURES}/{{dataset}}/benchmark.html")
        if SETTINGS.benchmark.enabled
        else []
    )
    + over_studies(f"{DESCRIBED}/feature_map.png")
    + [
        path
        for figure in ("exemplars", "exemplar_range")
        for path in over_studies(f"{DESCRIBED}/{figure}.png")
        if path.split("/")[-2] not in GIVEN_SETS
    ]
    + [
        path
        for figure in ("class_latents", "score_nulls")
        for path in over_studies(f"{DESCRIBED}/{figure}.png")
        if has_masks(path.split("/")[-2]) and is_on_patches(path)
    ]
    + of_experiments(f"{MEASURED}/{{task}}_arms.png")
    + (
        of_experiments(f"{MEASURED}/{{task}}_doses.png")
        if SETTINGS.interventions.doses
        else []
    )
    + ATLAS_FIGURES
    + FIGURES_OF_PAIRS
    + ATTRIBUTION_FIGURES
    + of_experiments(f"{MEASURED}/{{task}}_groups.png", ON_PICTURES, WITH_GROUPS)
    + AUDIT_FIGURES
    + of_experiments(f"{MEASURED}/{{task}}_gain.png", studies=WITH_GAIN)
    + over_studies(f"{MEASURED}/segmentation_maps.png", dataset="segmentation")
    + of_experiments(f"{MEASURED}/{{task}}_probabilities.png", ON_PICTURES)
    + [
        path
        for head, task in TASK_OF_HEAD.items()
        for path in over_studies(f"{FIGURES}/{head}_confusion.png", dataset=task)
    ]
    + over_studies(f"{FIGURES}/probe_calibration.png", dataset="classification")
    + sorted(
        f"{MEASURED}/faithfulness.png".format(study=name, sae=sae)
        for name, study in STUDIES.items()
        for sae in study.saes
        if study.tasks
    )
    + of_experiments(f"{MEASURED}/{{task}}_strips.png", ("segmentation", *ON_PICTURES))
)
REPORT = f"{RESULTS}/report.html"
