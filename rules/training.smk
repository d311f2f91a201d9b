# What training jobs read and take, alone and in sweeps, and what is made of it.


def train_stores(wildcards):
    """Manifests of the data set, or of all members of a union."""
    return expand(
        STORE,
        dataset=members_of(SETTINGS, wildcards.trained_on),
        model=wildcards.model,
        layer=wildcards.layer,
    )


def target_stores(wildcards):
    """Manifests of what a transcoder shall give; nothing for other SAEs."""
    point = EVERY_SAE[wildcards.sae].target_point
    return (
        []
        if point is None
        else expand(
            STORE,
            dataset=members_of(SETTINGS, wildcards.trained_on),
            model=wildcards.model,
            layer=point,
        )
    )


def together(wildcards):
    """Own settings of the SAEs that are trained on one reading of the data with this one, by name.

    They are the members of all sweeps that a study wants here and that have the same batches.
    """
    here = (wildcards.trained_on, wildcards.model, wildcards.layer)
    swept = set()
    for study in STUDIES.values():
        if (study.train_on, study.stored_model, study.point) == here:
            swept.update(*(SWEEPS[sae] for sae in study.saes if sae in SWEEPS))
    if wildcards.sae not in swept:
        swept = {wildcards.sae}

    def batches(sae):
        section = EVERY_SAE[sae]
        return section.batch_size, section.seed, section.target_point, section.tokens

    return {
        sae: own_settings(EVERY_SAE[sae])
        for sae in sorted(swept)
        if batches(sae) == batches(wildcards.sae)
    }


def training_threads(wildcards):
    """Cores of a training job."""
    if WHERE == "slurm":
        return 0
    # Members of a sweep take all there are: side by side, all but the first would only wait for it.
    return 16 if len(together(wildcards)) > 1 else SHARED_CORES


def training_memory(wildcards, input, attempt):
    """Megabytes of a training job: those configured, and what further members of a sweep add."""
    members = [EVERY_SAE[sae] for sae in together(wildcards)]
    more = 0
    if len(members) > 1:
        # Where the store is not there yet, Snakemake asks again.
        d_model = json.loads(Path(input.manifests[0]).read_text())["d_model"]
        more = further_megabytes(members, d_model)
    return (int(1000 * SETTINGS.slurm.memory_gb) + more) * 2 ** (attempt - 1)


def of_members(file):
    """Input function: a file of every member of the sweep that the wildcards name."""
    return lambda wildcards: expand(
        f"{SAE}/{file}",
        trained_on=wildcards.trained_on,
        model=wildcards.model,
        layer=wildcards.layer,
        sae=SWEEPS[wildcards.sae],
    )


def scores_of_members(wildcards):
    """Scores of every member of a sweep that wants them, on one data set of the study."""
    study = STUDIES[wildcards.study]
    dataset = scored_on(SETTINGS, study, wildcards.sae)
    return expand(
        f"{FEATURES}/scores.parquet",
        trained_on=study.train_on,
        model=study.stored_model,
        layer=study.point,
        sae=SWEEPS[wildcards.sae] if dataset else [],
        dataset=dataset,
    )


def training_metrics(wildcards):
    """Training metrics of all SAEs of a study."""
    study = STUDIES[wildcards.study]
    return expand(
        f"{SAE}/metrics.parquet",
        trained_on=study.train_on,
        model=study.stored_model,
        layer=study.point,
        sae=study.saes,
    )
