"""A model's shape and arithmetic, without its weights."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from visae.config.settings import ModelSettings
from visae.errors import ModelError
from visae.vision.assumptions import own_size
from visae.vision.model import HookPoint, VisionModel, card_of
from visae.vision.origins import Origin
from visae.vision.timm_import import import_timm
from visae.vision.weights import created


class PlannedModel:
    """A model as its settings say; nothing is downloaded.

    Attributes
    ----------
    card
        Shapes as in model.json.
    """

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        import_timm()
        try:
            self._network = self._built("meta")
        except (ModelError, RuntimeError):  # networks of stages must be run to know their shapes
            self._network = self._built("cpu")
        self.card = self._network.card
        self._flop: dict[tuple[str, ...], float] = {}

    def network(self, device: torch.device) -> VisionModel:
        """The network with random weights, to be run."""
        return self._built("cpu").to(device)

    def pixels(self, pictures: int, device: torch.device) -> torch.Tensor:
        """Black pictures to run it on, uint8 (pictures, 3, height, width)."""
        return torch.zeros(pictures, 3, *self.card.image_size, dtype=torch.uint8, device=device)

    def flop(self, layers: list[str]) -> float:
        """Floating-point operations of a picture's forward pass to the deepest of these layers."""
        key = tuple(layers)
        if key not in self._flop:
            device = next(self._network.parameters()).device
            # The counter knows attention by its matrix products only.
            with device, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
                self._network.read(self.pixels(1, device), [HookPoint.parse(layer) for layer in layers])
            self._flop[key] = float(counted.get_total_flops())
        return self._flop[key]

    def _built(self, device: str) -> VisionModel:
        with torch.device(device):
            size = own_size(self.settings, Origin())
            module = created(self.settings.architecture, size, pretrained=False).eval()
            return VisionModel(module, card_of(module, self.settings.identity(), "", ""))
