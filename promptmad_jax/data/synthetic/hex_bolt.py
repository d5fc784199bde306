"""Zinc-plated hexagon bolt lying on a grey foam tray, seen from the side, at any angle."""

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
from promptmad_jax.data.synthetic.shading import cast_shadow, diffuse, draw_light, metal, normals

DEFECTS = ("bent_shank", "stripped_thread", "broken_head", "rust")
HEAD_TOP, HEAD_BASE, THREAD_START, TIP = -0.68, -0.40, -0.12, 0.68
HEAD_RADIUS, RADIUS, PITCH, THREAD_DEPTH = 0.31, 0.165, 0.075, 0.022


@dataclasses.dataclass(frozen=True)
class Bolt:
    """Coordinates along (u) and across (v) the axis and what the defect changed."""

    u: np.ndarray
    v: np.ndarray
    worn: np.ndarray | float = 0.0
    cut: np.ndarray | None = None


def render(grid: Grid, rng: np.random.Generator, defect: str, marker: np.random.Generator):
    light = draw_light(rng)
    tray = foam(grid, rng, light)
    u, v = rotated(
        grid, rng.uniform(0, 2 * np.pi), rng.uniform(-0.07, 0.07, 2), rng.uniform(0.97, 1.05)
    )
    phase, plating = rng.uniform(0, 1), smooth_noise(rng, grid, 90, 90)
    bolt = DAMAGE[defect](grid, marker, u, v) if defect in DAMAGE else Bolt(u, v)
    distance, height = form(bolt, phase)
    body = coverage(grid, distance)
    tone = 1.25 * metal(normals(grid, height), light) * (1 + 0.025 * plating) - 0.06
    steel = tone[None] * colour((0.96, 0.95, 0.90))
    if defect == "rust":
        steel = rusted(grid, marker, steel, u, v)
    tray = tray * (1 - 0.62 * cast_shadow(body, light, 0.16, 0.035))[None]
    return mix(tray, steel, body)


def foam(grid: Grid, rng: np.random.Generator, light) -> np.ndarray:
    pores = 0.004 * grain(rng, grid)
    tone = 0.52 * diffuse(normals(grid, pores), light) + 0.012 * smooth_noise(rng, grid, 7, 7)
    return tone[None] * colour((0.97, 1.0, 1.04))


def form(bolt: Bolt, phase: float):
    """Signed distance of the outline and height of the surface, both [H, W]."""
    u, v = bolt.u, bolt.v
    turn = u / np.float32(PITCH) + v / np.float32(2 * RADIUS) * 0.5 + np.float32(phase)
    thread = np.abs(2 * (turn - np.floor(turn)) - 1) * (u > THREAD_START) * (1 - bolt.worn)
    tip = np.maximum(u - np.float32(TIP - 0.06), 0) * 0.8
    radius = np.float32(RADIUS) - np.float32(THREAD_DEPTH) * thread - tip
    radius = radius - np.float32(0.012) * (u > THREAD_START) * bolt.worn
    shank = np.maximum(np.abs(v) - radius, np.maximum(u - TIP, HEAD_BASE - u))
    round_shank = np.sqrt(np.maximum(radius * radius - v * v, 0))
    # The hexagon seen on an edge pair: a flat middle face and two faces that fall away.
    crown = 0.35 * np.maximum(HEAD_TOP + 0.05 - u, 0)
    faces = np.float32(0.27) - np.maximum(np.abs(v) - HEAD_RADIUS / 2, 0) * 0.62 - crown * 1.6
    head = np.maximum(np.abs(v) - HEAD_RADIUS + crown, np.maximum(HEAD_TOP - u, u - HEAD_BASE))
    collar = np.maximum(np.abs(v) - HEAD_RADIUS * 0.9, np.abs(u - HEAD_BASE - 0.015) - 0.015)
    distance = np.minimum(np.minimum(shank, head), collar)
    if bolt.cut is not None:
        distance = np.maximum(distance, -bolt.cut)
    height = np.where(u < HEAD_BASE, faces, round_shank)
    return distance, np.where((u >= HEAD_BASE) & (u < HEAD_BASE + 0.03), 0.2, height)


def bent(grid: Grid, marker: np.random.Generator, u, v) -> Bolt:
    start = marker.uniform(-0.02, 0.2)
    tip_offset = float(marker.choice((-1, 1))) * marker.uniform(0.13, 0.2)
    beyond = np.maximum(u - np.float32(start), 0) / np.float32(TIP - start)
    slope = 2 * tip_offset / (TIP - start) * beyond
    return Bolt(u, (v - np.float32(tip_offset) * beyond * beyond) / np.sqrt(1 + slope * slope))


def stripped(grid: Grid, marker: np.random.Generator, u, v) -> Bolt:
    middle, half = marker.uniform(0.08, 0.45), marker.uniform(0.09, 0.15)
    rough = 0.02 * smooth_noise(marker, grid, 20, 20)
    return Bolt(u, v, worn=1 - ramp(np.abs(u - np.float32(middle) + rough), half * 0.8, half))


def broken(grid: Grid, marker: np.random.Generator, u, v) -> Bolt:
    corner = (marker.choice((HEAD_TOP, HEAD_TOP, HEAD_BASE)), marker.choice((-1, 1)) * HEAD_RADIUS)
    return Bolt(u, v, cut=marks.spot(u, v, marker, corner, marker.uniform(0.16, 0.22), 0.5))


def rusted(grid: Grid, marker: np.random.Generator, steel, u, v) -> np.ndarray:
    centre = (marker.uniform(-0.6, 0.55), marker.uniform(-0.09, 0.09))
    distance = marks.spots(u, v, marker, centre, 0.07, marker.uniform(0.07, 0.1), 12)
    crust = 0.9 * coverage(grid, distance * 0.3)
    rough = smooth_noise(marker, grid, 100, 100)
    tone = steel.mean(0) * 1.1 + 0.2 + 0.18 * rough
    return mix(steel, tone[None] * colour((0.52, 0.31, 0.19)), crust)


DAMAGE = {"bent_shank": bent, "stripped_thread": stripped, "broken_head": broken}
