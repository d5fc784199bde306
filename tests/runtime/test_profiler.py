"""The profile of a few steps."""

import jax
import jax.numpy as jnp
import pytest

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.profiler import NO_TRACE, StepTrace, parse_steps


@pytest.fixture
def recorded(monkeypatch):
    """What the profiler was told."""
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda path: calls.append(f"start {path}"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


def run(trace, calls, first, last):
    with trace:
        for step in range(first, last + 1):
            trace.before(step)
            calls.append(step)
            trace.after(step, jnp.float32(0))


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (1, 6, [1, 2, "start P", 3, 4, "stop", 5, 6]),
        (4, 6, ["start P", 4, "stop", 5, 6]),
        (5, 6, [5, 6]),
        # A run that ends early leaves a whole profile.
        (1, 3, [1, 2, "start P", 3, "stop"]),
    ],
)
def test_steps_in_the_range(recorded, first, last, expected):
    run(StepTrace("P", (3, 4)), recorded, first, last)
    assert recorded == expected


def test_nothing_is_recorded_unasked_or_elsewhere(recorded, monkeypatch):
    run(NO_TRACE, recorded, 1, 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    run(StepTrace("P", (1, 2)), recorded, 1, 2)
    assert recorded == [1, 2, 1, 2]


def test_the_profiler_writes(tmp_path):
    run(StepTrace(tmp_path, (1, 1)), [], 1, 1)
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_object_stores_are_refused():
    with pytest.raises(UserError, match="writes to a local folder"):
        StepTrace("gs://bucket/profile", (1, 2))


def test_flag():
    assert parse_steps("") is None and parse_steps("3:3") == (3, 3)
    for text in ("3", "0:2", "4:3", "a:b", "1:2:3", "-1:2"):
        with pytest.raises(UserError, match="it must be FIRST:LAST"):
            parse_steps(text)
