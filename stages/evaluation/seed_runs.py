"""The students of a run, one per seed, each on the shards of val and of test."""

from collections.abc import Sequence
from pathlib import Path

import typer

from stages.common.progress import progress
from stages.common.workdir import files_fingerprint, fingerprint, work_folder
from stages.data.tables import IMAGES, Dataset, count_rows, read_dataset
from stages.engine.engines import Engine, run_jobs
from stages.engine.ray_tasks import environment
from stages.engine.shard_jobs import Done, Failure, shard_count, stop_at_failures, wanted
from stages.evaluation.config import EvaluateParams
from stages.evaluation.operating_points import choose
from stages.evaluation.predicting import HUMAN, SHARD_IMAGES, Evaluate, jobs_of, val_masks
from stages.evaluation.scored_shards import counts_in
from stages.student.decision import Decision

SPLITS = ("val", "test")


class SeedRuns:
    """Call it to evaluate the student of one seed on one split; `finished` collects the shards of all calls.

    `model`: folder with one student per seed; `folders`: of tables, masks and truth. The report shows the predictions
    of the first of `seeds`. `val_drawn`, `judged_by`: see `val_masks`.
    """

    def __init__(
        self,
        model: Path,
        seeds: Sequence[int],
        folders: tuple[Path, Path, Path],
        values: EvaluateParams,
        device: str,
        engine: Engine,
    ) -> None:
        self.model, self.seeds, self.folders = model, seeds, folders
        self.values, self.device, self.engine = values, device, engine
        source = read_dataset(folders[0] / "dataset.json")
        self.source = Dataset(source.root.resolve(), source.names, source.white_level)
        self.val_drawn, self.judged_by = val_masks(*folders[1:])
        self.rows = {split: count_rows(folders[0] / split / "images.parquet", IMAGES) for split in SPLITS}
        self.finished: list[Done] = []

    def __call__(self, seed: int, split: str, decision: Decision | None, numbers: range | None = None) -> list[Done]:
        """The shards of a split, or those with `numbers`. With a `decision`, its labels are scored beside argmax's."""
        work = self._work(seed, decision)
        jobs = jobs_of(split, *self.folders, self.judged_by if split == "val" else HUMAN)
        total = self.rows[split] if numbers is None else None
        with progress((), f"evaluate {split}, seed {seed}", "images", total=total) as bar:
            own = run_jobs(work, jobs, self.engine, bar, numbers)
        self.finished += own
        return own

    def decision(self, seed: int) -> Decision | None:
        """The operating point of a student, for which val is completed first; None: argmax.

        Raises UserError where an image failed, or nothing can be chosen.
        """
        if self.values.operating_point == "argmax":
            return None
        val = self(seed, "val", None)
        self.stop_at_failures()
        return choose(counts_in(val), self.values.operating_point, len(self.source.names))

    def stop_at_failures(self) -> None:
        """List the images that failed so far. Raises UserError where there is one."""
        by_image: dict[str, Failure] = {one.image: one for done in self.finished for one in done.failures}
        stop_at_failures(list(by_image.values()), sum(self.rows.values()))

    def some_shards(self, text: str) -> None:
        """Do only the shards that `--shards` asks for: of each seed first those of val, then those of test.

        With an operating point to choose, those of val come twice: first to choose it, then with it.
        """
        passes = [("val", False), ("test", False)]
        if self.values.operating_point != "argmax":
            passes = [("val", False), ("val", True), ("test", True)]
        counts = {split: shard_count(rows, SHARD_IMAGES) for split, rows in self.rows.items()}
        total = len(self.seeds) * sum(counts[split] for split, _ in passes)
        asked, start = wanted(text, total), 0
        for seed in self.seeds:
            for split, decided in passes:
                numbers = range(max(0, asked.start - start), min(counts[split], asked.stop - start))
                start += counts[split]
                if numbers:
                    self(seed, split, self.decision(seed) if decided else None, numbers)
        self.stop_at_failures()
        typer.echo(f"shards {text} of {total} are done; without --shards the command completes the run", err=True)

    def _work(self, seed: int, decision: Decision | None) -> Evaluate:
        student, shown = self.model / str(seed), seed == self.seeds[0]
        point = None if decision is None else decision.model_dump()
        parts = [files_fingerprint([student]), self.values.resolution, point, self.source.white_level, self.device]
        identity = fingerprint([*parts, self.source.names, shown, environment()])
        staging = work_folder().resolve() / "shards"
        return Evaluate(staging, identity, student, self.source, self.values, decision, shown, self.device)
