"""Dump an index with the tiny model and print the peak memory in MB: `python peak_memory.py INDEX CARD FOLDER THREADS`.

The main process's peak is VmHWM, which begins at zero with this program; ru_maxrss would count the benchmark that
started it. The decoding process's is added to it from ru_maxrss, pages that both share counted twice.
"""

import json
import resource
import sys
from pathlib import Path

import torch
from store_extraction import LAYER, TINY, dump


def own_peak() -> float:
    """Peak resident memory of this process in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def main() -> None:
    index, card, folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    dump(TINY, LAYER, Path(index), Path(card), Path(folder))
    own, child = own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(json.dumps({"megabytes": own + child, "main": own, "decoding": child}))


if __name__ == "__main__":
    main()
