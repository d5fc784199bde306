"""Red crown cork with a printed star, seen from above on a dark rubber mat."""

import dataclasses

import numpy as np

from promptmad_jax.data.synthetic import marks
from promptmad_jax.data.synthetic.geometry import (
    Grid,
    colour,
    coverage,
    grain,
    mix,
    ramp,
    rotated,
    smooth_noise,
)
from promptmad_jax.data.synthetic.shading import (
    cast_shadow,
    diffuse,
    draw_light,
    gloss,
    metal,
    normals,
)

DEFECTS = ("dent", "scratch", "misprint", "bent_edge")
FLUTES, RADIUS = 21, 0.70
RED, CREAM, NAVY = (0.66, 0.10, 0.11), (0.90, 0.86, 0.76), (0.13, 0.17, 0.33)
NONE = np.zeros((), np.float32)


@dataclasses.dataclass(frozen=True)
class Cap:
    """Coordinates of the cap; `edge` moves the rim outwards, `press` lowers the surface."""

    u: np.ndarray
    v: np.ndarray
    edge: np.ndarray
    press: np.ndarray


def render(grid: Grid, rng: np.random.Generator, defect: str, marker: np.random.Generator):
    light = draw_light(rng)
    mat = rubber(grid, rng, light)
    turn = rng.normal(0, 0.07)
    u, v = rotated(grid, turn, rng.uniform(-0.09, 0.09, 2), rng.uniform(0.96, 1.05))
    slip = rng.uniform(-0.012, 0.012, 2).astype(np.float32)
    cap = BENT[defect](marker, u, v) if defect in BENT else Cap(u, v, NONE, NONE)
    distance, height = form(cap)
    height = height + 0.0003 * smooth_noise(rng, grid, 100, 100)
    paint = printed(grid, u - slip[0], v - slip[1], misprint(marker, u, v, defect))
    normal = normals(grid, height.astype(np.float32))
    shine = 0.34 * gloss(normal, light, 5)
    picture = paint * diffuse(normal, light, 0.3)[None] + shine[None]
    if defect == "scratch":
        picture = scratched(grid, marker, picture, metal(normal, light))
    body = coverage(grid, distance)
    mat = mat * (1 - 0.65 * cast_shadow(body, light, 0.12, 0.03))[None]
    return mix(mat, picture, body)


def rubber(grid: Grid, rng: np.random.Generator, light) -> np.ndarray:
    ribs = 0.006 * np.sin(grid.x * np.float32(60) + np.float32(rng.uniform(0, 6.3)))
    height = ribs + 0.0022 * grain(rng, grid)
    return (0.25 * diffuse(normals(grid, height), light))[None] * colour((0.95, 1.0, 1.1))


def form(cap: Cap):
    """Signed distance of the outline and height of the surface, both [H, W]."""
    radius = np.hypot(cap.u, cap.v)
    wave = np.cos(FLUTES * np.arctan2(cap.v, cap.u))
    wave = wave * (1 - np.minimum(np.abs(cap.edge) * 12, 1))
    rim = np.float32(RADIUS) + np.float32(0.03) * wave + cap.edge
    shoulder = ramp(radius - cap.edge, 0.48, 0.78)
    flute = ramp(radius, 0.54, 0.68) * wave * np.float32(0.028)
    plate = 0.012 * ramp(radius, 0.44, 0.47)
    return radius - rim, 0.24 * (1 - shoulder) + flute + plate - cap.press


def printed(grid: Grid, u, v, bad) -> np.ndarray:
    shift, keep = bad
    radius = np.hypot(u, v)
    paint = np.broadcast_to(colour(RED), (3, *radius.shape))
    ring = coverage(grid, np.abs(np.hypot(u - shift[0], v - shift[1]) - 0.41) - 0.022)
    disc = coverage(grid, radius - np.float32(0.345))
    x, y = u - shift[0], v - shift[1]
    paint = mix(paint, CREAM, np.maximum(ring * keep, disc))
    return mix(paint, NAVY, coverage(grid, star(x, y, 0.27)) * keep)


def star(x, y, size: float) -> np.ndarray:
    """Approximate distance to a five-pointed star with its tip along -y."""
    theta = np.arctan2(x, -y) / np.float32(2 * np.pi / 5)
    fold = np.abs(theta - np.rint(theta)) * np.float32(2 * np.pi / 5)
    radius = np.hypot(x, y)
    px, py = radius * np.cos(fold), radius * np.sin(fold)
    inner = size * 0.42
    ax, ay = size - inner * np.cos(np.pi / 5), inner * np.sin(np.pi / 5)
    length = np.hypot(ax, ay)
    return (np.float32(ay / length) * (px - size) + np.float32(ax / length) * py).astype(np.float32)


def misprint(marker: np.random.Generator, u, v, defect: str):
    """Shift of the second colour and a field that is 0 where ink is missing."""
    if defect != "misprint":
        return (0.0, 0.0), np.float32(1)
    if marker.random() < 0.4:
        angle = marker.uniform(0, 2 * np.pi)
        shift = 0.075 * np.array([np.cos(angle), np.sin(angle)], np.float32)
        return (shift[0], shift[1]), np.float32(1)
    angle, reach = marker.uniform(0, 2 * np.pi), marker.uniform(0.2, 0.3)
    hole = marks.spot(u, v, marker, (reach * np.cos(angle), reach * np.sin(angle)), 0.2, 0.5)
    return (0.0, 0.0), ramp(hole, -0.01, 0.01)


def dented(marker: np.random.Generator, u, v) -> Cap:
    angle, reach = marker.uniform(0, 2 * np.pi), marker.uniform(0.1, 0.5)
    size = marker.uniform(0.13, 0.18)
    centre = (reach * np.cos(angle), reach * np.sin(angle))
    bell = marks.dent(u, v, centre, size, marker.uniform(1, 1.6), marker.uniform(0, np.pi))
    return Cap(u, v, NONE, np.float32(marker.uniform(0.45, 0.6) * size) * bell)


def bent_edge(marker: np.random.Generator, u, v) -> Cap:
    angle, width = marker.uniform(-np.pi, np.pi), marker.uniform(0.22, 0.34)
    turn = np.arctan2(v, u) - np.float32(angle)
    turn = np.abs(turn - 2 * np.pi * np.rint(turn / (2 * np.pi)))
    bell = np.exp(-((turn / np.float32(width)) ** 4))
    move = marker.choice((-1.1, 1.0)) * marker.uniform(0.07, 0.1)
    return Cap(u, v, bell * np.float32(move), NONE)


def scratched(grid: Grid, marker: np.random.Generator, picture, bare) -> np.ndarray:
    centre, angle = marker.uniform(-0.28, 0.28, 2), marker.uniform(0, np.pi)
    path = marks.arc(marker, centre, marker.uniform(0.45, 0.8), angle, marker.normal(0, 0.5))
    mark = marks.scuff(grid, path, 0.03, marker)
    edge = marks.stroke(grid, path + 0.014, 0.022)
    picture = picture * (1 - 0.45 * edge)[None]
    return mix(picture, (0.75 * bare + 0.12)[None] * colour((0.92, 0.94, 0.97)), mark)


BENT = {"dent": dented, "bent_edge": bent_edge}
