"""Which checkpoints of a run stay as its best, and when that is asked."""

from dataclasses import dataclass

from groundwork.models.common.checks import require, require_positive


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionConfig:
    """Which epochs are validated, and which of them are kept as the best.

    splits: held-out splits of data.evaluate, never test splits; the value of a metric is its mean
        over them.
    metric: a column of results.json's `metric` ("Acc@0.5", "mIoU"); the epoch with its highest
        value becomes checkpoint_best.pth.
    mask_metric: the same for checkpoint_best_masks.pth, beside it; null: there is none.
    every, first: epochs first, first + every, ... are validated, counted from 1; first null: every,
        2 * every, ...
    last: so is the last epoch, whatever its number.
    """

    splits: tuple[str, ...] = ("val",)
    metric: str = "Acc@0.5"
    mask_metric: str | None = None
    every: int = 1
    first: int | None = None
    last: bool = True

    def __post_init__(self) -> None:
        require_positive(self, "every", "first")
        require(bool(self.splits), "select.splits names no split; use select: null for no choice")
        for split in self.splits:
            require(
                not split.startswith("test"),
                f"select.splits holds {split!r}: a test split is reported, never selected on; use "
                "a validation split, or select: null to keep the last epoch",
            )

    @property
    def best(self) -> dict[str, str]:
        """File name of a best checkpoint -> the metric that chooses it."""
        masks = {"checkpoint_best_masks.pth": self.mask_metric} if self.mask_metric else {}
        return {"checkpoint_best.pth": self.metric} | masks

    def due(self, epochs: int, total: int) -> bool:
        """Is there a validation after so many epochs of a run of `total`?"""
        late = epochs - (self.first or self.every)
        return (late >= 0 and late % self.every == 0) or (self.last and epochs == total)
