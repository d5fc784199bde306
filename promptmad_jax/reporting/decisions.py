"""Defects found and false alarms at the thresholds, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptmad_jax.evaluation.proportion import Proportion


@dataclass(frozen=True)
class Decisions:
    """The decisions on the test images of a class, or of all classes together.

    Attributes:
      found: of the defective images; None without any.
      alarms: of the normal images; None without any.
      pixel_alarms: share of the normal images' pixels above the threshold; None if unknown.
      source: the images that set the thresholds, in words; "" if unknown.
      promise: the share of false alarms that they stand for, in words; "" if unknown.
    """

    found: Proportion | None
    alarms: Proportion | None
    pixel_alarms: float | None
    source: str
    promise: str = ""

    @property
    def sentence(self) -> str:
        """Defects found and false alarms with their intervals, and what the thresholds rest on."""
        if self.found is None and self.alarms is None:
            expected = self.promise and f"{self.promise} false alarms"
            return ", ".join(filter(None, ["no test image", expected, self._rest]))
        found = _with_interval(self.found, "of defects found", "no defect to find")
        alarms = _with_interval(self.alarms, "false alarms", "no normal image to raise an alarm")
        return ", ".join(filter(None, [found, alarms, self._rest]))

    @property
    def _rest(self) -> str:
        return self.source and f"thresholds from {self.source}"


def class_decisions(result: Mapping) -> dict[str, Decisions]:
    """Class -> its decisions, from metrics.json; empty without thresholds."""
    if "thresholds" not in result:
        return {}
    promises, decisions = calibration(result).get("classes", {}), {}
    for name, own in result["thresholds"]["classes"].items():
        counts = result["protocol"]["images"][name]
        decisions[name] = Decisions(
            _proportion(own["image_recall"], counts["defective"]),
            _proportion(own["image_fpr"], counts["normal"]),
            own.get("pixel_fpr_good"),  # Older evaluations lack it.
            _counted([promises[name]["images"]]) if name in promises else "",
            _promise(promises[name]) if name in promises else "",
        )
    return decisions


def all_decisions(result: Mapping) -> Decisions | None:
    """The decisions on the images of all classes together; None without thresholds."""
    classes = class_decisions(result).values()
    if not classes:
        return None
    images = [own["images"] for own in calibration(result).get("classes", {}).values()]
    source = _counted(images) if images else ""
    if len(images) > 1:
        source += " per class"
    found, alarms = (_sum([getattr(own, kind) for own in classes]) for kind in ("found", "alarms"))
    promises = {own.promise for own in classes}
    return Decisions(found, alarms, None, source, promises.pop() if len(promises) == 1 else "")


def calibration(result: Mapping) -> Mapping:
    """The images behind the thresholds, as `TrainedDetector` states them; empty if there are none.

    Returns:
      `image_fpr` and `pixel_fpr`, the rates asked for, and `classes`: class -> `images`, their
      number, `rate` and `interval` that they stand for, and `comparable`.
    """
    return result["protocol"].get("calibrated", {})


def rounded(share: float) -> str:
    """A share in percent without decimals, with one close to 0 and 1."""
    return f"{100 * share:.{0 if 0.01 <= share <= 0.99 else 1}f}".removesuffix(".0")


def interval_words(proportion: Proportion) -> str:
    """The interval, such as `34 to 78 %`."""
    low, high = map(rounded, proportion.interval)
    return f"{low} to {high} %"


def _with_interval(proportion: Proportion | None, what: str, without: str) -> str:
    if proportion is None:
        return without
    count, total = proportion
    return (
        f"{rounded(proportion.share)} % {what} ({count} of {total}; 95 % interval "
        f"{interval_words(proportion)})"
    )


def _counted(images: Sequence[int]) -> str:
    low, high = min(images), max(images)
    number = f"{low}" if low == high else f"{low} to {high}"
    return f"{number} normal image{'' if high == 1 else 's'}"


def _promise(own: Mapping) -> str:
    if own["rate"] is None:
        return ""
    low, high = map(rounded, own["interval"])
    return f"expected {low} to {high} %"


def _proportion(share: float | None, total: int) -> Proportion | None:
    return None if share is None else Proportion(round(share * total), total)


def _sum(proportions: Sequence[Proportion | None]) -> Proportion | None:
    known = [proportion for proportion in proportions if proportion]
    return Proportion(*map(sum, zip(*known, strict=True))) if known else None
