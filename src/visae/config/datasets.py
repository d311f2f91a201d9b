"""The sections of data sets: one frozen dataclass a kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from visae.config.dataset_bases import DatasetSettings, DrawnSettings, MaskedSettings
from visae.config.fields import setting
from visae.config.scenes import ScenePairsSettings, ScenesSettings


@dataclass(frozen=True, kw_only=True)
class ImageFolderSettings(DrawnSettings):
    """Pictures in folders, by default one folder a class."""

    kind: Literal["image_folder"]
    root: str = setting("Folder that holds the pictures.")
    splits: dict[str, str] = setting(
        "Split name to subfolder of `root` (train, val, test). Empty: `root` itself holds everything and "
        "splits are drawn by seed.",
        {},
    )
    labels: Literal["folder", "none"] = setting("Where a picture's class comes from.", "folder")

    @property
    def may_have_labels(self) -> bool:
        """Where folders are classes."""
        return self.labels == "folder"


@dataclass(frozen=True, kw_only=True)
class SegmentationFolderSettings(MaskedSettings):
    """`images/<folder>/NAME.jpg` beside `annotations/<folder>/NAME.png` (0 = unlabelled) and `classes.txt`."""

    kind: Literal["segmentation_folder"]
    root: str = setting("Folder that holds `images`, `annotations` and `classes.txt`.")
    splits: dict[str, str] = setting(
        "Split name to folder name below `images` and `annotations`.", {"train": "train", "val": "val"}, not_empty=True
    )

    @property
    def has_masks(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, kw_only=True)
class ListedFolderSettings(DatasetSettings):
    """CUB-200-2011 or NABirds as unpacked: pictures below `images`, and four lists that say which they are.

    The lists are `images.txt`, `image_class_labels.txt`, `classes.txt`, and `train_test_split.txt`, whose test pictures
    become val.
    """

    kind: Literal["listed_folder"]
    root: str = setting("Folder that holds `images` and the lists.")

    @property
    def may_have_labels(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, kw_only=True)
class TableSettings(DrawnSettings, MaskedSettings):
    """A CSV or Parquet file with a row a picture: `path`, and `split`, `label`, `label_name`, `mask`, `group`.

    Pictures that differ in one thing: `pair`, `cause` and `region` (docs/counterfactuals.md).
    """

    kind: Literal["table"]
    file: str = setting("The table: a `.csv` or `.parquet` file.")
    root: str | None = setting("Folder that relative paths in the table start at; none: the table's own.", None)
    classes: str | None = setting(
        "File that lists the classes of the masks, as `classes.txt` of a segmentation_folder does; needed with a "
        "column `mask`, and only then.",
        None,
    )

    @property
    def has_masks(self) -> bool:
        """Where the classes of masks are named."""
        return self.classes is not None

    @property
    def may_have_labels(self) -> bool:
        """Only the table tells."""
        return True

    @property
    def may_have_groups(self) -> bool:
        """Only the table tells."""
        return True


@dataclass(frozen=True, kw_only=True)
class WebDatasetSettings(DrawnSettings, MaskedSettings):
    """Pictures in tar files, as WebDataset keeps them (`KEY.jpg`, `KEY.cls`, `KEY.mask.png`); nothing is unpacked."""

    kind: Literal["webdataset"]
    root: str = setting("Folder that holds the tar files.")
    splits: dict[str, str] = setting(
        "Split name to pattern of tar files below `root`, such as `train-*.tar` or `train-{0000..0012}.tar`. Empty: "
        "splits are drawn by seed from all `*.tar`, by the pictures' keys.",
        {},
    )
    labels: Literal["members", "none"] = setting(
        "Where a picture's class comes from: its `.cls` or `.json`; `none`: no label is read.", "members"
    )
    classes: str | None = setting(
        "File that lists the classes of the masks, as `classes.txt` of a segmentation_folder does; needed with masks, "
        "and only then.",
        None,
    )

    @property
    def has_masks(self) -> bool:
        """Where the classes of masks are named."""
        return self.classes is not None

    @property
    def may_have_labels(self) -> bool:
        """Only the tar files tell, where they are asked."""
        return self.labels == "members"


@dataclass(frozen=True, kw_only=True)
class HuggingFaceSettings(DrawnSettings, MaskedSettings):
    """Parquet files as the Hugging Face hub serves data sets of pictures; they are read where they lie."""

    kind: Literal["huggingface"]
    root: str = setting("Folder that holds the Parquet files: what was downloaded of the hub, or a folder in it.")
    splits: dict[str, str] = setting(
        "Split name to pattern of Parquet files below `root`, or to a folder in it: `data/train-*.parquet`, "
        "`data/val`. Empty: names of files and folders tell (`train-00000-of-00005.parquet`, `test/0000.parquet`, "
        "where validation is val); where none does, splits are drawn by seed.",
        {},
    )
    image: str = setting(
        "Column of the pictures, `outer.inner` within a struct; `auto`: the only one of pictures.", "auto"
    )
    label: str = setting(
        "Column of the classes, integers or texts; `auto`: the only one whose classes are named, else `label`, and "
        "beside masks none; `none`: no label is read.",
        "auto",
    )
    mask: str | None = setting("Column of the masks, as pictures of class ids; needs `classes`.", None)
    group: str | None = setting(
        "Column of the groups that pictures belong to, integers or texts, empty or -1 where a picture has none.", None
    )
    classes: str | None = setting(
        "File that lists the classes of the masks, as `classes.txt` of a segmentation_folder does; needed with `mask`, "
        "and only then.",
        None,
    )

    @property
    def label_column(self) -> str | None:
        """What `label` says; None where no label is read."""
        unread = self.label == "none" or (self.label == "auto" and self.mask is not None)
        return None if unread else self.label

    @property
    def has_masks(self) -> bool:
        """Where a column has them."""
        return self.mask is not None

    @property
    def may_have_groups(self) -> bool:
        """Where a column has them."""
        return self.group is not None

    @property
    def may_have_labels(self) -> bool:
        """Only the files tell, where they are asked."""
        return self.label_column is not None


@dataclass(frozen=True, kw_only=True)
class ActivationsSettings(DatasetSettings):
    """Vectors of the user's own, from any model, of pictures or not; everything up to features works on them."""

    kind: Literal["activations"]
    root: str = setting(
        "Folder of Parquet files (columns `activation`, `image_id`, and optionally `token`), or one with subfolders "
        "train and val of them, or the folder of a store's manifest.json."
    )
    val_share: float = setting(
        "Share of the pictures, the last ones, that becomes val where `root` has no subfolders.",
        0.1,
        minimum=0,
        maximum=0.9,
    )
    dtype: Literal["float16", "bfloat16", "float32"] = setting("How they are stored.", "float32")

    @property
    def is_given(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, kw_only=True)
class UsersSettings(DatasetSettings):
    """Made on the spot: vectors of users as a recommender has them, and its items, with every user's tastes known."""

    kind: Literal["users"]
    train: int = setting("Users to train on.", 8000, minimum=1)
    val: int = setting("Users to measure on.", 1000, minimum=1)
    test: int = setting("Users kept apart.", 100, minimum=1)
    tastes: int = setting("Tastes that there are.", 12, minimum=2)
    tastes_per_user: int = setting("Tastes of a user, at most; each number up to it is equally frequent.", 4, minimum=1)
    items_per_taste: int = setting("Items of each taste.", 15, minimum=2)
    d_model: int = setting("Dimension of the vectors.", 64, minimum=4)
    noise: float = setting("Length of what is random in a user's vector, a taste's direction being 1.", 0.3, minimum=0)
    item_noise: float = setting("Length of what an item's vector has beside its taste.", 0.6, minimum=0)

    @property
    def is_given(self) -> bool:
        """Always."""
        return True

    def as_given(self, root: str) -> ActivationsSettings:
        """Return the section of activations that lie in a folder, for these once they are made."""
        return ActivationsSettings(kind="activations", root=root, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class UnionSettings(DatasetSettings):
    """Several data sets read as one to train SAEs on; nothing is stored twice."""

    kind: Literal["union"]
    members: list[str] = setting("Names of the data sets to join.", not_empty=True)


AnyDataset = (
    ScenesSettings
    | ImageFolderSettings
    | SegmentationFolderSettings
    | ListedFolderSettings
    | TableSettings
    | WebDatasetSettings
    | HuggingFaceSettings
    | ActivationsSettings
    | UsersSettings
    | UnionSettings
    | ScenePairsSettings
)
