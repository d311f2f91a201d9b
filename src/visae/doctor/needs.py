"""What a study will need, as `visae plan` counts it, as far as that can be known now."""

from __future__ import annotations

from visae.config.settings import Settings
from visae.planning.needs import CodesNeed, Needs, SaeNeed, StoreNeed


class Wanted:
    """Needs of stores, SAEs and codes; empty where a data set or model could not be looked at.

    Parameters
    ----------
    pictures
        Number of pictures by data set, of those that could be counted.

    Attributes
    ----------
    why_not
        Why they are not known; empty where they are.
    """

    _ACTIVE = 100.0  # active latents a patch where nothing bounds them, as `visae plan` assumes

    def __init__(self, settings: Settings, pictures: dict[str, int]) -> None:
        self.settings, self.pictures = settings, pictures
        self.why_not = "models were not looked at"
        self.stores: list[StoreNeed] = []
        self.saes: list[SaeNeed] = []
        self.codes: list[CodesNeed] = []

    @property
    def n_bytes(self) -> int:
        """Bytes of stores, SAEs and codes; 0 where they are not known."""
        parts = (self.stores, self.saes, self.codes)
        return sum(need.bytes for part in parts for need in part)

    def count(self) -> None:
        """Count them, once models are known to be there."""
        try:
            needs = Needs(self.settings, self.pictures, self._ACTIVE)
            self.stores, self.saes, self.codes = needs.stores(), needs.saes(), needs.codes()
            self.why_not = ""
        except KeyError as error:
            self.why_not = f"the pictures of {error} are not counted"
        except Exception as error:  # what is wrong is said where it is looked at
            self.why_not = str(error).splitlines()[0] if str(error) else type(error).__name__
