"""Score the students of one run, one per seed: val against the pseudo-masks, test against pixel truth.

Where val has pixels that a person drew for training, `val_trusted` holds the scores on these, and `val` those on the
others: each number is against one kind of mask.

    python -m stages.evaluate data/students/RUN --tables data/tables --masks data/masks --truth data/truth
        --metrics metrics/RUN.json --predictions data/predictions/RUN --models data/models/RUN

`--models` gets the students as `predict` and `export` use them: with the operating point that was chosen on val, by its
human masks where there are some, and a model card. With an operating point val is predicted twice: to choose it, and to
say what it reaches.

Confusion counts are summed over a split at the images' native size. `evaluate.resolution: stretched_518` selects the
published protocol instead: the image is stretched to 518 x 518 (bilinear) before prediction, and the prediction is
compared there with a truth stretched by nearest neighbour, so that a pixel of a small image weighs more than one of a
large image, and thin defects can vanish from the truth. Defects are connected regions at the same resolution.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Annotated

import typer

from stages.common.errors import run
from stages.common.files import new_folder, write_json
from stages.common.options import Device, Masks, Metrics, ParamsFile, Tables, Truth
from stages.common.params import Section, load_params, write_sealed
from stages.engine.engines import Address, Engine, EngineName, EngineOption, Gpus, Shards, ShardsUrl
from stages.engine.shard_jobs import all_there, forget
from stages.evaluation.card import as_markdown, card_of
from stages.evaluation.config import EvaluateParams, Seeds, WeightsNames
from stages.evaluation.operating_points import choose
from stages.evaluation.scored_shards import DRAWN, Scored, gather
from stages.evaluation.seed_runs import SPLITS, SeedRuns
from stages.evaluation.tally import operating_points, split_metrics
from stages.student.config import read_student
from stages.student.decision import DECISION, Decision

VAL_TRUSTED = "val_trusted"
STUDENT_FILES = ("student.safetensors", "student.json")


class Params(Section):
    evaluate: EvaluateParams
    seeds: Seeds
    weights: WeightsNames


def main(
    model: Annotated[Path, typer.Argument(help="Folder of the trained students, one folder per seed.")],
    tables: Tables,
    masks: Masks,
    truth: Truth,
    metrics: Metrics,
    predictions: Annotated[Path, typer.Option(help="Folder for the predicted masks.")],
    models: Annotated[Path, typer.Option(help="Folder for the students with their operating points and card.")],
    params: ParamsFile = Path("params.yaml"),
    device: Device = "auto",
    engine: EngineOption = EngineName.local,
    ray_address: Address = None,
    gpus_per_task: Gpus = 0.0,
    shards: Shards = None,
    shards_url: ShardsUrl = None,
) -> None:
    """Predict every image of val and test, and score those that have a label map to be scored against."""
    loaded = load_params(Params, params)
    values, seeds = loaded.evaluate, loaded.seeds
    folders, where = (tables, masks, truth), Engine(engine, ray_address, gpus_per_task, shards_url)
    run_of = SeedRuns(model.resolve(), seeds, folders, values, device, where)
    if shards is not None:
        with all_there(run_of.finished, where.store()):
            return run_of.some_shards(shards)
    names = run_of.source.names
    tallies: dict[str, list[Scored]] = {split: [] for split in SPLITS}
    by_hand: list[Scored] = []
    decisions: list[Decision] = []
    with (
        new_folder(predictions) as part,
        new_folder(models) as models_part,
        all_there(run_of.finished, where.store()),
    ):
        for seed in seeds:
            decision = run_of.decision(seed)
            for split in SPLITS:
                finished, folder = run_of(seed, split, decision), part / str(seed)
                tallies[split].append(gather(finished, len(names), folder / f"{split}.parquet"))
                if split == "val" and run_of.val_drawn:
                    by_hand.append(gather(finished, len(names), folder / f"{VAL_TRUSTED}.parquet", DRAWN))
            decisions.append(decision or choose(tallies["val"][-1].counts, "argmax", len(names)))
            shutil.copytree(model / str(seed), models_part / str(seed))
            write_sealed(models_part / str(seed) / DECISION, decisions[-1].model_dump())
        run_of.stop_at_failures()
        result: dict[str, object] = {"resolution": values.resolution, "seeds": seeds}
        for split in SPLITS:
            result |= split_metrics(split, tallies[split], names, values.bootstrap)
        if by_hand:
            result |= split_metrics(VAL_TRUSTED, by_hand, names, values.bootstrap)
            if result["val"] is None:
                result["val_not_scored"] = f"all of val is trusted: see {VAL_TRUSTED}"
            else:
                result["val"]["images_without_truth"] = 0  # those are scored in VAL_TRUSTED
        by = f"{run_of.judged_by} of val"
        result["operating_point"], drawn = operating_points(tallies, decisions, by, names, values)
        write_sealed(part / "curves.json", drawn)
        # A copy for the report, which depends on the folders of all runs. Different students can score alike: their
        # hashes make DVC run the report again.
        first, _ = read_student(model / str(seeds[0]))
        card = card_of(run_of.source, tables, loaded.weights, first, result)
        (models_part / "card.md").write_text(as_markdown(model.name, card, result), encoding="utf-8")
        hashes = {str(seed): student_hash(model / str(seed)) for seed in seeds}
        write_sealed(part / "scores.json", result | {"students": hashes, "card": card})
    write_json(metrics, result)
    forget(run_of.finished, where.store())


def student_hash(folder: Path) -> str:
    """Hex SHA-256 of the bytes of STUDENT_FILES, one after the other."""
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in STUDENT_FILES)).hexdigest()


if __name__ == "__main__":
    run(main)
