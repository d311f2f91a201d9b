"""The sections of data sets: one frozen dataclass a kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from visae.config.fields import setting


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """What all data sets share.

    Splits have fixed roles: everything is learned and chosen on `train` and measured on `val`; `test` is kept apart.
    """

    shards: int = setting("Files that the activations are cut into; each is a job of its own.", 1, minimum=1)
    max_unreadable: float = setting(
        "Share of unreadable pictures above which the data set is refused; fewer are skipped and listed.",
        0.01,
        minimum=0,
        maximum=1,
    )
    seed: int = setting(
        "Seed of what is random in this data set (made pictures, drawn splits, tokens_per_image).", 0, minimum=0
    )
    tokens_per_image: int | None = setting(
        "Patches kept of each picture, drawn by seed; [CLS] and registers are always kept. For large sets to train "
        "on: all other uses need whole pictures.",
        None,
        minimum=1,
    )
    hashes: bool = setting(
        "Whether the index keeps a sha256 of every picture; without it, and with `check: size`, copies in two splits "
        "are noticed only where they are links to one file.",
        True,
    )
    check: Literal["decode", "size"] = setting(
        "`decode`: every picture is decoded once, so that damaged ones are skipped now; `size`: only its header is "
        "read, and a damaged one stops the extraction of activations.",
        "decode",
    )

    @property
    def has_masks(self) -> bool:
        """Whether its pictures have masks."""
        return False

    @property
    def may_have_labels(self) -> bool:
        """Whether its pictures may have labels; of some kinds only the files tell."""
        return False

    @property
    def is_given(self) -> bool:
        """Whether it is vectors, which need no model, and no pictures."""
        return False


@dataclass(frozen=True, kw_only=True)
class DrawnSettings(DatasetSettings):
    """What data sets share that may come without splits."""

    val_share: float = setting("Share drawn for val where no splits are given.", 0.1, minimum=0, maximum=0.9)
    test_share: float = setting("Share drawn for test where no splits are given.", 0.1, minimum=0, maximum=0.9)


@dataclass(frozen=True, kw_only=True)
class MaskedSettings(DatasetSettings):
    """What data sets share whose pictures may have masks of the user's own."""

    ignore_ids: list[int] = setting(
        "Ids in masks that count as unlabelled, as 0 does, such as 255; a class's id leaves that class out.", []
    )
    zero_based: bool = setting(
        "Whether 0 is a class in masks and in the list of classes, and not unlabelled. In results, ids of classes are "
        "then one more than in masks.",
        False,
    )
    mask_frame: Literal["unknown", "turned", "raw"] = setting(
        "How masks of pictures with an EXIF orientation lie: `turned`, as a viewer shows the picture; `raw`, as its "
        "pixels are stored, so that they are turned with it. `unknown`: taken as turned, with a warning.",
        "unknown",
    )


@dataclass(frozen=True, kw_only=True)
class ScenesSettings(DatasetSettings):
    """Made on the spot: shapes with photographic textures on photographs, every cause known."""

    kind: Literal["scenes"]
    train: int = setting("Pictures to train on.", 480, minimum=1)
    val: int = setting("Pictures to measure on.", 120, minimum=1)
    test: int = setting("Pictures kept apart.", 120, minimum=1)
    image_size: int = setting("Side of a picture in pixels.", 224, minimum=32)

    @property
    def has_masks(self) -> bool:
        """Always."""
        return True

    @property
    def may_have_labels(self) -> bool:
        """Always."""
        return True


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
    """A CSV or Parquet file with a row a picture: `path`, and where known `split`, `label`, `label_name`, `mask`."""

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
    | ActivationsSettings
    | UsersSettings
    | UnionSettings
)
