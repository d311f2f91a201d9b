"""Being told to stop or to save: SIGTERM (a cluster), Ctrl-C and SIGUSR1 are answered at the end of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch

from visae.sae.parallel import ALONE, Ranks


class Interruption:
    """Within the block, SIGTERM and SIGINT are noted instead of acted upon; `raise_if_asked` then acts.

    SIGUSR1, which Slurm and people send to have a checkpoint, is noted too, and nothing stops for it unless somebody
    handled it before: submitit does, and requeues the job once the checkpoint is written. A second SIGINT acts at once.
    A signal to one of several processes (`ranks`) counts for all: they act at the same step. Outside the main thread,
    where Python takes no signals, nothing is changed.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self.asked: int | None = None
        self._keep_asked = False
        self._pass_on = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._former.items():
            if number == signal.SIGUSR1 and handler == signal.SIG_DFL:
                # By default it kills. Whoever asks for a checkpoint while results are written wants them written.
                handler = signal.SIG_IGN  # noqa: PLW2901
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def take_keep_asked(self) -> bool:
        """Whether a checkpoint is due since the last call, because somebody asked for one or the run will stop."""
        if self._ranks.count > 1:
            noted = self._ranks.greatest(torch.tensor([self.asked or 0, int(self._keep_asked)], device=self._device()))
            self.asked, self._keep_asked = int(noted[0]) or None, bool(noted[1])
        asked, self._keep_asked = self._keep_asked, False
        return asked or self.asked is not None

    def raise_if_asked(self) -> None:
        """Exit as the signal would have had it: KeyboardInterrupt, or exit status 143. SIGUSR1 is handed on."""
        former = self._former.get(signal.SIGUSR1)
        if self._pass_on and callable(former):
            former(signal.SIGUSR1, None)
        self._pass_on = False
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        if self.asked is not None:
            raise SystemExit(128 + self.asked)

    @staticmethod
    def _device() -> str:
        """Where processes exchange what they noted: NCCL knows GPUs only."""
        return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked == signal.SIGINT == number:
            raise KeyboardInterrupt
        if number == signal.SIGUSR1:
            self._keep_asked = self._pass_on = True
        else:
            self.asked = number
