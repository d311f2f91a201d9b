"""The worker's side of a peer: settings from the command line, one JSON line a repetition, all else to stderr."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


def settings() -> dict[str, Any]:
    """Read what the benchmark handed over."""
    return json.loads(sys.argv[1])


def serve(repeat: Callable[..., dict[str, Any]]) -> None:
    """Say that the data is ready, then run `repeat` with the options of each line that comes in."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a peer prints goes to the log
    answers.write("{}\n")
    for line in sys.stdin:
        answer = repeat(**json.loads(line))
        gc.collect()  # no file stays mapped: mapped pages cannot be dropped
        answers.write(json.dumps(answer) + "\n")


def rows_a_second(batches: Iterator[Any], rows: int, started: float) -> dict[str, Any]:
    """Take tensors (n, d_model) until `rows` rows have come; the clock was started by the caller."""
    taken, shape = 0, None
    for batch in batches:
        shape = shape or list(batch.shape)
        taken += len(batch)
        if taken >= rows:
            break
    seconds = time.perf_counter() - started
    if taken < rows:
        raise RuntimeError(f"{taken} rows came, {rows} were asked for")
    return {"rows": taken, "seconds": seconds, "rows_a_second": taken / seconds, "shape": shape}
