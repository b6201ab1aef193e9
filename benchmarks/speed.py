"""Speed of the pipeline and of plainly written references, in one run: student, rasterize, training step, predict.

    python -m benchmarks.speed --out benchmarks/speed

Prints the tables and writes them to speed.md, all measurements to speed.json; benchmarks/README.md describes the
method. Takes minutes on a machine without other load.
"""

import copy
import json
import os
import platform
import tempfile
import time
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks import gpu
from benchmarks.markdown import table
from benchmarks.material import LITE0, VIT_S14, batch_of, demo_images, fit_branches, make_student, pixels, squares
from benchmarks.pipeline_copy import ROOT
from benchmarks.service import field_rows, requests_a_second
from benchmarks.students import PLAIN, baselines, forms, plain
from benchmarks.teachers import contests
from benchmarks.timing import Timing, as_pipeline, as_usual, in_turns
from benchmarks.training import steps
from stages.demo.scene import Sample
from stages.formats.inputs import file_in, find_images, read
from stages.formats.measured_defects import record_of
from stages.formats.output_folder import record_json, write_files, write_output
from stages.networks.student import Network as Student
from stages.runtime.network import Network
from stages.runtime.parity import compare
from stages.student.decision import ARGMAX
from stages.student.tiling import RunTiles
from stages.teacher.sam import load_sam

BATCH = 8
FIT_IMAGES, FIT_STEPS, COMPARED = 8, 40, 4
RASTERIZED = 16
"""Images; enough to make the cost of starting and ending threads negligible, as in a data set."""
PACKAGES = ("torch", "timm", "onnxruntime", "openvino", "segmentation-models-pytorch", "segment-anything", "numpy")


def student_rows(
    students: list[dict[str, RunTiles]], others: dict[str, RunTiles], tiles: np.ndarray, rounds: int
) -> list[dict]:
    """One row per form and baseline: times against the first form of all, and agreement of its masks with those of the
    first of the same student, on `tiles`, (N, S, S, 3).
    """
    reference_of = {name: next(iter(found.values())) for found in students for name in found}
    everyone = {name: run for found in (*students, others) for name, run in found.items()}
    one, many = tiles[:1], np.resize(tiles, (BATCH, *tiles.shape[1:]))
    latency = in_turns({name: lambda run=run: run(one) for name, run in everyone.items()}, rounds)
    batched = in_turns({name: lambda run=run: run(many) for name, run in everyone.items()}, max(1, rounds // 3))
    rows = []
    for name, run in everyone.items():
        row = {"name": name}
        for batch, times in (("batch_1", latency), ("batch_8", batched)):
            row[batch] = timing(times[name]) | ratios(times[PLAIN], times[name])
        rows.append(row | (compare(reference_of[name], run, tiles).as_json() if name in reference_of else {}))
    return rows


def rasterize_rows(teacher: Path, samples: list[Sample], folder: Path, rounds: int, device: str = "cpu") -> list[dict]:
    """One row per view, number of boxes and loop; see `benchmarks.teachers`."""
    calls = contests(load_sam(teacher)[0].to(device), teacher, samples, folder)
    times = in_turns(calls, rounds)
    rows = []
    for how, count, who in calls:
        if who == "ours":
            continue
        loop, ours = times[how, count, who], times[how, count, "ours"]
        rows.append(
            {
                "view": how,
                "boxes": count,
                "against": who,
                "loop": timing(loop),
                "ours": timing(ours),
                "images_a_second": round(len(samples) / ours.wall_s, 2),
                "boxes_a_second": round(count * len(samples) / ours.wall_s, 1),
                **ratios(loop, ours),
            }
        )
    return rows


def training_row(student: Student, samples: list[Sample], rounds: int) -> dict:
    """The optimiser step at batch size 1, as in the paper."""
    images, labels = batch_of(samples[:1], student.config.view.size_px)
    calls = steps(copy.deepcopy(student), images, labels)
    wrapped = {"plain reference": as_usual(calls["plain reference"]), "ours": as_pipeline(calls["ours"])}
    plain, ours = in_turns(wrapped, max(1, rounds // 2)).values()
    return {"plain": timing(plain), "ours": timing(ours), **ratios(plain, ours)}


def predict_rows(
    student: Student, found: dict[str, RunTiles], samples: list[Sample], folder: Path, rounds: int
) -> list:
    """Time from JPEG to PNG, total and in the network, with PyTorch and with the exports."""
    (folder / "images").mkdir()
    for index, sample in enumerate(samples):
        (folder / f"images/{index}.jpg").write_bytes(sample.jpeg)
    rows = []
    for name, run in found.items():
        network = network_of(student, run)
        out = folder / "predicted" / name
        torch.use_deterministic_algorithms(True)
        _, *each = (from_jpeg_to_png(network, folder / "images", out) for _ in range(rounds + 1))  # the first warms up
        total, inside = sorted(each, key=lambda pair: pair[0] / pair[1])[rounds // 2]  # of the median ratio
        rows.append(
            {
                "name": name,
                "images_a_second": round(len(samples) / total, 2),
                "ms_an_image": round(1000 * total / len(samples), 1),
                "network_ms_an_image": round(1000 * inside / len(samples), 1),
                "ratio": round(total / inside, 3),
            }
        )
    return rows


def from_jpeg_to_png(network: Network, folder: Path, out: Path) -> tuple[float, float]:
    """Total seconds, and seconds in the network: read, predict, measure the defects, write record and mask.

    As `python -m stages.predict --format masks` does per image, without imports and opening the model.
    """
    spent = 0.0

    def timed(tiles: np.ndarray) -> np.ndarray:
        nonlocal spent
        began = time.perf_counter()
        logits = network.run(tiles)
        spent += time.perf_counter() - began
        return logits

    watched, began = replace(network, run=timed), time.perf_counter()
    for source in find_images([str(folder)], out)[0]:
        sha256, image = read(source)
        record = record_of(watched, source, sha256, image)
        write_output(file_in(out / "records", source.name), record_json(record), force=True)
        write_files(record, image, out, ["masks"], force=True)
    return time.perf_counter() - began, spent


def network_of(student: Student, run: RunTiles) -> Network:
    return Network(student.config.names, student.config.view, None, ARGMAX, "benchmark", run)


def timing(taken: Timing) -> dict[str, float]:
    return {"ms": round(1000 * taken.wall_s, 1), "cpu_ms": round(1000 * taken.cpu_s, 1)}


def ratios(reference: Timing, ours: Timing) -> dict[str, float]:
    """Speed relative to the reference."""
    return {
        "ratio": round(reference.wall_s / ours.wall_s, 2),
        "cpu_ratio": round(reference.cpu_s / ours.cpu_s, 2),
    }


def machine() -> dict[str, object]:
    """Hardware, load and versions that the measurements hold for."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = named.get("flags", "").split()
    return {
        "processor": named.get("model name", platform.processor()),
        "instructions": [
            f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16") if f in flags
        ],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": "float32, except for INT8 and, where the CPU has bfloat16, our training step",
        "load_before": [round(value, 1) for value in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def tables(results: dict) -> str:
    """Markdown."""
    about = results["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    machine_line = (
        f"{about['processor']} ({', '.join(about['instructions'])}), {about['threads']} threads on {about['cores']} "
        f"cores, {about['precision']}. Python {about['python']}, {versions}. Medians of {results['rounds']} rounds; "
        f"load average before: {about['load_before'][0]}."
    )
    columns = f"student, {results['size_px']} px", "ms", "ratio", f"images/s, batch {BATCH}", "ratio", "CPU ms, batch 1"
    columns += "ratio", "mask agreement", "IoU of defects", "largest logit difference"
    step, service = results["training"], results["service"]
    parts = [
        [machine_line],
        table(columns, map(_student_cells, results["student"])),
        rasterize_table("rasterize", results["rasterize"]),
        table(
            ("training step", "plain, ms", "ours, ms", "ratio", "CPU ratio"),
            [("batch 1", step["plain"]["ms"], step["ours"]["ms"], step["ratio"], step["cpu_ratio"])],
        ),
        table(
            ("predict, JPEG to PNG", "images/s", "ms per image", "of that the network", "ratio"),
            (row.values() for row in results["predict"]),
        ),
        table(
            ("service, ONNX Runtime", "requests/s", "predict, images/s", "ratio"), [("16 at a time", *service.values())]
        ),
        table(
            ("without the network, an image of the demo", "defects", "ms", "CPU ms"),
            (row.values() for row in results["fields"]),
        ),
        *([gpu.table(results["gpu"])] if results["gpu"] else []),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _student_cells(row: dict) -> tuple:
    one, many, parity = row["batch_1"], row["batch_8"], ("–", "–", "–")
    if "mask_agreement" in row:
        iou = "–" if row["defect_iou"] is None else f"{row['defect_iou']:.4f}"
        parity = f"{100 * row['mask_agreement']:.3f} %", iou, f"{row['largest_logit_difference']:.2g}"
    speed = f"{1000 * BATCH / many['ms']:.2f}", many["ratio"], one["cpu_ms"], one["cpu_ratio"]
    return row["name"], one["ms"], one["ratio"], *speed, *parity


def rasterize_table(title: str, rows: list[dict]) -> list[str]:
    """Lines of Markdown."""
    columns = title, "boxes", "against", "loop, ms", "ours, ms", "ratio", "CPU ratio", "images/s", "boxes/s"
    first, rest = ("view", "boxes", "against"), ("ratio", "cpu_ratio", "images_a_second", "boxes_a_second")
    times = lambda row: (row["loop"]["ms"], row["ours"]["ms"])  # noqa: E731
    return table(columns, [[*map(row.get, first), *times(row), *map(row.get, rest)] for row in rows])


def measure(timm_kwargs: dict, size_px: int, width: int, teacher: Path, rounds: int, folder: Path) -> dict:
    """All measurements of one student; `folder` gets temporary files."""
    about = machine()
    train, test = demo_images(FIT_IMAGES, "train"), demo_images(COMPARED, "test")
    student = fit_branches(make_student(timm_kwargs, size_px, width), train, FIT_STEPS)
    typer.echo("student fitted", err=True)
    found = forms(student, squares(train, size_px), folder)
    (folder / "lite0").mkdir()
    lite0 = fit_branches(make_student(LITE0, size_px, width), train, FIT_STEPS)
    lite0 = {f"Lite0, {name}": run for name, run in forms(lite0, squares(train, size_px), folder / "lite0").items()}
    typer.echo("exports made", err=True)
    results = {"machine": about, "rounds": rounds, "size_px": size_px}
    results["predict"] = predict_rows(student, found, test, folder, rounds)
    typer.echo("predict measured", err=True)
    network = network_of(student, found["ONNX Runtime"])
    alone = next(row["images_a_second"] for row in results["predict"] if row["name"] == "ONNX Runtime")
    served = requests_a_second(network, [sample.jpeg for sample in test])
    results["service"] = {
        "requests_a_second": round(served, 2),
        "images_a_second": alone,
        "ratio": round(served / alone, 3),
    }
    results["fields"] = field_rows(network, pixels(test[0]), 3 * rounds)
    typer.echo("service measured", err=True)
    results["rasterize"] = rasterize_rows(teacher, demo_images(RASTERIZED, "test"), folder / "rasterize", rounds)
    typer.echo("rasterize measured", err=True)
    results["training"] = training_row(student, train, rounds)
    typer.echo("training measured", err=True)
    tiles, others = squares(test, size_px), baselines(len(student.config.names) + 1)
    results["student"] = student_rows([{PLAIN: plain(student)} | found, lite0], others, tiles, rounds)
    results["gpu"] = gpu.rows(student, rounds) if torch.cuda.is_available() else []
    return results


def main(
    out: Annotated[Path, typer.Option(help="Name of the two files, without suffix.")] = Path("speed"),
    rounds: Annotated[int, typer.Option(min=1, help="Times that each variant is run; medians are reported.")] = 7,
) -> None:
    """Measure everything in a temporary folder."""
    warnings.simplefilter("ignore")
    teacher = ROOT / "data/weights/embedded/teacher"
    with tempfile.TemporaryDirectory() as folder:
        results = measure(VIT_S14, 518, 256, teacher, rounds, Path(folder))
    out.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(tables(results), encoding="utf-8")
    typer.echo(tables(results))


if __name__ == "__main__":
    typer.run(main)
