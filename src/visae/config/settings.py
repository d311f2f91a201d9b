"""Every setting that visae has: one frozen dataclass a section, one documented field a key.

The JSON Schema, the defaults and `docs/config.md` are generated from these classes, so a key exists
in exactly one place.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

# Data sets, heads, interventions, SAEs and sweeps have modules of their own, whose sections are imported from here
# like all others.
from visae.config.attribution import AttributionSettings
from visae.config.audit import AuditSettings
from visae.config.benchmark import BenchmarkSettings
from visae.config.concepts import ConceptSettings
from visae.config.counterfactuals import CounterfactualSettings
from visae.config.dataset_bases import DatasetSettings, DrawnSettings, MaskedSettings  # noqa: F401
from visae.config.datasets import (  # noqa: F401
    ActivationsSettings,
    AnyDataset,
    HuggingFaceSettings,
    ImageFolderSettings,
    ListedFolderSettings,
    ScenePairsSettings,
    ScenesSettings,
    SegmentationFolderSettings,
    TableSettings,
    UnionSettings,
    UsersSettings,
    WebDatasetSettings,
)
from visae.config.discovery import AtlasSettings
from visae.config.fields import setting
from visae.config.gain import GainSettings
from visae.config.groups import GroupSettings
from visae.config.heads import (  # noqa: F401
    FaithfulnessSettings,
    HeadSettings,
    ProbeSettings,
    SegmentationHeadSettings,
)
from visae.config.interactions import InteractionSettings
from visae.config.interventions import InterventionSettings
from visae.config.models import ModelIdentity, ModelSettings  # noqa: F401
from visae.config.published import PublishedSettings
from visae.config.saes import (  # noqa: F401
    AnySae,
    ArchetypalSettings,
    BaselineSettings,
    BatchTopKSettings,
    FrozenDecoderSettings,
    GatedSettings,
    JumpReluSettings,
    KMeansSettings,
    MatryoshkaSettings,
    NeuronsSettings,
    NmfSettings,
    PcaSettings,
    RandomSettings,
    ReluSettings,
    SaeSettings,
    TopKSettings,
    point_text,
)
from visae.config.slurm import SlurmSettings
from visae.config.sweeps import SelectSettings, SweepSettings  # noqa: F401
from visae.config.tasks import AddedTaskSettings, ReadoutSettings, ZeroShotSettings

# --- features, figures ---------------------------------------------------------------------------


# Keys of FeatureSettings that scores alone depend on.
_SCORED = ("permutations", "purity_at", "similarity")


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """How latents are described."""

    exemplars: int = setting("Pictures kept per latent, those in which it is strongest.", 16, minimum=1)
    bins: int = setting(
        "A latent's pictures, in order of its largest value in each, are cut into that many bins of equally many, so "
        "that its whole range is shown and not the tip alone.",
        4,
        minimum=1,
    )
    exemplars_per_bin: int = setting("Pictures kept per latent and bin, drawn at random.", 4, minimum=0)
    random_exemplars: int = setting(
        "Patches kept per latent, drawn at random among all on which it is active.", 8, minimum=0
    )
    seed: int = setting("Seed of what is drawn at random.", 0, minimum=0)
    min_purity: float = setting(
        "A patch carries a class where at least this share of its pixels does.", 0.9, minimum=0.5, maximum=1
    )
    permutations: int = setting(
        "Permutations of the labels over pictures behind each null; the smallest p-value is 1 / (1 + permutations).",
        200,
        minimum=1,
    )
    purity_at: int = setting("Strongest pictures of a latent whose labels are compared (its purity).", 10, minimum=1)
    similarity: str | None = setting(
        "Which model says how alike two pictures are, for the MonoSemanticity score: a name from `models`, or `own`, "
        "the mean activations of the study itself, which cost no forward pass. Left out, the score is not computed.",
        None,
    )

    def described(self) -> FeatureSettings:
        """Return the settings with those of scores at their defaults, so that changing these encodes nothing again."""
        return FeatureSettings(
            **{spec.name: getattr(self, spec.name) for spec in fields(self) if spec.name not in _SCORED}
        )


@dataclass(frozen=True, kw_only=True)
class FigureSettings:
    """How figures look. Changing this redraws figures and nothing else."""

    font_size: float = setting("Points.", 8.0, above=0)
    dpi: int = setting("Dots per inch of the PNG.", 200, minimum=50)
    palette: Literal["okabe-ito", "grey"] = setting("Colours; both are safe for the colour-blind.", "okabe-ito")
    latents: int = setting("Latents on an exemplar sheet.", 8, minimum=1)
    exemplars: int = setting("Pictures a latent on an exemplar sheet.", 6, minimum=1)
    log10_frequency: list[float] = setting(
        "Lowest and highest log10 share of patches of latents that fill an exemplar sheet after the best of each "
        "class: neither accidents nor dense ones; an empty list sets no limit.",
        [-3.0, -1.5],
    )
    log10_mean: list[float] = setting(
        "The same for the log10 mean of their active values; an empty list sets no limit.", []
    )

    def style(self) -> FigureSettings:
        """Return what all figures share, so that an exemplar sheet's settings redraw that sheet alone."""
        return FigureSettings(font_size=self.font_size, dpi=self.dpi, palette=self.palette)


# --- studies -------------------------------------------------------------------------------------

# Stands for a model's name in paths where activations were given and no model is known.
GIVEN = "given"


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """One question: a model and layer, SAEs trained on one data set, tasks that they are tested on."""

    model: str | None = setting(
        "Name from `models`. Left out where every data set is of kind `activations`, which needs no model.", None
    )
    layer: int = setting("Block whose output is decomposed, counted from 0.", minimum=0)
    hook: Literal["residual", "attention", "mlp", "norm"] = setting(
        "What of the block is decomposed: the `residual` stream after it, what its `attention` or `mlp` adds to that "
        "stream, or the stream through the model's final `norm`. Edits need `residual`.",
        "residual",
    )
    head_layer: int | None = setting(
        "The model's last block, counted from 0: heads read its normed output. Needed by tasks only.", None, minimum=0
    )
    train_on: str = setting("Name from `datasets`: what the SAEs train on (split train).")
    saes: list[str] = setting(
        "Names from `saes` and `sweeps`; all members of a sweep are trained, the selected one is described and edited.",
        not_empty=True,
    )
    describe: list[str] = setting("Data sets on which features are described.", not_empty=True)
    names: dict[str, str] = setting(
        "CSV files of names that you gave to latents, by SAE or sweep: columns latent, name and, if you like, note. "
        "Names are carried into tables, figures and galleries.",
        {},
    )
    concepts: dict[str, ConceptSettings] = setting(
        "Concepts of your own by name, each two folders of pictures; every SAE of the study is probed for them, with "
        "`features: permutations` behind each p-value.",
        {},
    )
    classification: str | None = setting(
        "Data set with labels: a probe learns on its split train, edits are judged on its split val.", None
    )
    segmentation: str | None = setting(
        "Data set with masks: a head learns on its split train, edits are judged on its split val.", None
    )
    zero_shot: ZeroShotSettings | None = setting("Class vectors that edits are judged by.", None)
    readout: ReadoutSettings | None = setting("A readout of given activations that edits are judged by.", None)
    added_tasks: dict[str, AddedTaskSettings] = setting("Tasks that you added yourself, by name.", {})
    atlas: bool = setting(
        "Whether the latents that each task uses are looked for among all of each SAE, and proven: section `atlas`.",
        False,
    )
    counterfactuals: str | None = setting(
        "Data set of pairs of pictures that differ in one cause, on which is measured how selective latents are for "
        "single causes: section `counterfactuals`.",
        None,
    )
    attribution: bool = setting(
        "Whether it is measured where in the pictures of each described data set latents look: section `attribution`.",
        False,
    )
    groups: bool = setting(
        "Whether latents are looked for that help on train and harm in some groups of pictures, and suppressed: "
        "section `groups`. For tasks on pictures whose data set has groups.",
        False,
    )
    audit: bool = setting(
        "Whether meanings of latents are proposed and tested on other pictures, on every described data set with "
        "classes: section `audit`.",
        False,
    )
    proposals: dict[str, str] = setting(
        "CSV files of meanings that you, or a language model, propose for latents, by SAE or sweep: columns latent, "
        "meaning and, if you like, source. The audit tests them.",
        {},
    )
    gain: bool = setting(
        "Whether each SAE is compared with dictionaries that learned less, on each task: section `gain`.", False
    )
    manual: dict[str, dict[str, dict[str, list[int]]]] = setting(
        "Latents that you name yourself, by SAE or sweep, task and class: `topk: {segmentation: {sky: [12, 40]}}`. "
        "They are edited together, beside those that are chosen for the class.",
        {},
    )

    @property
    def tasks(self) -> dict[str, str]:
        """Data set of each task that the study has."""
        found = {"segmentation": self.segmentation, "classification": self.classification}
        found |= {task: section.dataset for task, section in self.task_sections.items()}
        return {task: dataset for task, dataset in found.items() if dataset is not None}

    @property
    def task_sections(self) -> dict[str, ZeroShotSettings | ReadoutSettings | AddedTaskSettings]:
        """Sections of those tasks that have one."""
        own = {"zero_shot": self.zero_shot, "readout": self.readout}
        return {task: section for task, section in {**own, **self.added_tasks}.items() if section is not None}

    @property
    def stored_model(self) -> str:
        """Name of the model as it stands in paths."""
        return self.model or GIVEN

    @property
    def point(self) -> str:
        """Layer and hook as they stand in paths: `10`, `10-attention`."""
        return point_text(self.layer, self.hook)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The whole configuration."""

    wildcard_pattern: ClassVar[str] = "^[A-Za-z0-9][A-Za-z0-9_-]*$"

    results: str = setting("Folder that everything is written to.", "results")
    seed: int = setting("Added to the seed of every section: change it to repeat a whole study.", 0, minimum=0)
    device: Literal["auto", "cpu", "cuda"] = setting("`auto` takes CUDA where there is a GPU.", "auto")
    loggers: list[Literal["tensorboard", "wandb"]] = setting(
        "Where training also sends its metrics, without effect on results; each needs an extra: "
        "`pip install visae[tensorboard]`, `visae[wandb]`. Event files lie in results/.runs/events/.",
        [],
    )
    scratch: str | None = setting(
        "Folder on a node's own disk, such as `$TMPDIR`, which the job looks up where it runs: stores are copied there "
        "before training and deleted after it, without effect on results. Left out, or where there is no room, they "
        "are read where they lie.",
        None,
    )
    datasets: dict[str, AnyDataset] = setting("Data sets by name.", not_empty=True)
    models: dict[str, ModelSettings] = setting("Models by name.", {})
    saes: dict[str, AnySae | PublishedSettings] = setting("Sparse autoencoders by name.", not_empty=True)
    sweeps: dict[str, SweepSettings] = setting("Sweeps over settings of SAEs by name.", {})
    studies: dict[str, StudySettings] = setting("Studies by name.", not_empty=True)
    features: FeatureSettings = setting("How latents are described.", FeatureSettings())
    benchmark: BenchmarkSettings = setting("Metrics of visaebench and saev (docs/benchmark.md).", BenchmarkSettings())
    heads: HeadSettings = setting("Task heads.", HeadSettings())
    interventions: InterventionSettings = setting("Edits and their measurement.", InterventionSettings())
    atlas: AtlasSettings = setting("Which latents a task uses, found and proven.", AtlasSettings())
    counterfactuals: CounterfactualSettings = setting(
        "Latents and single causes, measured on counterfactual pairs.", CounterfactualSettings()
    )
    attribution: AttributionSettings = setting("Where latents look.", AttributionSettings())
    groups: GroupSettings = setting("Latents that serve a shortcut, found and suppressed.", GroupSettings())
    interactions: InteractionSettings = setting(
        "What the latents of an atlas do together, in studies that have one.", InteractionSettings()
    )
    audit: AuditSettings = setting("What is said of latents, tested on other pictures.", AuditSettings())
    gain: GainSettings = setting("What an SAE adds to dictionaries that learned less.", GainSettings())
    faithfulness: FaithfulnessSettings = setting("What replacing activations costs.", FaithfulnessSettings())
    figures: FigureSettings = setting("How figures look.", FigureSettings())
    cluster: Literal["auto", "slurm", "local", "debug"] = setting(
        "Where SAEs are trained: in jobs of their own on `slurm`, or `local`, in Snakemake's job; `auto` takes Slurm "
        "where it answers. `debug` is what Slurm would run, but here, under Python's debugger.",
        "auto",
    )
    slurm: SlurmSettings = setting("Training jobs on Slurm.", SlurmSettings())
    environment: Literal["cpu", "cuda"] = setting("Which of `envs/` jobs use under `--sdm conda`.", "cpu")
