"""Dump an index with the tiny model and print the peak memory in MB: its arguments are these two, a folder
and the number of threads.

The main process's peak is VmHWM, which begins at zero with this program; ru_maxrss would count the benchmark that
started it. The decoding process's is added to it from ru_maxrss, pages that both share counted twice.
"""

import json
import resource
import sys
from pathlib import Path

import torch

from bench.peak_memory import own_peak
from bench.store.extraction import LAYER, TINY, dump


def main() -> None:
    index, card, folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    dump(TINY, LAYER, Path(index), Path(card), Path(folder))
    own, child = own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(json.dumps({"megabytes": own + child, "main": own, "decoding": child}))


if __name__ == "__main__":
    main()
