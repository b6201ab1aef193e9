"""Counts of a data set, collected while it is read, and the reasons why it must not be used."""

from collections import Counter

from stages.data.tables import IGNORE, SPLITS
from stages.ingestion.config import IngestParams
from stages.ingestion.counterparts import label_path
from stages.ingestion.duplicates import HashedImage, Pair, exact_duplicates
from stages.ingestion.groups import Group
from stages.ingestion.layout import Layout
from stages.ingestion.rejects import SHOWN, Reject, cause, examples, losses
from stages.ingestion.sample import Sample

FEW = 10
"""Minimum number of polygon rows that are suspected to be keypoints: a few can look like them by chance."""

FORMS = ("confidence", "polygon", "oriented", "pose")
"""Kinds of label rows other than plain boxes: see `LabelledBox.form`."""

NEEDS_BOXES = (("train", "there is nothing to learn"), ("val", "there is nothing to choose weights by"))


class Census:
    """Counts of a data set. `groups`: those that its splits were made from; None where data.yaml names the splits."""

    def __init__(self, layout: Layout, other_rejects: list[Reject], groups: list[Group] | None = None) -> None:
        self.names = layout.names
        self.masks = layout.masks
        self.absent = [split for split, images in layout.splits.items() if images is None]
        self.groups = groups
        self.rejects = list(other_rejects)
        self.counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self.kinds: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self.classes: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
        self.unusable_labels: list[Reject] = []
        self.forms: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self.keypoints: Counter[int] = Counter()
        self.peaks: list[tuple[float, float]] = []
        self.images: list[HashedImage] = []
        self.pairs: list[Pair] = []

    def add(self, split: str, sample: Sample) -> None:
        """Count one image of `split`."""
        counts = self.counts[split]
        self.rejects += sample.rejects
        for reject in sample.rejects:
            counts[reject.action] += 1
            counts["restored"] += reject.kind == "restored"
        self.kinds[split].update(sample.dropped)
        self.forms[split].update(sample.forms)
        self.keypoints.update(sample.keypoints)
        if sample.image is None:
            return
        counts["images"] += 1
        counts[sample.image["label_status"]] += 1
        if not sample.boxes and (lost := [reject for reject in sample.rejects if reject.rows]):
            counts["all_rows_rejected"] += 1
            self.unusable_labels.append(lost[0])
        self.classes[split].update(box["class_id"] for box in sample.boxes)
        counts["tiny_boxes"] += sum(max(box["x2"] - box["x1"], box["y2"] - box["y1"]) < 1 for box in sample.boxes)
        self.peaks += [] if sample.peak is None else [sample.peak]
        self.images.append(HashedImage(split, sample.image["path"], sample.image["sha256"], sample.phash))
        if sample.truth is not None:
            counts["with_truth"] += 1
            counts["with_defect_truth"] += bool(sample.truth_labels - {0, IGNORE})
            counts["with_ignored_truth"] += IGNORE in sample.truth_labels
            counts["boxes_on_truth"] += sample.boxes_on_truth[0]
            counts["boxes_on_other_truth"] += sample.boxes_on_truth[1]

    def metrics(self) -> dict:
        """The content of metrics/ingest.json; a split that does not exist is null."""
        duplicates, kinds = exact_duplicates(self.images), Counter(reject.kind for reject in self.rejects)
        return {
            **{split: None if split in self.absent else self._split(split) for split in SPLITS},
            "orphan_labels": kinds["orphan_labels"],
            "orphan_masks": kinds["orphan_masks"],
            "ignored_files": sum(kinds[kind] for kind in ("not_an_image", "linked_folder", "linked_outside")),
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
            "boxes_by_form": {form: self.forms[split][form] for form in FORMS},
            "clipped_boxes": counts["box clipped"],
            "duplicates_removed": kinds.pop("duplicate", 0),
            "rejected_rows": sum(kinds.values()),
            "rejected_rows_by_reason": kinds,
            "labels_without_usable_row": counts["all_rows_rejected"],
            "rejected_images": counts["image dropped"],
            "restored_images": counts["restored"],
            "truth": counts["with_truth"],
            "truth_missing": counts["images"] - counts["with_truth"] if counts["with_truth"] else 0,
            "rejected_masks": counts["mask dropped"],
        }

    def lines(self) -> list[str]:
        """One line per split, in Ultralytics' words, and how masks were read, if there are any."""
        lines = []
        for split in SPLITS:
            if split in self.absent:
                lines.append(f"{split}: no such split")
                continue
            counts = self._split(split)
            forms = "".join(f" ({n} of {form} rows)" for form, n in counts["boxes_by_form"].items() if n)
            truth = f"{counts['truth']} with truth" if counts["truth"] else "no pixel truth"
            if other := self.counts[split]["boxes_on_other_truth"]:
                truth += f" ({other} boxes hold truth of other classes alone)"
            made = "" if self.groups is None else f" from {self._groups()[split]} groups"
            lines.append(
                f"{split}: {counts['images']} images{made} ({counts['labels_labelled']} labelled, "
                f"{counts['labels_missing']} missing, {counts['labels_empty']} empty, "
                f"{counts['rejected_images']} corrupt), {counts['boxes']} boxes{forms}, "
                f"{counts['rejected_rows']} rows rejected, {truth}"
            )
        any_truth = any(counts["with_truth"] for counts in self.counts.values())
        return [*lines, f"masks hold {self.masks.allowed}"] if any_truth else lines

    def problems(self, params: IngestParams, strict: bool, boxed: bool = True) -> list[str]:
        """Reasons why the data set must not be used; empty when it may. Adds exact duplicates to the rejects.

        `strict`: any finding is a reason. `boxed`: train and val must each have a box; False where there are masks in
        data.trusted.
        """
        found = []
        totals = sum(self.counts.values(), Counter())
        totals["boxes"] = sum(sum(classes.values()) for classes in self.classes.values())
        limit = f"ingest.max_bad_share = {params.max_bad_share}"
        empty = [split for split in SPLITS if split not in self.absent and not self.counts[split]["images"]]
        by_cause: dict[str, list[str]] = {}
        for what, bad, lost, among in losses(self.rejects, totals, self.unusable_labels):
            alone = empty and what.startswith("images")
            if lost > params.max_bad_share * among or alone:
                by_cause.setdefault(cause(bad, f"{empty[0]} has no other" if alone else limit), []).append(
                    f"{lost} of {among} {what}"
                )
        found += [f"{', '.join(shares)} {why}" for why, shares in by_cause.items()]
        if totals["with_ignored_truth"] and not totals["with_defect_truth"]:
            found.append(
                "no mask holds a defect, though some hold 255, which means ignored: write class id + 1 instead"
            )
        if totals["boxes_on_other_truth"] > params.max_bad_share * totals["boxes_on_truth"]:
            wrong = [reject for reject in self.rejects if reject.kind == "truth_class"]
            found.append(
                f"{totals['boxes_on_other_truth']} of {totals['boxes_on_truth']} boxes hold truth of other classes "
                f"alone ({limit}): {examples(wrong)}; masks hold class id + 1 or, with masks_dir in data.yaml, "
                "class ids"
            )
        found += self._suspicious(params, totals, limit, bool(by_cause) or not boxed)
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
            found.append(f"--strict: {len(self.rejects)} findings, first: {examples(self.rejects)}")
        if strict and self.pairs:
            pairs = [f"{pair.image.path} ~ {pair.twin.path}" for pair in self.pairs[:SHOWN]]
            found.append(f"--strict: {len(self.pairs)} near duplicates across splits, first: {'; '.join(pairs)}")
        return found

    def _suspicious(self, params: IngestParams, totals: Counter[str], limit: str, may_lack_boxes: bool) -> list[str]:
        """Reasons that would otherwise show only after hours of training; `may_lack_boxes`: a split without is none."""
        found = []
        for split, why in () if may_lack_boxes else NEEDS_BOXES:
            example = next((image.path for image in self.images if image.split == split), None)
            if example is not None and not self.classes[split]:
                place = f"the label file of {example} would be {label_path(example)}"
                found.append(f"{split} has no usable box, so that {why}; {place}")
        if totals["tiny_boxes"] > params.max_bad_share * totals["boxes"]:
            share = f"{totals['tiny_boxes']} of {totals['boxes']} boxes are smaller than a pixel ({limit})"
            found.append(f"{share}: coordinates look normalised twice")
        corners = sum(forms["polygon"] + forms["oriented"] for forms in self.forms.values())
        if len(self.keypoints) == 1 and corners == self.keypoints.total() >= FEW:
            columns = f"all {corners} rows with corners have {min(self.keypoints)} columns and look like keypoints"
            found.append(f"{columns}: write kpt_shape into data.yaml; or, of one polygon, the first corner once more")
        if outside := [reject for reject in self.rejects if reject.kind == "linked_outside"]:
            found.append(f"{examples(outside[:1])}, so that what it holds would be lost: copy it, or remove the link")
        beyond = [reject for reject in self.rejects if reject.kind == "class_one_more"]
        if beyond and not any(classes[0] for classes in self.classes.values()):
            found.append(f"class ids look counted from 1: class 0 never occurs, and {examples(beyond[:1])}")
        return found

    def note(self) -> None:
        """Add what is odd about the data set as a whole to the rejects."""
        reasons = []
        share, white = max(self.peaks, default=(1.0, 1.0))
        if share <= 0.5:
            high = share * white
            advice = f"{high:.2g}"
            if white > 1:  # integer levels: advise the smallest bit depth that holds them
                fits = next(2**bits - 1 for bits in range(1, 64) if 2**bits - 1 >= high - 0.5)
                advice = f"{fits} for values up to {high:.0f}"
            told = f"{len(self.peaks)} images of more than 8 bits reach {share:.1%} of white and become dark"
            reasons.append(f"{told}: set ingest.white_level, such as {advice}")
        for index, name in enumerate(self.names):
            others = [split for split in SPLITS[1:] if self.classes[split][index]]
            if others and self.classes["train"] and not self.classes["train"][index]:
                reasons.append(f"class {index} ({name}) has boxes in {' and '.join(others)}, and none in train")
        self.rejects += [Reject("data.yaml", None, "noted", reason, "noted") for reason in reasons]
