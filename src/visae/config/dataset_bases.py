"""What sections of data sets share, whatever their kind."""

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
    def may_have_groups(self) -> bool:
        """Whether its pictures may belong to groups; of some kinds only the files tell."""
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
