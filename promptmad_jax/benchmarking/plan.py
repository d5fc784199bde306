"""Which cases are measured, at which batch sizes and at which values of a sweep."""

from collections.abc import Mapping
from dataclasses import dataclass

from promptmad_jax.runtime.errors import UserError

# What needs no configuration; a configuration's method adds the rest.
PLAIN_CASES = {"metrics": ("metrics", "metrics_pooled")}
SWEEPS = ("resolution", "classes", "dtype", "devices")
_INFERENCE_BATCHES = (1, 8, 32, 256)
_PLAIN = (*PLAIN_CASES["metrics"], "import")
# Neither compared with the roof nor with a choice of batch size.
_WHOLE = (*_PLAIN, "predict")
_PER_MODEL = ("bank", "states")
_TRAINING = ("training", "synthesis")


@dataclass(frozen=True)
class Selection:
    """What is asked for.

    Attributes:
        what: keys of `available`. cases: those of them to run, all where empty.
        batch_sizes: where empty, those that suit each case.
        sweep: one of `SWEEPS`, or None.
        available: the cases there are.
        training_batch, dtype_setting: of the configuration; unused without one.

    Raises:
        UserError: an unknown name, or one that the configuration does not have.
    """

    what: tuple[str, ...]
    cases: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    sweep: str | None
    available: Mapping[str, tuple[str, ...]]
    training_batch: int = 1
    dtype_setting: str = ""

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
                raise UserError(f"--cases={case}: of --what there are {', '.join(known)}")
        if self.sweep == "classes" and "bank" not in self.available.get("inference", ()):
            raise UserError("--sweep=classes: this detector has no class bank")


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
        """True if its work is compared with what the machine can do."""
        return self.name not in _WHOLE


def plan(selection: Selection) -> list[PlannedCase]:
    """The cases in order, the values of the sweep outermost."""
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


def _points(selection: Selection) -> tuple[Point, ...]:
    match selection.sweep:
        case "resolution":
            sizes = (224, 256, 320, 448)
            return tuple(Point((f"--config.data.image_size={size}",)) for size in sizes)
        case "classes":
            return tuple(Point((f"--classes={count}",)) for count in (15, 150, 1500))
        case "dtype":
            dtypes = ("float32", "bfloat16")
            setting = selection.dtype_setting
            return tuple(Point((f"--config.{setting}={dtype}",)) for dtype in dtypes)
        case "devices":
            return tuple(map(_devices, (1, 2, 4, 8)))
    return (Point(),)


def _devices(count: int) -> Point:
    # The flag is for CPUs alone; accelerators are there or not.
    flags = f"--xla_force_host_platform_device_count={count}"
    return Point((f"--config.mesh.data={count}",), (("XLA_FLAGS", flags),))
