"""Planed softwood board with growth rings and fibres."""

import numpy as np

from promptmad_jax.data.synthetic import marks
from promptmad_jax.data.synthetic.geometry import (
    Grid,
    colour,
    coverage,
    mix,
    ramp,
    rotated,
    smooth_noise,
    streaks,
)
from promptmad_jax.data.synthetic.shading import diffuse, draw_light, normals

DEFECTS = ("scratch", "crack", "stain", "knot_hole")
EARLY, LATE = (0.80, 0.63, 0.43), (0.56, 0.36, 0.20)


def render(grid: Grid, rng: np.random.Generator, defect: str, marker: np.random.Generator):
    light = draw_light(rng)
    angle = rng.normal(0, 0.05)
    u, v = rotated(grid, angle, (0, rng.uniform(-1, 1)))
    flow = v + 0.10 * smooth_noise(rng, grid, 4, 3) + np.float32(rng.normal(0, 0.12)) * u * u
    if defect == "knot_hole":
        centre = marker.uniform(-0.6, 0.6, 2)
        flow = flow + around_knot(grid, centre)
    rings = growth_rings(flow, rng)
    fibre = streaks(rng, grid, 300, 7, angle) + 0.5 * streaks(rng, grid, 180, 24, angle)
    late = np.clip(0.12 + rng.uniform(0.6, 1.0) * rings + 0.11 * fibre, 0, 1)
    board = mix(colour(EARLY) + np.zeros_like(late)[None], LATE, late)
    tone = rng.uniform(0.64, 1.1) * (1 + rng.normal(0, 0.015, 3))
    board = board * (1 + 0.035 * fibre)[None] * colour(tone)
    if defect == "good":
        return board
    if defect == "knot_hole":
        return knot_hole(grid, marker, board, centre)
    damage = {"scratch": scratch, "crack": crack, "stain": stain}[defect]
    return damage(grid, marker, board, light, angle)


def growth_rings(flow: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Late-wood content 0..1: each year rises slowly and ends abruptly; years differ in width."""
    years = np.cumsum(rng.uniform(0.07, 0.2, 60)).astype(np.float32) - 4
    year = np.interp(flow, years, np.arange(60)).astype(np.float32)
    phase = year - np.floor(year)
    strength = rng.uniform(0.55, 1.0, 61).astype(np.float32)[np.floor(year).astype(np.int32)]
    return strength * phase * phase * ramp(1 - phase, 0, 0.13)


def around_knot(grid: Grid, centre) -> np.ndarray:
    dx, dy = grid.x - np.float32(centre[0]), grid.y - np.float32(centre[1])
    return (
        0.16 * np.tanh(6 * dy) * np.exp(-(dx * dx / np.float32(0.045) + dy * dy / np.float32(0.03)))
    )


def knot_hole(grid: Grid, marker: np.random.Generator, board, centre):
    radius = marker.uniform(0.12, 0.17)
    distance = marks.spot(grid.x, grid.y * 1.15, marker, centre * (1, 1.15), radius, 0.18)
    around = np.exp(-np.maximum(distance, 0) / np.float32(0.03))
    rings = 0.5 + 0.5 * np.sin(distance * np.float32(160))
    knot = colour((0.36, 0.21, 0.12)) * (0.75 + 0.35 * rings)[None]
    board = mix(mix(board, (0.40, 0.24, 0.13), 0.6 * around), knot, coverage(grid, distance))
    return mix(board, (0.07, 0.05, 0.04), coverage(grid, distance + radius * 0.55))


def scratch(grid: Grid, marker: np.random.Generator, board, light, angle):
    turn = angle + marker.choice((-1, 1)) * marker.uniform(0.4, 1.4)
    path = marks.arc(marker, marker.uniform(-0.55, 0.55, 2), marker.uniform(0.6, 1.0), turn, 0.3)
    groove = marks.stroke(grid, path, marks.tapered(len(path), 0.045, marker), 0.004)
    second = path + marker.choice((-1, 1)) * np.array([0.07, -0.05]) * marker.uniform(0.7, 1.2)
    groove = np.maximum(groove, 0.8 * marks.stroke(grid, second[6:18], 0.026, 0.004))
    fresh = mix(board, (0.92, 0.80, 0.62), 0.8 * groove)
    return fresh * diffuse(normals(grid, -0.035 * groove), light, 0.2)[None]


def crack(grid: Grid, marker: np.random.Generator, board, light, angle):
    start = marker.uniform((-0.9, -0.7), (-0.1, 0.7))
    path = marks.wander(marker, start, angle, marker.uniform(0.7, 1.1), 28, 0.2)
    width = marks.tapered(len(path), marker.uniform(0.03, 0.045), marker)
    width = width * marker.uniform(0.6, 1.3, len(path))
    gap = marks.stroke(grid, path, width)
    lip = marks.stroke(grid, path + np.array([0, 0.02]), width * 0.6)
    return mix(mix(board, (0.93, 0.80, 0.60), 0.5 * lip), (0.09, 0.06, 0.04), 0.95 * gap)


def stain(grid: Grid, marker: np.random.Generator, board, light, angle):
    place, radius = marker.uniform(-0.6, 0.6, 2), marker.uniform(0.1, 0.14)
    distance = marks.spots(grid.x * 0.8, grid.y, marker, place * (0.8, 1), radius, radius, 4)
    wet = 1 - ramp(distance, -0.03, 0.015)
    rim = np.exp(-((distance / np.float32(0.022)) ** 2))
    tint = colour(marker.choice([[0.50, 0.66, 0.98], [0.86, 0.52, 0.44], [0.62, 0.66, 0.52]]))
    return board * (1 - wet[None] * (1 - tint)) * (1 - 0.25 * rim)[None]
