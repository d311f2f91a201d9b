# Where everything lies, and which of it a job reads. Each path is a public interface: see results/README.md.

INDEX = f"{RESULTS}/{layout.INDEX}"
PATCH_LABELS = f"{RESULTS}/{layout.PATCH_LABELS}"
CARD = f"{RESULTS}/{layout.CARD}"
STORE = f"{RESULTS}/{layout.STORE}"
RECEIPT = f"{RESULTS}/{layout.RECEIPT}"
SAE = f"{RESULTS}/{layout.SAE}"
NAMES = f"{SAE}/names.csv"
CONCEPT = f"{RESULTS}/{layout.CONCEPT}"
FEATURES = f"{RESULTS}/{layout.FEATURES}"
HEADS = f"{RESULTS}/{layout.HEADS}"
INTERVENTIONS = f"{RESULTS}/{layout.INTERVENTIONS}"
COUNTERFACTUALS = f"{RESULTS}/{layout.COUNTERFACTUALS}"
AUDIT = f"{RESULTS}/{layout.AUDIT}"
STUDY = f"{RESULTS}/{layout.STUDY}"
USERS_READOUT = f"{RESULTS}/{layout.USERS_READOUT}"
FRONT_PAGE = f"{os.path.abspath(RESULTS)}/.runs/front-page.rst"
TASK_OF_HEAD = {"probe": "classification", "segmentation": "segmentation"}
SHEET = f"{RESULTS}/datasets/{{dataset}}/sheet-{{model}}"
WHAT_WAS_READ = f"{RESULTS}/what_was_read.html"
ON_PICTURES = [task for task, kind in TASKS.items() if kind.unit == "picture"]
FIGURES = f"{RESULTS}/{layout.FIGURES}"
PATHS = {
    name: layout.StudyPaths(Path(RESULTS), name, study)
    for name, study in STUDIES.items()
}
DESCRIBED = f"{FIGURES}/{{sae}}/{{dataset}}"
MEASURED = f"{FIGURES}/{{sae}}"


def of_study(pattern, **fixed):
    """Input function that fills a pattern from the study that the wildcards name."""

    def filled(wildcards):
        study = STUDIES[wildcards.study]
        known = dict(
            trained_on=study.train_on, model=study.stored_model, layer=study.point
        )
        known.update(wildcards.items())
        known.update({key: study.tasks[value] for key, value in fixed.items()})
        return pattern.format(**known)

    return filled


def files_of_experiment(wildcards):
    """Files of a task, and of the SAE whose latents are edited."""
    found = PATHS[wildcards.study].experiment(wildcards.task, wildcards.sae)
    if wildcards.sae in PATCHLESS:
        found.pop("scores", None)
    return found


def other_saes(wildcards):
    """The study's other SAEs of the same tokens, and none of the members of a sweep but its best one."""
    study = STUDIES[wildcards.study]
    classes = wildcards.sae in PATCHLESS
    others = [
        sae
        for sae in study.saes
        if sae != wildcards.sae and (sae in PATCHLESS) == classes
    ]
    return expand(
        f"{SAE}/config.json",
        trained_on=study.train_on,
        model=study.stored_model,
        layer=study.point,
        sae=others,
    )


def files_of_faithfulness(wildcards):
    """Files of all tasks of a study, each named after its task, and the SAE."""
    paths = PATHS[wildcards.study]
    found = {
        f"{task}_{name}": path
        for task in paths.settings.tasks
        for name, path in paths.task(task).items()
    }
    return {"sae": of_study(f"{SAE}/config.json")(wildcards), **found}


def confusion_of_head(wildcards):
    """Confusion matrix of a head of the study."""
    task = TASK_OF_HEAD[wildcards.head]
    return of_study(f"{HEADS}/{{head}}/confusion.parquet", dataset=task)(wildcards)


def stored_spec(wildcards):
    """What decides the values of a store, apart from the layer."""
    dataset = SETTINGS.datasets[wildcards.dataset]
    return spec(
        SETTINGS.models[wildcards.model].as_stored(),
        "visae.activations.extract",
        shards=dataset.shards,
        tokens_per_image=dataset.tokens_per_image,
        token_seed=SETTINGS.seed + dataset.seed,
    )


def made_activations(wildcards):
    """Index beside which activations lie that are made on the spot; nothing for a user's own."""
    return {"index": INDEX.format(**wildcards)} if wildcards.dataset in USERS else {}


def receipts(wildcards):
    """Receipts of all shards of a layer."""
    shards = range(SETTINGS.datasets[wildcards.dataset].shards)
    return [RECEIPT.format(shard=shard, **wildcards) for shard in shards]


def of_last_layer(pattern):
    """Input function that fills a pattern for a model's last block, whose normed tokens the heads read."""

    def filled(wildcards):
        layers = {
            study.head_layer
            for study in STUDIES.values()
            if study.stored_model == wildcards.model and study.head_layer is not None
        }
        return pattern.format(layer=max(layers), **wildcards)

    return filled


def edited_layer(wildcards):
    """Block whose output is edited."""
    return STUDIES[wildcards.study].layer


def has_masks(dataset):
    """Whether concept scores can be had on a data set."""
    return SETTINGS.datasets[dataset].has_masks


def described_table(name):
    """Input function: a table of the study's SAE on a described data set."""
    return of_study(f"{FEATURES}/{name}.parquet")


def every_sae_described(name, left_out=PATCHLESS):
    """Input function: a table of each SAE of the study but those left out, on a described data set."""

    def tables(wildcards):
        study = STUDIES[wildcards.study]
        return expand(
            f"{FEATURES}/{name}.parquet",
            trained_on=study.train_on,
            model=study.stored_model,
            layer=study.point,
            sae=[sae for sae in study.saes if sae not in left_out],
            dataset=wildcards.dataset,
        )

    return tables


def labels_if_any(wildcards):
    """Patch labels where the data set has masks and the SAE codes of patches, else nothing."""
    asked = has_masks(wildcards.dataset) and wildcards.sae not in PATCHLESS
    return PATCH_LABELS.format(**wildcards) if asked else []


def judge_of_similarity(wildcards):
    """What pictures are compared by: the card of another model, or the study's own activations."""
    judge = SETTINGS.features.similarity
    own = judge in (None, "own") or wildcards.dataset in GIVEN_SETS
    return STORE.format(**wildcards) if own else CARD.format(model=judge)


def judge_if_any(wildcards):
    """What pictures are compared by, where the configuration names it, else nothing."""
    return judge_of_similarity(wildcards) if SETTINGS.features.similarity else []


def others_of(dataset):
    """Data sets that a described one is compared with by the benchmark."""
    return [name for name in SETTINGS.benchmark.others if name != dataset]


def of_others(pattern):
    """Input function: a file of each of them."""
    return lambda wildcards: [
        pattern.format(**{**wildcards, "dataset": name})
        for name in others_of(wildcards.dataset)
    ]


def scores_if_any(wildcards):
    """Concept scores where the data set has masks and the SAE codes of patches, else nothing."""
    asked = has_masks(wildcards.dataset) and wildcards.sae not in PATCHLESS
    return described_table("scores")(wildcards) if asked else []


def files_of_names(trained_on, model, layer, sae):
    """Files of names that studies give to the latents of an SAE: one or none."""
    return {
        study.names[sae]
        for study in STUDIES.values()
        if (study.train_on, study.stored_model, study.point)
        == (trained_on, model, layer)
        and sae in study.names
    }


def given_names(wildcards):
    """The file of names of an SAE, as the configuration has it."""
    return min(files_of_names(**wildcards))


def files_of_attribution(wildcards):
    """Files that latents and their pictures are chosen from, and the network that is followed back."""
    found = {"card": CARD, "sae": f"{SAE}/config.json", "index": INDEX}
    found |= {name: f"{FEATURES}/{name}.parquet" for name in ("exemplars", "stats")}
    if has_masks(wildcards.dataset) and wildcards.sae not in PATCHLESS:
        found["scores"] = f"{FEATURES}/scores.parquet"
    if wildcards.dataset in {study.classification for study in STUDIES.values()}:
        found["image_scores"] = f"{FEATURES}/image_scores.parquet"
    if files_of_names(
        wildcards.trained_on, wildcards.model, wildcards.layer, wildcards.sae
    ):
        found["names"] = NAMES
    return {name: path.format(**wildcards) for name, path in found.items()}


def names_if_any(wildcards):
    """Checked names of the study's SAE, where some study gives any."""
    study = STUDIES[wildcards.study]
    known = files_of_names(
        study.train_on, study.stored_model, study.point, wildcards.sae
    )
    return of_study(NAMES)(wildcards) if known else []


def pictures_of_concept(wildcards):
    """Files of both folders of a concept."""
    concept = STUDIES[wildcards.study].concepts[wildcards.concept]
    try:
        found = concept_files(Path(concept.positives), Path(concept.negatives))
    except DataError as error:
        place = f"studies: {wildcards.study}: concepts: {wildcards.concept}"
        raise WorkflowError(f"{place}: {error}") from None
    return [str(path) for files in found.values() for path in files]


def outcomes_of_task(wildcards):
    """What strips of a task are drawn from."""
    of_task = {"dataset": wildcards.task}
    return {
        "examples": f"{INTERVENTIONS}/{wildcards.task}/examples.parquet".format(
            **wildcards
        ),
        "exemplars": of_study(f"{FEATURES}/exemplars.parquet", **of_task)(wildcards),
        "index": of_study(INDEX, **of_task)(wildcards),
        "summary": f"{INTERVENTIONS}/{wildcards.task}/summary.json".format(**wildcards),
    }


def drawn(stem, caption, category, figure):
    """Outputs of a figure: the PNG, which the report shows, the PDF, and the numbers behind it."""
    labels = {
        key: f"{{{key}}}"
        for key in ("study", "sae", "dataset", "model", "task")
        if f"{{{key}}}" in stem
    }
    png = report(
        f"{stem}.png",
        caption=f"../report/{caption}.rst",
        category=category,
        labels={**labels, "figure": figure},
    )
    return dict(png=png, pdf=f"{stem}.pdf", csv=f"{stem}.csv")


def is_on_patches(path):
    """Whether a file in a folder of an SAE and a data set is of an SAE with codes of patches."""
    return path.split("/")[-3] not in PATCHLESS


def over_studies(pattern, studies=STUDIES, **fixed):
    """Fill a pattern for every study, SAE and described data set; a fixed key names a task of the study."""
    found = []
    for name, study in studies.items():
        tasks = {key: study.tasks.get(task) for key, task in fixed.items()}
        if None in tasks.values():
            continue
        for dataset in [tasks["dataset"]] if "dataset" in tasks else study.describe:
            found += expand(
                pattern,
                study=name,
                sae=study.saes,
                dataset=dataset,
                trained_on=study.train_on,
                model=study.stored_model,
                layer=study.point,
            )
    return sorted(set(found))


def of_experiments(pattern, tasks=TASKS, studies=STUDIES):
    """Fill a pattern for every SAE and task, of some kinds, of studies."""
    return sorted(
        pattern.format(study=name, sae=sae, task=task)
        for name, study in studies.items()
        for sae in study.saes
        for task in study.tasks
        if task in tasks
    )


def has_atlas(task):
    """Whether the atlas of a study that has one is made for a task."""
    return not SETTINGS.atlas.tasks or task in SETTINGS.atlas.tasks


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
        if study.atlas and dataset == wildcards.dataset and has_atlas(task)
    ]
    return {name: path for name, path in found.items() if path}
