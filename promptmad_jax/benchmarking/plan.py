"""Cases of a benchmark, with their batch sizes and the values of a sweep."""

from collections.abc import Mapping
from dataclasses import dataclass

from promptmad_jax.runtime.errors import UserError

# Cases that need no configuration; a configuration's method adds the rest.
PLAIN_CASES = {"metrics": ("metrics", "metrics_pooled")}
_INFERENCE_BATCHES = (1, 8, 32, 256)
# Without a batch size, and not compared with the machine's peak.
_WHOLE = (*PLAIN_CASES["metrics"], "import", "predict")
_PER_MODEL = ("bank", "states")
_TRAINING = ("training", "synthesis")


@dataclass(frozen=True)
class Selection:
    """The cases that a command asks for.

    Attributes:
        what: keys of `available`.
        cases: those of them to run; all if empty.
        batch_sizes: by default those that suit each case.
        sweep: "resolution", "classes", "dtype", "devices" or None.
        available: groups of cases by name.
        training_batch, dtype_setting, image_multiple: of the configuration; unused without one.

    Raises:
        UserError: a name is unknown, or the configuration does not have it.
    """

    what: tuple[str, ...]
    cases: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    sweep: str | None
    available: Mapping[str, tuple[str, ...]]
    training_batch: int = 1
    dtype_setting: str = ""
    image_multiple: int = 1

    def __post_init__(self):
        for what in self.what:
            if what not in self.available:
                raise UserError(
                    f"--what={what}: it can be {', '.join(self.available)}; all but metrics need "
                    "a --config that has it"
                )
        known = [case for what in self.what for case in self.available[what]]
        for case in self.cases:
            if case not in known:
                raise UserError(f"--cases={case}: it can be {', '.join(known)} for this --what")
        if self.sweep and not self.dtype_setting:
            raise UserError(f"--sweep={self.sweep} needs a --config")
        if self.sweep == "classes" and "bank" not in self.available.get("inference", ()):
            raise UserError("--sweep=classes: this detector has no class bank")


@dataclass(frozen=True)
class PlannedCase:
    """A case at one batch size and one value of the sweep.

    Attributes:
        point: the flag that sets the sweep's value; "" without a sweep.
    """

    name: str
    batch_size: int
    point: str

    @property
    def has_roof(self) -> bool:
        """True if its rate is compared with the machine's peak."""
        return self.name not in _WHOLE


def plan(selection: Selection) -> list[PlannedCase]:
    """The cases in order, with the sweep as the outermost loop."""
    return [
        PlannedCase(case, size, point)
        for point in _points(selection)
        for what in selection.what
        for case in selection.available[what]
        if not selection.cases or case in selection.cases
        for size in _batch_sizes(selection, case)
    ]


def _batch_sizes(selection: Selection, case: str) -> tuple[int, ...]:
    if case in (*_WHOLE, *_PER_MODEL):
        return (1,)
    if selection.batch_sizes:
        return selection.batch_sizes
    return (selection.training_batch,) if case in _TRAINING else _INFERENCE_BATCHES


def _points(selection: Selection) -> list[str]:
    step = selection.image_multiple
    sizes = tuple(size // step * step for size in (224, 256, 320, 448))
    sweeps = {
        "resolution": ("--config.data.image_size", sizes),
        "classes": ("--classes", (15, 150, 1500)),
        "dtype": (f"--config.{selection.dtype_setting}", ("float32", "bfloat16")),
        "devices": ("--config.mesh.data", (1, 2, 4, 8)),
    }
    if selection.sweep is None:
        return [""]
    flag, values = sweeps[selection.sweep]
    return [f"{flag}={value}" for value in values]
