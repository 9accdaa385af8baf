"""The memory of a process, sampled while something happens."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

import psutil

EVERY = 0.2
"""Seconds between two samples."""

MEBIBYTE = 2**20


class Samples:
    """Resident memory (VmRSS) in MiB, oldest first."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.values: list[float] = []

    def take(self) -> float:
        """Take a sample, and return it."""
        self.values.append(self._process.memory_info().rss / MEBIBYTE)
        return self.values[-1]

    def growth(self, warm_up: float = 0.0) -> float:
        """Return by how much the largest sample after a part of all is above the last one in it."""
        first = max(0, min(len(self.values) - 1, int(warm_up * len(self.values))))
        return round(max(self.values[first:]) - self.values[first], 1)


@contextmanager
def sampled(process: psutil.Process) -> Generator[Samples]:
    """Sample a process for the time of the block; the first sample is from before it."""
    samples, over = Samples(process), threading.Event()
    samples.take()

    def sample() -> None:
        while not over.wait(EVERY):
            samples.take()

    sampler = threading.Thread(target=sample, name="memory")
    sampler.start()
    try:
        yield samples
    finally:
        over.set()
        sampler.join()
        samples.take()
