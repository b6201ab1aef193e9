"""Work in chunks that fit into the GPU's memory."""

import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from stages.common.errors import UserError

T = TypeVar("T")


class Chunks:
    """How many boxes are worked on at once: `size` at most, and half as many each time that memory runs out."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, count: int, work: Callable[[slice], T]) -> Iterator[T]:
        """`work` on slices of range(count), in order. A slice for which memory ran out is done again in halves.

        Raises UserError where it does not suffice for one.
        """
        start = 0
        while start < count:
            some = slice(start, min(start + self.size, count))
            try:
                yield work(some)
                start = some.stop
                continue
            except torch.OutOfMemoryError:
                pass
            # out here the error and with it the tensors that it held are gone
            torch.cuda.empty_cache()
            if some.stop - some.start == 1:
                raise UserError(
                    "out of GPU memory with a single box: free the GPU, take a smaller weights.teacher, or run on the "
                    "CPU (python -m stages.rasterize --device cpu)"
                )
            self.size = (some.stop - some.start) // 2
            print(f"out of GPU memory: from here on {self.size} boxes at once", file=sys.stderr)
