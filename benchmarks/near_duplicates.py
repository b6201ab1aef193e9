"""Time and memory of the search for near duplicates against the number of images, by simulated hashes.

    python -m benchmarks.near_duplicates 20000 100000

70 % of the hashes are train, 15 % val and 15 % test; one of 100 outside of train differs from one of train in 0 to 40
bits, all others are random. Prints a row of Markdown per number; give them in ascending order: peak memory never falls.
"""

import resource
import time
from typing import Annotated

import numpy as np
import typer

from stages.ingestion.duplicates import HashedImage, near_duplicates

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
LIMIT, COPIES = 40, 100


def simulated(count: int) -> tuple[list[HashedImage], int]:
    """Images with hashes, and how many of them are like one of train."""
    rng, images, copies = np.random.default_rng(0), [], 0
    for split, share in SHARES.items():
        hashes = rng.integers(0, 256, (round(share * count), 32), dtype=np.uint8)
        if split != "train":
            for row in range(0, len(hashes), COPIES):
                flags = np.zeros(256, bool)
                flags[rng.permutation(256)[: rng.integers(LIMIT + 1)]] = True
                hashes[row] = np.frombuffer(images[rng.integers(round(0.7 * count))].phash, np.uint8)
                hashes[row] ^= np.packbits(flags)
                copies += 1
        names = (f"{split}/{number}" for number in range(len(hashes)))
        images += [HashedImage(split, name, name, one.tobytes()) for name, one in zip(names, hashes, strict=True)]
    return images, copies


def main(counts: Annotated[list[int], typer.Argument(help="Numbers of images.")]) -> None:
    """Measure each number of images."""
    typer.echo("| images | CPU s | peak MB | more MB than the images | found of those made |\n|---|---|---|---|---|")
    for count in counts:
        images, copies = simulated(count)
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, time.process_time()
        pairs = near_duplicates(images, LIMIT)
        cpu, peak = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        found = sum(pair.twin.split == "train" for pair in pairs)
        typer.echo(f"| {count:,} | {cpu:.1f} | {peak} | {peak - before} | {found} of {copies} |")


if __name__ == "__main__":
    typer.run(main)
