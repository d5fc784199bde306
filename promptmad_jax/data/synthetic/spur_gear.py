"""Brass spur gear with keyway and five lightening holes on a pale blue bench."""

import dataclasses

import numpy as np

from promptmad_jax.data.synthetic import marks
from promptmad_jax.data.synthetic.geometry import (
    Grid,
    box,
    colour,
    coverage,
    grain,
    mix,
    ramp,
    rotated,
    smooth_noise,
)
from promptmad_jax.data.synthetic.shading import cast_shadow, diffuse, draw_light, metal, normals

DEFECTS = ("broken_tooth", "crack", "stain", "scratch")
TEETH, TIP, ROOT, BORE, HOLES = 20, 0.76, 0.63, 0.14, 5


@dataclasses.dataclass(frozen=True)
class Blank:
    """Outline and height of the turned part, before colour."""

    distance: np.ndarray
    height: np.ndarray


def render(grid: Grid, rng: np.random.Generator, defect: str, marker: np.random.Generator):
    light = draw_light(rng)
    bench = table(grid, rng, light)
    angle = rng.uniform(0, 2 * np.pi)
    u, v = rotated(grid, angle, rng.uniform(-0.08, 0.08, 2), rng.uniform(0.95, 1.04))
    blank = machined(u, v)
    if defect == "broken_tooth":
        blank = without_tooth(marker, u, v, blank)
    picture = brass(grid, rng, light, u, v, blank)
    if defect in PAINTED:
        picture = PAINTED[defect](grid, marker, u, v, picture)
    body = coverage(grid, blank.distance)
    bench = bench * (1 - 0.6 * cast_shadow(body, light, 0.10, 0.022))[None]
    return mix(bench, picture, body)


def table(grid: Grid, rng: np.random.Generator, light) -> np.ndarray:
    height = 0.0018 * grain(rng, grid)
    tone = rng.uniform(0.34, 0.58) * diffuse(normals(grid, height), light) + 0.015 * smooth_noise(
        rng, grid, 5, 5
    )
    return tone[None] * colour((0.82, 0.98, 1.14))


def machined(u, v) -> Blank:
    radius, theta = np.hypot(u, v), np.arctan2(v, u)
    tooth = ramp(np.cos(TEETH * theta) + 1.6 * (ROOT + TIP - 2 * radius), -0.55, 0.55)
    rim = radius - (np.float32(ROOT) + np.float32(TIP - ROOT) * tooth)
    turn = np.float32(2 * np.pi / HOLES)
    near = theta - turn * np.rint(theta / turn)
    holes = np.float32(0.085) - np.hypot(radius * np.cos(near) - 0.38, radius * np.sin(near))
    bore = np.float32(BORE) - radius
    key = -box(u - np.float32(BORE), v, 0.06, 0.045)
    distance = np.maximum(np.maximum(rim * 0.6, holes), np.maximum(bore, key))
    web = 0.05 * ramp(np.abs(radius - np.float32(0.40)), 0.145, 0.165)
    edge = 0.05 * np.clip(-distance / np.float32(0.02), 0, 1)
    return Blank(distance, (web + edge).astype(np.float32))


def brass(grid: Grid, rng: np.random.Generator, light, u, v, blank: Blank) -> np.ndarray:
    radius = np.hypot(u, v)
    profile = 0.028 * rng.standard_normal(800) + 0.012 * np.repeat(rng.standard_normal(80), 10)
    lines = upsampled_rings(profile.astype(np.float32), radius)
    # A lathe-turned face reflects the lamp in two opposite sectors.
    sector = np.cos(2 * (np.arctan2(grid.y, grid.x) - np.float32(rng.uniform(0.3, 1.2))))
    tone = metal(normals(grid, blank.height), light) + 0.015 * grain(rng, grid)
    tone = tone + 0.12 * sector + lines
    return tone[None] * colour((1.08, 0.87, 0.50))


def upsampled_rings(profile: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Looks `profile` (radii 0 to 1.5) up with linear interpolation."""
    place = np.minimum(radius * np.float32((len(profile) - 1) / 1.5), len(profile) - 2)
    index = place.astype(np.int32)
    part = place - np.floor(place)
    return profile[index] * (1 - part) + profile[index + 1] * part


def without_tooth(marker: np.random.Generator, u, v, blank: Blank) -> Blank:
    angle = 2 * np.pi / TEETH * marker.integers(0, TEETH)
    place = (TIP * np.cos(angle), TIP * np.sin(angle))
    gap = marks.spot(u, v, marker, place, marker.uniform(0.13, 0.18), 0.5)
    return Blank(np.maximum(blank.distance, -gap), blank.height * ramp(gap, -0.01, 0.035))


def image_point(grid: Grid, u, v, place) -> np.ndarray:
    """Maps a point of the part, `place`, to the picture."""
    index = np.argmin((u - place[0]) ** 2 + (v - place[1]) ** 2)
    return np.array([grid.x.flat[index], grid.y.flat[index]])


def polar(radius: float, angle: float) -> tuple[float, float]:
    return radius * np.cos(angle), radius * np.sin(angle)


def crack(grid: Grid, marker: np.random.Generator, u, v, picture):
    angle = 2 * np.pi / HOLES * (marker.integers(0, HOLES) + 0.5) + marker.normal(0, 0.12)
    start = image_point(grid, u, v, polar(BORE, angle))
    outward = image_point(grid, u, v, polar(ROOT, angle)) - start
    direction = np.arctan2(outward[1], outward[0])
    path = marks.wander(marker, start, direction, marker.uniform(0.42, 0.55), 14, 0.24)
    width = np.linspace(0.046, 0.028, len(path))
    gap, lip = marks.stroke(grid, path, width), marks.stroke(grid, path + 0.016, width)
    return mix(mix(picture, (0.95, 0.82, 0.55), 0.6 * lip), (0.10, 0.07, 0.04), 0.92 * gap)


def stain(grid: Grid, marker: np.random.Generator, u, v, picture):
    place = polar(marker.uniform(0.25, 0.55), marker.uniform(0, 2 * np.pi))
    radius = marker.uniform(0.12, 0.17)
    distance = marks.spots(u, v, marker, place, radius * 0.9, radius, 4)
    wet = 1 - ramp(distance, -0.03, 0.02)
    tint = colour(marker.choice([[0.36, 0.46, 0.80], [0.60, 0.36, 0.34], [0.42, 0.40, 0.42]]))
    return picture * (1 - wet[None] * (1 - tint))


def scratch(grid: Grid, marker: np.random.Generator, u, v, picture):
    centre = image_point(grid, u, v, polar(marker.uniform(0.3, 0.5), marker.uniform(0, 2 * np.pi)))
    angle = marker.uniform(0, np.pi)
    path = marks.arc(marker, centre, marker.uniform(0.5, 0.75), angle, marker.normal(0, 0.4))
    bright, dark = marks.scuff(grid, path, 0.03, marker), marks.stroke(grid, path + 0.018, 0.02)
    return mix(mix(picture, (0.22, 0.15, 0.07), 0.8 * dark), (1.0, 0.93, 0.74), 0.85 * bright)


PAINTED = {"crack": crack, "stain": stain, "scratch": scratch}
