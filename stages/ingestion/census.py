"""Counts of a data set, collected while it is read, and the reasons why it must not be used."""

from collections import Counter

from stages.data.tables import IGNORE, SPLITS
from stages.ingestion.config import IngestParams
from stages.ingestion.duplicates import HashedImage, Pair, exact_duplicates, near_duplicates
from stages.ingestion.groups import Group
from stages.ingestion.layout import label_path
from stages.ingestion.rejects import Reject
from stages.ingestion.sample import Sample

SHOWN = 3
"""Examples in an error line and in the metrics; rejects.csv has all."""


class Census:
    """Counts of a data set. `absent`: splits that do not exist; `groups`: those that splits were made by, if any."""

    def __init__(
        self, names: tuple[str, ...], absent: list[str], other_rejects: list[Reject], groups: list[Group] | None = None
    ) -> None:
        self.names = names
        self.absent = absent
        self.groups = groups
        self.rejects = list(other_rejects)
        self.counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self.kinds: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self.classes: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
        self.unusable_labels: list[Reject] = []
        self.images: list[HashedImage] = []
        self.pairs: list[Pair] = []

    def add(self, split: str, sample: Sample) -> None:
        """Count one image of `split`."""
        counts = self.counts[split]
        self.rejects += sample.rejects
        for reject in sample.rejects:
            counts[reject.action] += 1
            if reject.action == "row dropped":
                self.kinds[split][reject.kind] += 1
        if sample.image is None:
            return
        counts["images"] += 1
        counts[sample.image["label_status"]] += 1
        if sample.image["label_status"] == "labelled" and not sample.boxes:
            counts["all_rows_rejected"] += 1
            self.unusable_labels.append(next(reject for reject in sample.rejects if reject.action == "row dropped"))
        self.classes[split].update(box["class_id"] for box in sample.boxes)
        self.images.append(HashedImage(split, sample.image["path"], sample.image["sha256"], sample.phash))
        if sample.truth is not None:
            counts["with_truth"] += 1
            counts["with_defect_truth"] += bool(sample.truth_values - {0, IGNORE})
            counts["with_ignored_truth"] += IGNORE in sample.truth_values

    def find_near_duplicates(self, max_bits: int | None) -> None:
        """Compare all added images across splits; None: do not."""
        self.pairs = [] if max_bits is None else near_duplicates(self.images, SPLITS, max_bits)

    def metrics(self) -> dict:
        """The content of metrics/ingest.json; a split that does not exist is null."""
        duplicates, kinds = exact_duplicates(self.images), Counter(reject.kind for reject in self.rejects)
        return {
            **{split: None if split in self.absent else self._split(split) for split in SPLITS},
            "orphan_labels": kinds["orphan_labels"],
            "orphan_masks": kinds["orphan_masks"],
            "ignored_files": kinds["not_an_image"] + kinds["linked_folder"],
            "cross_split_duplicates": len(duplicates),
            "first_duplicates": [[image.path for image in group] for group in duplicates[:SHOWN]],
            "near_duplicates": len({pair.image.path for pair in self.pairs}),
            "too_plain_to_compare": sum(image.phash is None for image in self.images),
            "groups": None if self.groups is None else self._groups(),
        }

    def _groups(self) -> dict[str, int]:
        counts = Counter(group.split for group in self.groups or ())
        return {split: counts[split] for split in SPLITS}

    def _split(self, split: str) -> dict:
        counts, kinds = self.counts[split], dict(sorted(self.kinds[split].items()))
        return {
            "images": counts["images"],
            "labels_labelled": counts["labelled"],
            "labels_empty": counts["empty"],
            "labels_missing": counts["missing"],
            "boxes": sum(self.classes[split].values()),
            "boxes_by_class": {name: self.classes[split][index] for index, name in enumerate(self.names)},
            "clipped_boxes": counts["box clipped"],
            "duplicates_removed": kinds.pop("duplicate", 0),
            "rejected_rows": sum(kinds.values()),
            "rejected_rows_by_reason": kinds,
            "labels_without_usable_row": counts["all_rows_rejected"],
            "rejected_images": counts["image dropped"],
            "truth": counts["with_truth"],
            "truth_missing": counts["images"] - counts["with_truth"] if counts["with_truth"] else 0,
            "rejected_masks": counts["mask dropped"],
        }

    def lines(self) -> list[str]:
        """One line per split, in Ultralytics' words."""
        lines = []
        for split in SPLITS:
            if split in self.absent:
                lines.append(f"{split}: no such split")
                continue
            counts = self._split(split)
            truth = f"{counts['truth']} with truth" if counts["truth"] else "no pixel truth"
            made = "" if self.groups is None else f" from {self._groups()[split]} groups"
            lines.append(
                f"{split}: {counts['images']} images{made} ({counts['labels_labelled']} labelled, "
                f"{counts['labels_missing']} missing, {counts['labels_empty']} empty, "
                f"{counts['rejected_images']} corrupt), {counts['boxes']} boxes, "
                f"{counts['rejected_rows']} rows rejected, {truth}"
            )
        return lines

    def problems(self, params: IngestParams, strict: bool) -> list[str]:
        """Reasons why the data set must not be used; empty when it may. Adds exact duplicates to the rejects."""
        found = []
        totals = sum(self.counts.values(), Counter())
        limit = f"ingest.max_bad_share = {params.max_bad_share}"
        masks = [reject for reject in self.rejects if reject.action == "mask dropped"]
        for what, bad, among in (
            ("masks are unusable", masks, len(masks) + totals["with_truth"]),
            ("label files hold no usable row", self.unusable_labels, totals["labelled"]),
        ):
            if len(bad) > params.max_bad_share * among:
                found.append(f"{len(bad)} of {among} {what} ({limit}): {_examples(bad)}")
        if totals["with_ignored_truth"] and not totals["with_defect_truth"]:
            found.append(
                "no mask holds a defect, though some hold 255, which means ignored: write class id + 1 instead"
            )
        bad, among = totals["image dropped"], totals["image dropped"] + totals["images"]
        empty = [split for split in SPLITS if split not in self.absent and not self.counts[split]["images"]]
        if bad > params.max_bad_share * among or empty:
            allowed = limit if not empty else f"{empty[0]} has no other"
            dropped = [reject for reject in self.rejects if reject.action == "image dropped"]
            found.append(f"{bad} of {among} images are unusable ({allowed}): {_examples(dropped)}")
        if totals["images"] and not self.classes["train"]:
            example = next((image.path for image in self.images if image.split == "train"), "images/train/x.jpg")
            found.append(f"train has no usable box; the label file of {example} would be {label_path(example)}")
        groups, stops = exact_duplicates(self.images), params.duplicates == "error"
        for first, *others in groups:
            action = "stage stopped" if stops else "image kept"
            reason = f"same bytes as {first.path} of {first.split}"
            self.rejects += [Reject(image.path, None, "duplicate_image", reason, action) for image in others]
        if groups and stops:
            pairs = "; ".join(" = ".join(f"{image.split}: {image.path}" for image in group) for group in groups[:SHOWN])
            found.append(
                f"{len(groups)} images lie in more than one split, so that scores would be wrong: {pairs} "
                f"(ingest.duplicates: report lets them pass)"
            )
        if strict and self.rejects:
            found.append(f"--strict: {len(self.rejects)} findings, first: {_examples(self.rejects)}")
        if strict and self.pairs:
            pairs = [f"{pair.image.path} ~ {pair.twin.path}" for pair in self.pairs[:SHOWN]]
            found.append(f"--strict: {len(self.pairs)} near duplicates across splits, first: {'; '.join(pairs)}")
        return found


def _examples(rejects: list[Reject]) -> str:
    """The first few as `file:line: reason`."""
    places = (reject.file if reject.line is None else f"{reject.file}:{reject.line}" for reject in rejects[:SHOWN])
    shown = [f"{place}: {reject.reason}" for place, reject in zip(places, rejects, strict=False)]
    return "; ".join(shown) + (" …" if len(rejects) > SHOWN else "")
