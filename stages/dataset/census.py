"""What a data set holds, counted while it is read, and whether it is fit to be used."""

from collections import Counter, defaultdict

from stages.dataset.config import IngestParams
from stages.dataset.read import Entry
from stages.dataset.rejects import Reject
from stages.dataset.tables import SPLITS
from stages.dataset.truth import IGNORE

SHOWN = 3
"""So many examples stand in an error line and in the metrics; the list of rejects has all."""


class Census:
    """Counts of a data set. `absent` are the splits that data.yaml does not name."""

    def __init__(self, names: tuple[str, ...], absent: list[str], other_rejects: list[Reject]) -> None:
        self.names = names
        self.absent = absent
        self.rejects = list(other_rejects)
        self.counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self.kinds: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self.classes: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
        self.paths: dict[bytes, list[tuple[str, str]]] = defaultdict(list)

    def add(self, split: str, entry: Entry) -> None:
        """Count one photograph of `split`."""
        counts = self.counts[split]
        self.rejects += entry.rejects
        for reject in entry.rejects:
            counts[reject.action] += 1
            if reject.action == "row dropped":
                self.kinds[split][reject.kind] += 1
        if entry.image is None:
            return
        counts["images"] += 1
        counts[entry.image["label_status"]] += 1
        counts["all_rows_rejected"] += entry.image["label_status"] == "labelled" and not entry.boxes
        self.classes[split].update(box["class_id"] for box in entry.boxes)
        self.paths[bytes.fromhex(entry.image["sha256"])].append((split, entry.image["path"]))
        if entry.truth is not None:
            counts["with_truth"] += 1
            counts["with_defect_truth"] += bool(entry.truth_values - {0, IGNORE})
            counts["with_ignored_truth"] += IGNORE in entry.truth_values

    def duplicates(self) -> list[list[str]]:
        """Groups of paths with the very same bytes that lie in more than one split."""
        groups = [group for group in self.paths.values() if len({split for split, _ in group}) > 1]
        return sorted(sorted(path for _, path in group) for group in groups)

    def metrics(self) -> dict:
        """metrics/ingest.json; a split that data.yaml does not name is null."""
        duplicates, kinds = self.duplicates(), Counter(reject.kind for reject in self.rejects)
        return {
            **{split: None if split in self.absent else self._split(split) for split in SPLITS},
            "orphan_labels": kinds["orphan_labels"],
            "orphan_masks": kinds["orphan_masks"],
            "ignored_files": kinds["not_an_image"] + kinds["linked_folder"],
            "cross_split_duplicates": len(duplicates),
            "first_duplicates": duplicates[:SHOWN],
        }

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
        }

    def lines(self) -> list[str]:
        """One line a split, for people, in Ultralytics' words."""
        said = []
        for split in SPLITS:
            if split in self.absent:
                said.append(f"{split}: data.yaml names no such split")
                continue
            figures = self._split(split)
            truth = f"{figures['truth']} with truth" if figures["truth"] else "no pixel truth"
            said.append(
                f"{split}: {figures['images']} images ({figures['labels_labelled']} labelled, "
                f"{figures['labels_missing']} missing, {figures['labels_empty']} empty, "
                f"{figures['rejected_images']} corrupt), {figures['boxes']} boxes, "
                f"{figures['rejected_rows']} rows rejected, {truth}"
            )
        return said

    def problems(self, params: IngestParams, strict: bool) -> list[str]:
        """Why the data set must not be used; empty when it may. Duplicates are added to the rejects."""
        found = []
        masks = [reject for reject in self.rejects if reject.kind == "mask"]
        if masks:
            found.append(f"{len(masks)} unusable masks: {_examples(masks)}")
        totals = sum(self.counts.values(), Counter())
        if totals["with_ignored_truth"] and not totals["with_defect_truth"]:
            found.append(
                "no mask holds a defect, though some hold 255, which means ignored: write class id + 1 instead"
            )
        bad, photos = totals["image dropped"], totals["image dropped"] + totals["images"]
        empty = [split for split in SPLITS if split not in self.absent and not self.counts[split]["images"]]
        if bad > params.max_bad_share * photos or empty:
            allowed = f"ingest.max_bad_share = {params.max_bad_share}" if not empty else f"{empty[0]} has no other"
            dropped = [reject for reject in self.rejects if reject.action == "image dropped"]
            found.append(f"{bad} of {photos} images are unusable ({allowed}): {_examples(dropped)}")
        groups, stops = self.duplicates(), params.duplicates == "error"
        for first, *others in groups:
            action = "stage stopped" if stops else "image kept"
            self.rejects += [Reject(path, None, "duplicate_image", f"same bytes as {first}", action) for path in others]
        if groups and stops:
            pairs = "; ".join(" = ".join(group) for group in groups[:SHOWN])
            found.append(
                f"{len(groups)} images lie in more than one split, so that scores would be wrong: {pairs} "
                f"(ingest.duplicates: report lets them pass)"
            )
        if strict and self.rejects:
            found.append(f"--strict: {len(self.rejects)} findings, first: {_examples(self.rejects)}")
        return found


def _examples(rejects: list[Reject]) -> str:
    place = [reject.file if reject.line is None else f"{reject.file}:{reject.line}" for reject in rejects[:SHOWN]]
    said = [f"{where}: {reject.reason}" for where, reject in zip(place, rejects, strict=False)]
    return "; ".join(said) + (" …" if len(rejects) > SHOWN else "")
