"""Which cases are measured, at which batch sizes and at which values of a sweep."""

from dataclasses import dataclass

from promptmad_jax.runtime.errors import UserError

CASES = {
    "inference": ("inference", "inference_device", "stages", "bank"),
    "training": ("training",),
    "synthesis": ("synthesis",),
    "metrics": ("metrics", "metrics_pooled", "metrics_scikit_learn", "metrics_outlier"),
    "startup": ("import", "predict"),
}
# Of zero-shot detectors.
_ZERO_SHOT_CASES = {
    "inference": ("inference", "inference_device", "states"),
    "training": ("training",),
    "metrics": CASES["metrics"],
}
SWEEPS = ("resolution", "classes", "dtype", "devices")
_INFERENCE_BATCHES = (1, 8, 32, 256)
# These have no configuration.
_PLAIN = (*CASES["metrics"], "import")
# And these no roof and no choice of batch size.
_WHOLE = (*_PLAIN, "predict")


@dataclass(frozen=True)
class Selection:
    """What is asked for.

    Attributes:
        what: keys of `CASES`. cases: those of them to run, all where empty.
        batch_sizes: where empty, those that suit each case.
        training_batch: of the configuration; None without one.
        sweep: one of `SWEEPS`, or None. zero_shot: whether the configuration is of such a detector.

    Raises:
        UserError: an unknown name, one that the configuration does not have, or no configuration
            where one is needed.
    """

    what: tuple[str, ...]
    cases: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    training_batch: int | None
    sweep: str | None
    zero_shot: bool = False

    @property
    def there(self) -> dict[str, tuple[str, ...]]:
        """The cases that the configuration has."""
        return _ZERO_SHOT_CASES if self.zero_shot else CASES

    def __post_init__(self):
        for what in self.what:
            if what not in self.there:
                which = " of zero-shot detectors" if self.zero_shot else ""
                raise UserError(f"--what={what}: there are{which} {', '.join(self.there)}")
        known = [case for what in self.what for case in self.there[what]]
        for case in self.cases:
            if case not in known:
                raise UserError(f"--cases={case}: of --what there are {', '.join(known)}")
        if self.training_batch is None and any(case not in _PLAIN for case in self.cases or known):
            raise UserError("give --config; only --what=metrics needs none")
        if self.zero_shot and self.sweep == "classes":
            raise UserError("--sweep=classes: zero-shot detectors have no class bank")


@dataclass(frozen=True)
class Point:
    """One value of a sweep: further arguments of the command, and environment variables."""

    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PlannedCase:
    """A case at one batch size and one value of the sweep."""

    name: str
    batch_size: int
    point: Point

    @property
    def has_roof(self) -> bool:
        """Whether its work is compared with what the machine can do."""
        return self.name not in _WHOLE


def plan(selection: Selection) -> list[PlannedCase]:
    """The cases in order, the values of the sweep outermost."""
    return [
        PlannedCase(case, size, point)
        for point in _points(selection)
        for what in selection.what
        for case in selection.there[what]
        if not selection.cases or case in selection.cases
        for size in _batch_sizes(selection, case)
    ]


def _batch_sizes(selection: Selection, case: str) -> tuple[int, ...]:
    if case in (*_WHOLE, "bank", "states"):
        return (1,)
    if selection.batch_sizes:
        return selection.batch_sizes
    return _INFERENCE_BATCHES if case in CASES["inference"] else (selection.training_batch,)


def _points(selection: Selection) -> tuple[Point, ...]:
    match selection.sweep:
        case "resolution":
            sizes = (224, 256, 320, 448)
            return tuple(Point((f"--config.data.image_size={size}",)) for size in sizes)
        case "classes":
            return tuple(Point((f"--classes={count}",)) for count in (15, 150, 1500))
        case "dtype":
            dtypes = ("float32", "bfloat16")
            key = "dapo" if selection.zero_shot else "backbone"
            return tuple(Point((f"--config.{key}.dtype={dtype}",)) for dtype in dtypes)
        case "devices":
            return tuple(map(_devices, (1, 2, 4, 8)))
    return (Point(),)


def _devices(count: int) -> Point:
    # The flag is for CPUs alone; accelerators are there or not.
    flags = f"--xla_force_host_platform_device_count={count}"
    return Point((f"--config.mesh.data={count}",), (("XLA_FLAGS", flags),))
