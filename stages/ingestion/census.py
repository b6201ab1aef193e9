"""What a data set holds, counted while it is read, and whether it is fit to be used."""

from collections import Counter, defaultdict

from stages.data.tables import IGNORE, SPLITS
from stages.ingestion.config import IngestParams
from stages.ingestion.duplicates import Pair, Seen, near_pairs
from stages.ingestion.groups import Group
from stages.ingestion.layout import label_path
from stages.ingestion.rejects import Reject
from stages.ingestion.sample import Entry

SHOWN = 3
"""So many examples stand in an error line and in the metrics; the list of rejects has all."""


class Census:
    """Counts of a data set. `absent` are the splits that there are not, `groups` those that splits were made by."""

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
        self.seen: list[Seen] = []
        self.pairs: list[Pair] = []

    def add(self, split: str, entry: Entry) -> None:
        """Count one image of `split`."""
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
        if entry.image["label_status"] == "labelled" and not entry.boxes:
            counts["all_rows_rejected"] += 1
            self.unusable_labels.append(next(reject for reject in entry.rejects if reject.action == "row dropped"))
        self.classes[split].update(box["class_id"] for box in entry.boxes)
        known = (entry.image[key] for key in ("path", "sha256", "exif_orientation"))
        self.seen.append(Seen(split, *known, entry.look))
        if entry.truth is not None:
            counts["with_truth"] += 1
            counts["with_defect_truth"] += bool(entry.truth_values - {0, IGNORE})
            counts["with_ignored_truth"] += IGNORE in entry.truth_values

    def duplicates(self) -> list[list[Seen]]:
        """Groups of images with the very same bytes that lie in more than one split."""
        same = defaultdict(list)
        for one in self.seen:
            same[one.sha256].append(one)
        groups = [group for group in same.values() if len({one.split for one in group}) > 1]
        in_order = (sorted(group, key=lambda one: (one.path, one.split)) for group in groups)
        return sorted(in_order, key=lambda group: group[0].path)

    def compare_looks(self, max_bits: int | None) -> None:
        """Look for near duplicates across splits among all that was added; None: do not."""
        self.pairs = [] if max_bits is None else near_pairs(self.seen, SPLITS, max_bits)

    def metrics(self) -> dict:
        """metrics/ingest.json; a split that there is not is null."""
        duplicates, kinds = self.duplicates(), Counter(reject.kind for reject in self.rejects)
        return {
            **{split: None if split in self.absent else self._split(split) for split in SPLITS},
            "orphan_labels": kinds["orphan_labels"],
            "orphan_masks": kinds["orphan_masks"],
            "ignored_files": kinds["not_an_image"] + kinds["linked_folder"],
            "cross_split_duplicates": len(duplicates),
            "first_duplicates": [[one.path for one in group] for group in duplicates[:SHOWN]],
            "near_duplicates": len({pair.photo.path for pair in self.pairs}),
            "too_plain_to_compare": sum(one.look is None for one in self.seen),
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
        """One line a split, for people, in Ultralytics' words."""
        said = []
        for split in SPLITS:
            if split in self.absent:
                said.append(f"{split}: no such split")
                continue
            figures = self._split(split)
            truth = f"{figures['truth']} with truth" if figures["truth"] else "no pixel truth"
            made = "" if self.groups is None else f" from {self._groups()[split]} groups"
            said.append(
                f"{split}: {figures['images']} images{made} ({figures['labels_labelled']} labelled, "
                f"{figures['labels_missing']} missing, {figures['labels_empty']} empty, "
                f"{figures['rejected_images']} corrupt), {figures['boxes']} boxes, "
                f"{figures['rejected_rows']} rows rejected, {truth}"
            )
        return said

    def problems(self, params: IngestParams, strict: bool) -> list[str]:
        """Why the data set must not be used; empty when it may. Duplicates are added to the rejects."""
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
        bad, photos = totals["image dropped"], totals["image dropped"] + totals["images"]
        empty = [split for split in SPLITS if split not in self.absent and not self.counts[split]["images"]]
        if bad > params.max_bad_share * photos or empty:
            allowed = limit if not empty else f"{empty[0]} has no other"
            dropped = [reject for reject in self.rejects if reject.action == "image dropped"]
            found.append(f"{bad} of {photos} images are unusable ({allowed}): {_examples(dropped)}")
        if totals["images"] and not self.classes["train"]:
            sample = next((one.path for one in self.seen if one.split == "train"), "images/train/x.jpg")
            found.append(f"train has no usable box; the label file of {sample} would be {label_path(sample)}")
        groups, stops = self.duplicates(), params.duplicates == "error"
        for first, *others in groups:
            action = "stage stopped" if stops else "image kept"
            reason = f"same bytes as {first.path} of {first.split}"
            self.rejects += [Reject(one.path, None, "duplicate_image", reason, action) for one in others]
        if groups and stops:
            pairs = "; ".join(" = ".join(f"{one.split}: {one.path}" for one in group) for group in groups[:SHOWN])
            found.append(
                f"{len(groups)} images lie in more than one split, so that scores would be wrong: {pairs} "
                f"(ingest.duplicates: report lets them pass)"
            )
        if strict and self.rejects:
            found.append(f"--strict: {len(self.rejects)} findings, first: {_examples(self.rejects)}")
        if strict and self.pairs:
            pairs = [f"{pair.photo.path} ~ {pair.twin.path}" for pair in self.pairs[:SHOWN]]
            found.append(f"--strict: {len(self.pairs)} near duplicates across splits, first: {'; '.join(pairs)}")
        return found


def _examples(rejects: list[Reject]) -> str:
    place = [reject.file if reject.line is None else f"{reject.file}:{reject.line}" for reject in rejects[:SHOWN]]
    said = [f"{where}: {reject.reason}" for where, reject in zip(place, rejects, strict=False)]
    return "; ".join(said) + (" …" if len(rejects) > SHOWN else "")
