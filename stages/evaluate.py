"""Score the students of one run, one per seed: val against the pseudo-masks, test against pixel truth.

Where val has pixels that a person drew for training, `val_trusted` holds the scores on these, and `val` those on the
others: each number is against one kind of mask.

    python -m stages.evaluate data/students/RUN --tables data/tables --masks data/masks --truth data/truth
        --metrics metrics/RUN.json --predictions data/predictions/RUN --models data/models/RUN

`--models` gets the students as `predict` and `export` use them: with the operating point that was chosen on val, by its
human masks where there are some, and a model card.

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
from stages.common.params import Section, load_params
from stages.compute.device import device_of, make_deterministic
from stages.data.tables import read_dataset
from stages.evaluation.card import as_markdown, card_of
from stages.evaluation.config import EvaluateParams, Seeds, TeacherName
from stages.evaluation.operating_points import choose
from stages.evaluation.predicting import load, predicted, references_of, rescored
from stages.evaluation.predictions import write_predictions
from stages.evaluation.split_metrics import split_metrics
from stages.evaluation.tally import Tally, operating_points
from stages.student.config import read_config
from stages.student.decision import DECISION, Decision

VAL_TRUSTED = "val_trusted"
STUDENT_FILES = ("student.safetensors", "student.json")


class Params(Section):
    evaluate: EvaluateParams
    seeds: Seeds
    weights: TeacherName


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
) -> None:
    """Predict every image of val and test, and score those that have a label map to be scored against."""
    wanted = load_params(Params, params)
    values, seeds = wanted.evaluate, wanted.seeds
    source = read_dataset(tables / "dataset.json")
    make_deterministic()
    references, drawn, chosen_on = references_of(tables, masks, truth)
    tallies: dict[str, list[Tally]] = {"val": [], "test": []}
    chosen: list[tuple[Decision, list[bool]]] = []
    result: dict[str, object] = {"resolution": values.resolution, "seeds": seeds}
    with new_folder(predictions) as part, new_folder(models) as models_part:
        for seed in seeds:
            student = load(model / str(seed), source).to(device_of(device))
            for split, (images, label_maps, judged) in references.items():
                title = f"evaluate {split}, seed {seed}"
                decision = chosen[-1][0] if split == "test" and values.operating_point != "argmax" else None
                tallies[split].append(tally := Tally(judged, len(source.names), values, decision))
                shown = seed == seeds[0]
                rows = predicted(student, source, title, images, label_maps, values, tally, shown)
                write_predictions(part / str(seed) / f"{split}.parquet", rows)
                if split == "val":
                    if drawn:
                        again = rescored(part / str(seed) / "val.parquet", drawn, values, len(source.names))
                        write_predictions(part / str(seed) / f"{VAL_TRUSTED}.parquet", again)
                    chosen.append(choose(tally.counts, values.operating_point, len(source.names)))
            shutil.copytree(model / str(seed), models_part / str(seed))
            write_json(models_part / str(seed) / DECISION, chosen[-1][0].model_dump())
        for split, (_, label_maps, _) in references.items():
            result |= split_metrics(part, split, source.names, seeds, values, label_maps)
        if drawn:
            result |= split_metrics(part, VAL_TRUSTED, source.names, seeds, values, drawn)
            if result["val"] is None:
                result["val_not_scored"] = f"all of val is trusted: see {VAL_TRUSTED}"
            else:
                result["val"]["images_without_truth"] = 0  # they are in the other one
        point, drawn = operating_points(tallies, *zip(*chosen, strict=True), chosen_on, source.names, values)
        result["operating_point"] = point
        write_json(part / "curves.json", drawn)
        # A copy for the report, which depends on the folders of all runs. Different students can score alike: their
        # hashes make DVC run the report again.
        config = read_config(model / str(seeds[0]))
        card = card_of(source, tables, wanted.weights.teacher, config, result)
        (models_part / "card.md").write_text(as_markdown(model.name, card, result), encoding="utf-8")
        hashes = {str(seed): student_hash(model / str(seed)) for seed in seeds}
        write_json(part / "scores.json", result | {"students": hashes, "card": card})
    write_json(metrics, result)


def student_hash(folder: Path) -> str:
    """Hex SHA-256 of the bytes of STUDENT_FILES, one after the other."""
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in STUDENT_FILES)).hexdigest()


if __name__ == "__main__":
    run(main)
