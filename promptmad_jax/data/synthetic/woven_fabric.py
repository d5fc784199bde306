"""Plain weave of blue warp and sand-coloured weft."""

import dataclasses

import numpy as np

from promptmad_jax.data.synthetic import marks
from promptmad_jax.data.synthetic.geometry import Grid, colour, mix, ramp, rotated, smooth_noise
from promptmad_jax.data.synthetic.shading import diffuse, draw_light, normals

DEFECTS = ("hole", "missing_thread", "stain", "loose_thread")
YARNS = 24  # across the picture, in each direction
PITCH = 2 / YARNS
WARP, WEFT, BACKING = (0.26, 0.37, 0.52), (0.72, 0.67, 0.57), (0.10, 0.09, 0.09)


@dataclasses.dataclass(frozen=True)
class Cloth:
    """Yarn coordinates (in pitches), present yarn 0..1 and each yarn's own tone."""

    u: np.ndarray
    v: np.ndarray
    warp: np.ndarray
    weft: np.ndarray
    warp_tone: np.ndarray
    weft_tone: np.ndarray


def render(grid: Grid, rng: np.random.Generator, defect: str, marker: np.random.Generator):
    light = draw_light(rng)
    cloth = lay(grid, rng)
    fuzz = smooth_noise(rng, grid, 200, 200)
    if defect == "hole":
        cloth = torn(grid, cloth, marker)
    if defect == "missing_thread":
        cloth = without_yarn(cloth, marker)
    picture = weave(grid, cloth, fuzz, light)
    if defect == "stain":
        return stained(grid, picture, marker)
    if defect == "loose_thread":
        return with_thread(grid, picture, marker)
    return picture


def lay(grid: Grid, rng: np.random.Generator) -> Cloth:
    u, v = rotated(grid, rng.normal(0, 0.035), rng.uniform(-0.1, 0.1, 2), rng.uniform(0.95, 1.05))
    u = (u + 0.012 * smooth_noise(rng, grid, 4, 4)) / np.float32(PITCH)
    v = (v + 0.012 * smooth_noise(rng, grid, 4, 4)) / np.float32(PITCH)
    full = np.ones_like(u)
    dye = rng.uniform(0.74, 1.08)
    tones = (dye * rng.normal(1, 0.055, (2, 3 * YARNS))).astype(np.float32)
    return Cloth(u, v, full, full, tones[0], tones[1])


def yarn_index(position: np.ndarray) -> np.ndarray:
    return np.floor(position).astype(np.int32) + YARNS


def weave(grid: Grid, cloth: Cloth, fuzz: np.ndarray, light) -> np.ndarray:
    i, j = yarn_index(cloth.u), yarn_index(cloth.v)
    fu, fv = cloth.u - np.floor(cloth.u) - 0.5, cloth.v - np.floor(cloth.v) - 0.5
    sign = (1 - 2 * ((i + j) & 1)).astype(np.float32)
    warp = yarn_height(fu, sign * np.cos(np.pi * fv), cloth.warp, cloth.weft)
    weft = yarn_height(fv, -sign * np.cos(np.pi * fu), cloth.weft, cloth.warp)
    height = np.maximum(np.maximum(warp, weft), -0.6)
    twist = np.sin(2 * np.pi * np.where(warp > weft, 3 * fv + 1.5 * fu, 3 * fu + 1.5 * fv))
    normal = normals(grid, (height * 0.4 + 0.05 * twist) * np.float32(PITCH * 0.55))
    lit = diffuse(normal, light, 0.4) * (0.82 + 0.22 * np.clip(height, -0.6, 1)) + 0.03 * fuzz
    top = (warp > weft)[None]
    tone = lit * np.where(top[0], cloth.warp_tone[i], cloth.weft_tone[j])
    picture = np.where(top, colour(WARP), colour(WEFT)) * tone[None]
    return mix(picture, BACKING, 1 - ramp(np.maximum(warp, weft), -0.75, -0.35))


def yarn_height(across, over, present, crossing) -> np.ndarray:
    """Height of one yarn system; where no yarn crosses, a yarn lies flat and thin."""
    profile = np.maximum(1 - (across / (np.float32(0.36) + 0.11 * crossing)) ** 2, 0)
    height = 0.55 * (over * crossing - 0.8 * (1 - crossing)) + 0.8 * np.sqrt(profile)
    return np.where((profile > 0) & (present > 0.5), height, np.float32(-3))


def torn(grid: Grid, cloth: Cloth, marker: np.random.Generator) -> Cloth:
    place = marker.uniform(-0.65, 0.65, 2)
    distance = marks.spot(grid.x, grid.y, marker, place, marker.uniform(0.12, 0.19))
    fray = marker.uniform(-0.035, 0.055, (2, 3 * YARNS)).astype(np.float32)
    warp = (distance > fray[0][yarn_index(cloth.u)]).astype(np.float32)
    weft = (distance > fray[1][yarn_index(cloth.v)]).astype(np.float32)
    return dataclasses.replace(cloth, warp=cloth.warp * warp, weft=cloth.weft * weft)


def without_yarn(cloth: Cloth, marker: np.random.Generator) -> Cloth:
    along, across = (cloth.u, cloth.v) if marker.random() < 0.7 else (cloth.v, cloth.u)
    line = np.floor(marker.uniform(-0.35, 0.35) * YARNS)
    middle, half = marker.uniform(-0.2, 0.2) * YARNS, marker.uniform(0.22, 0.4) * YARNS
    rows = marker.integers(1, 3)
    gone = (np.floor(across) >= line) & (np.floor(across) < line + rows)
    keep = 1 - (gone & (np.abs(along - middle) < half)).astype(np.float32)
    name = "weft" if across is cloth.v else "warp"
    return dataclasses.replace(cloth, **{name: getattr(cloth, name) * keep})


def stained(grid: Grid, picture: np.ndarray, marker: np.random.Generator) -> np.ndarray:
    place, radius = marker.uniform(-0.62, 0.62, 2), marker.uniform(0.13, 0.19)
    distance = marks.spots(grid.x, grid.y, marker, place, radius, radius, 5)
    wet = 1 - ramp(distance, -0.04, 0.03)
    tint = marker.choice([[0.62, 0.34, 0.22], [0.40, 0.44, 0.40], [0.72, 0.38, 0.42]])
    return picture * (1 - wet[None] * (1 - colour(tint)))


def with_thread(grid: Grid, picture: np.ndarray, marker: np.random.Generator) -> np.ndarray:
    start, length = marker.uniform(-0.5, 0.5, 2), marker.uniform(1.0, 1.5)
    path = marks.wander(marker, start, marker.uniform(0, 2 * np.pi), length, 26, 0.38)
    body = marks.stroke(grid, path, 0.042)
    core = marks.stroke(grid, path - 0.006, 0.016, 0.004)
    shadow = marks.stroke(grid, path + 0.022, 0.045, 0.012)
    tint = np.array(marker.choice([[0.86, 0.85, 0.80], [0.62, 0.16, 0.15], [0.16, 0.15, 0.17]]))
    picture = picture * (1 - 0.5 * shadow)[None]
    return mix(mix(picture, tint * 0.82, body), np.minimum(tint * 1.15 + 0.04, 1), 0.8 * core)
