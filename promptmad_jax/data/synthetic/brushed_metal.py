"""Brushed steel sheet under a strip lamp."""

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
from promptmad_jax.data.synthetic.shading import diffuse, draw_light, gloss, normals

DEFECTS = ("scratch", "dent", "stain", "corrosion")


def render(grid: Grid, rng: np.random.Generator, defect: str, marker: np.random.Generator):
    light = draw_light(rng)
    angle = rng.normal(0, 0.035)
    fine = streaks(rng, grid, 400, 5, angle) + 0.6 * streaks(rng, grid, 220, 14, angle)
    broad = smooth_noise(rng, grid, 9, 2)
    _, v = rotated(grid, angle + rng.normal(0, 0.1), (0, rng.uniform(-0.8, 0.8)))
    band = np.exp(-v * v / np.float32(rng.uniform(0.12, 0.5)))
    tone = rng.uniform(0.30, 0.52) + 0.22 * band + 0.055 * fine + 0.015 * broad
    sheet = tone[None] * colour(np.array([1.0, 1.005, 1.02]) + rng.normal(0, 0.006, 3))
    if defect == "good":
        return sheet
    return DAMAGE[defect](grid, marker, sheet, light)


def place(marker: np.random.Generator, reach: float = 0.62) -> np.ndarray:
    return marker.uniform(-reach, reach, 2)


def scratch(grid: Grid, marker: np.random.Generator, sheet, light):
    angle = float(marker.choice((-1, 1))) * marker.uniform(0.5, 1.4)
    path = marks.arc(marker, place(marker), marker.uniform(0.7, 1.1), angle, marker.normal(0, 0.5))
    groove = marks.scuff(grid, path, marker.uniform(0.022, 0.03), marker)
    edge = marks.stroke(grid, path + 0.016, 0.018)
    sheet = mix(sheet, (0.95, 0.96, 0.97), 0.75 * edge)
    return mix(sheet, (0.19, 0.19, 0.21), 0.8 * groove)


def dent(grid: Grid, marker: np.random.Generator, sheet, light):
    radius, stretch = marker.uniform(0.13, 0.19), marker.uniform(1.0, 1.6)
    bell = marks.dent(grid.x, grid.y, place(marker), radius, stretch, marker.uniform(0, np.pi))
    depth = marker.choice((-1.0, -1.0, 1.0)) * marker.uniform(0.26, 0.4) * radius
    bump = normals(grid, bell * np.float32(depth))
    extra = gloss(bump, light, 4)
    return sheet * diffuse(bump, light, 0.1)[None] + (0.5 * (extra - extra[0, 0]))[None]


def stain(grid: Grid, marker: np.random.Generator, sheet, light):
    radius = marker.uniform(0.11, 0.16)
    distance = marks.spots(grid.x, grid.y, marker, place(marker), radius, radius, 4)
    inside = 1 - ramp(distance, -0.02, 0.012)
    rim = np.exp(-((distance / np.float32(0.02)) ** 2))
    tint = marker.choice([[1.12, 0.86, 0.48], [0.62, 0.84, 1.22], [0.64, 0.62, 0.58]])
    sheet = sheet * (1 - (inside[None] * (1 - colour(tint))))
    return sheet * (1 - 0.2 * rim * inside)[None]


def corrosion(grid: Grid, marker: np.random.Generator, sheet, light):
    distance = marks.spots(grid.x, grid.y, marker, place(marker), 0.09, 0.10, 14)
    crust = coverage(grid, distance * 0.35)
    rough = smooth_noise(marker, grid, 110, 110)
    rust = colour((0.34, 0.21, 0.14)) * (1 + 0.3 * rough)[None]
    halo = np.exp(-np.maximum(distance, 0) / np.float32(0.015))
    return mix(mix(sheet, (0.50, 0.38, 0.27), 0.45 * halo), rust, 0.92 * crust)


DAMAGE = {"scratch": scratch, "dent": dent, "stain": stain, "corrosion": corrosion}
