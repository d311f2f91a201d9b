"""How long the needed arithmetic takes: at a rate that somebody states, or at one measured here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from visae.config.settings import AnySae, BaselineSettings, RandomSettings
from visae.device import chosen_device, described
from visae.planning.needs import CodesNeed, Needs, SaeNeed, StoreNeed, encoding_flop, training_flop
from visae.sae.autoencoder import SparseAutoencoder
from visae.sae.initial import initial_sae
from visae.sae.run import TrainingRun
from visae.vision.hook_points import HookPoint

# A measurement repeats until it has taken so many seconds, after one repetition that does not count.
_SECONDS = 3.0
# Size of a batch that is measured on a CPU, where whole batches of large studies take minutes.
_CPU_TOKENS, _CPU_PICTURES = 1024, 8
_SAMPLE = 4096


class StatedSpeed:
    """The same rate for everything."""

    def __init__(self, tflops: float) -> None:
        self._rate = tflops * 1e12
        self.source = f"at {tflops:g} TFLOP/s, which is an assumption (--tflops)"

    def hours(self, need: StoreNeed | SaeNeed | CodesNeed) -> float:
        """Hours of one row."""
        return need.flop / self._rate / 3600


class MeasuredSpeed:
    """Rates of this machine: models on noise, SAEs on random activations; each kind is run once for some seconds.

    Reading pictures and stores has no part in it.
    """

    def __init__(self, needs: Needs) -> None:
        self.needs = needs
        self.device = chosen_device(needs.settings.device)
        self.source = f"as measured on {described(self.device)} with random weights and inputs (--measure)"
        self._rates: dict[object, float] = {}

    def hours(self, need: StoreNeed | SaeNeed | CodesNeed) -> float:
        """Hours of one row."""
        if not need.flop:  # a baseline's training
            return 0.0
        if isinstance(need, StoreNeed):
            rate = self._rate(("forward", need.model, *need.layers), lambda: self._forward(need))
        else:
            section = self.needs.members(need.sae)[0]  # members of a sweep count as alike
            sae, trains = self.needs.untrained(self.needs.study_of(need), section), isinstance(need, SaeNeed)
            rate = self._rate((trains, need.sae, sae.d_model), lambda: self._sae(section, sae, trains))
        return need.flop / rate / 3600

    def _rate(self, key: object, measured: Callable[[], float]) -> float:
        if key not in self._rates:
            self._rates[key] = measured()
        return self._rates[key]

    def _forward(self, need: StoreNeed) -> float:
        model = self.needs.models[need.model]
        batch = self._size(model.settings.batch_size, _CPU_PICTURES)
        network, pixels = model.network(self.device), model.pixels(batch, self.device)
        points = [HookPoint.parse(layer) for layer in need.layers]
        return batch * model.flop(need.layers) / self._seconds(lambda: network.read(pixels, points))

    def _sae(self, section: AnySae, sae: SparseAutoencoder, trains: bool) -> float:
        n = self._size(section.batch_size, _CPU_TOKENS)
        sample = torch.randn(_SAMPLE, sae.d_model)
        target = torch.randn(_SAMPLE, sae.d_target) if sae.is_transcoder else None
        if isinstance(section, BaselineSettings):  # fitting takes long, and encoding is as fast without
            section = RandomSettings(variant="random", expansion=section.expansion, k=section.k)
        section = replace(section, batch_size=n)
        run = TrainingRun(section, initial_sae(section, sample, 0, target).to(self.device))
        batch = torch.randn(n, sae.d_model)
        wanted = torch.randn(n, sae.d_target) if sae.is_transcoder else None
        if trains:
            return n * training_flop(sae) / self._seconds(lambda: run.advance(batch, wanted))
        batch = batch.to(self.device)
        return n * encoding_flop(sae) / self._seconds(lambda: run.sae.sparse_codes(batch))

    def _size(self, batch: int, on_cpu: int) -> int:
        return min(batch, on_cpu) if self.device.type == "cpu" else batch

    def _seconds(self, act: Callable[[], object]) -> float:
        """Seconds that it takes, once it is warm."""
        act()
        self._wait()
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < _SECONDS:
            act()
            self._wait()
            done += 1
        return (time.perf_counter() - began) / done

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
