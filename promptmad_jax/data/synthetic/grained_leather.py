"""Grained leather: pebbles between fine creases."""

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
    upsample,
)
from promptmad_jax.data.synthetic.shading import diffuse, draw_light, gloss, normals

DEFECTS = ("cut", "poke", "fold", "glue")
CELLS = 26  # pebbles across the picture


def render(grid: Grid, rng: np.random.Generator, defect: str, marker: np.random.Generator):
    light = draw_light(rng)
    pebbles = pebble_height(grid, rng)
    waves = smooth_noise(rng, grid, 5, 5)
    fine = smooth_noise(rng, grid, 170, 170)
    height = 0.016 * pebbles + 0.008 * waves + 0.0006 * fine
    hide = colour(np.array([0.50, 0.27, 0.16]) * (1 + rng.normal(0, 0.03, 3)))
    albedo = hide * (0.72 + 0.30 * pebbles + 0.05 * waves)[None]
    shine = np.full_like(height, 0.16)
    if defect != "good":
        height, albedo, shine = DAMAGE[defect](grid, marker, height, albedo, shine)
    normal = normals(grid, height)
    return albedo * diffuse(normal, light, 0.3)[None] + (shine * gloss(normal, light, 4))[None]


def pebble_height(grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """0 in the creases, 1 on the pebbles: distance to the border of jittered Voronoi cells."""
    u, v = rotated(grid, rng.uniform(0, 2 * np.pi), rng.uniform(-0.2, 0.2, 2))
    bend = 0.03 * smooth_noise(rng, grid, 6, 6)
    u = ((u + bend)[::2, ::2] + 2) * np.float32(CELLS / 2)
    v = ((v - bend)[::2, ::2] + 2) * np.float32(CELLS / 2)
    jitter = rng.uniform(0.05, 0.95, (2, 3 * CELLS, 3 * CELLS)).astype(np.float32)
    i, j = np.floor(u), np.floor(v)
    cell = (i * (3 * CELLS) + j).astype(np.int32)
    first = np.full(u.shape, 9, np.float32)
    second = first.copy()
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            neighbour = cell + (di * 3 * CELLS + dj)
            du = u - (i + di) - jitter[0].ravel()[neighbour]
            dv = v - (j + dj) - jitter[1].ravel()[neighbour]
            distance = du * du + dv * dv
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    border = np.sqrt(second) - np.sqrt(first)
    return upsample(ramp(border, 0.0, 0.38), grid.side)


def place(marker: np.random.Generator) -> np.ndarray:
    return marker.uniform(-0.6, 0.6, 2)


def cut(grid: Grid, marker: np.random.Generator, height, albedo, shine):
    angle, length = marker.uniform(0, np.pi), marker.uniform(0.55, 0.85)
    path = marks.arc(marker, place(marker), length, angle, marker.normal(0, 0.4))
    width = marks.tapered(len(path), marker.uniform(0.05, 0.075), marker)
    lips = marks.stroke(grid, path, width * 1.2, 0.006)
    flesh = marks.stroke(grid, path, width)
    slit = marks.stroke(grid, path, width * 0.4)
    albedo = mix(mix(albedo, (0.74, 0.56, 0.40), 0.9 * flesh), (0.10, 0.06, 0.05), 0.9 * slit)
    return height + 0.012 * lips - 0.04 * flesh, albedo, shine * (1 - flesh)


def poke(grid: Grid, marker: np.random.Generator, height, albedo, shine):
    centre, radius = place(marker), marker.uniform(0.07, 0.1)
    distance = marks.spot(grid.x, grid.y, marker, centre, radius, 0.15)
    rim = np.exp(-(((distance - 0.03) / np.float32(0.03)) ** 2))
    hole = coverage(grid, distance * 0.5)
    albedo = mix(albedo * (1 + 0.35 * rim)[None], (0.06, 0.04, 0.04), 0.95 * hole)
    return height * (1 - rim) + 0.035 * rim - 0.05 * hole, albedo, shine * (1 - hole)


def fold(grid: Grid, marker: np.random.Generator, height, albedo, shine):
    angle, length = marker.uniform(0, np.pi), marker.uniform(0.9, 1.4)
    path = marks.arc(marker, place(marker) * 0.6, length, angle, marker.normal(0, 0.5))
    width = marks.tapered(len(path), 0.06, marker)
    ridge = marks.stroke(grid, path, width, 0.008)
    worn = marks.stroke(grid, path, width * 0.45, 0.008)
    albedo = mix(albedo, (0.70, 0.50, 0.36), 0.75 * worn)
    return height * (1 - 0.8 * ridge) + 0.04 * ridge, albedo, shine * (1 + 0.8 * ridge)


def glue(grid: Grid, marker: np.random.Generator, height, albedo, shine):
    centre, radius = place(marker), marker.uniform(0.1, 0.14)
    distance = marks.spots(grid.x, grid.y, marker, centre, radius, radius, 3)
    film = 1 - ramp(distance, -0.03, 0.006)
    bead = 1 - ramp(distance, -0.09, 0.0)
    albedo = mix(albedo, (0.66, 0.58, 0.44), 0.62 * film)
    return height * (1 - 0.85 * film) + 0.04 * bead, albedo, shine + 0.5 * film


DAMAGE = {"cut": cut, "poke": poke, "fold": fold, "glue": glue}
