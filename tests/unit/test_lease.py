"""Leases: one holder at a time, and what becomes of those whose holder died."""

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from visae.lease import leased

SPAWN = multiprocessing.get_context("spawn")


def add_up(folder: Path, times: int) -> None:
    for _ in range(times):
        with leased(folder / "lease"):
            number = int((folder / "number").read_text())
            time.sleep(0.01)
            (folder / "number").write_text(str(number + 1))


def hold(path: Path, held) -> None:
    with leased(path):
        held.set()
        time.sleep(60)


def test_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    both = [SPAWN.Process(target=add_up, args=(tmp_path, 4)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert (tmp_path / "number").read_text() == "8"
    assert not (tmp_path / "lease").exists()


def test_of_a_killed_holder_it_is_taken_at_once(tmp_path: Path) -> None:
    held = SPAWN.Event()
    holder = SPAWN.Process(target=hold, args=(tmp_path / "lease", held))
    holder.start()
    assert held.wait(30)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    began = time.monotonic()
    with leased(tmp_path / "lease"):
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("text", [json.dumps({"host": "elsewhere", "pid": 1, "token": ""}), ""])
def test_of_a_holder_elsewhere_it_is_taken_after_its_silence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lease"
    path.write_text(text)
    silent_since = []

    def renew() -> None:
        for second in range(3):
            time.sleep(0.3)
            os.utime(path, (second, second))
        silent_since.append(time.monotonic())

    renewal = threading.Thread(target=renew)
    renewal.start()
    with leased(path, silence=1.0):
        assert silent_since
        assert time.monotonic() - silent_since[0] > 0.7
    renewal.join()
    assert not list(tmp_path.iterdir())
