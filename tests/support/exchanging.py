"""A program for torchrun: its processes count together until a signal reaches one of them, then each writes its file.

torchrun --nproc-per-node 2 -m tests.support.exchanging FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import torch

from stages.common.errors import Stopped, held, run
from stages.training.processes import joined


def main(folder: Path) -> None:
    with joined(torch.device("cpu"), micro_batches=2) as (processes, _), held(processes.arrived):
        (folder / f"started{processes.rank}").touch()
        total = 0
        try:
            while True:
                total = int(processes.total(np.array([total + 1]))[0]) // processes.size
        except Stopped as stopped:
            (folder / f"stopped{processes.rank}").write_text(
                f"{stopped} at {total > 0} {sys.argv[1:] == [str(folder)]}"
            )
            raise


if __name__ == "__main__":
    run(main)
