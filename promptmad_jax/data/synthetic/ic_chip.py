"""Twelve-pin integrated circuit soldered on a green circuit board."""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

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
from promptmad_jax.data.synthetic.shading import (
    cast_shadow,
    diffuse,
    draw_light,
    gloss,
    metal,
    normals,
)

DEFECTS = ("bent_pin", "missing_pin", "solder_bridge", "chipped_package")
HALF_U, HALF_V, PINS, PITCH, REACH = 0.36, 0.64, 6, 0.205, 0.64
PIN_HALF_WIDTH = 0.05


@dataclasses.dataclass(frozen=True)
class Damage:
    """Absent pins (side, row), a pin drawn askew, a solder bridge, a broken corner."""

    absent: tuple[int, int] | None = None
    slope: float = 0.0
    bridge: np.ndarray | None = None
    chip: np.ndarray | None = None
    fracture: np.ndarray | None = None


def render(grid: Grid, rng: np.random.Generator, defect: str, marker: np.random.Generator):
    light = draw_light(rng)
    turn = rng.normal(0, 0.07)
    u, v = rotated(grid, turn, rng.uniform(-0.1, 0.1, 2), rng.uniform(0.97, 1.04))
    damage = DAMAGE[defect](grid, marker, u, v) if defect != "good" else Damage()
    picture = board(grid, rng, light, u, v)
    picture = with_pins(grid, rng, light, u, v, damage, picture)
    return with_package(grid, rng, light, u, v, damage, picture)


def row_of(v: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(v / PITCH + (PINS - 1) / 2), 0, PINS - 1)


def row_centre(row):
    return (row - (PINS - 1) / 2) * PITCH


def board(grid: Grid, rng: np.random.Generator, light, u, v) -> np.ndarray:
    local = v - row_centre(row_of(v)).astype(np.float32)
    lane = np.abs(local) - np.float32(0.028)
    trace = coverage(grid, np.maximum(lane, REACH - np.abs(u)))
    plane = coverage(grid, box(u, v, 0.30, 0.56, 0.03))
    weave = np.sin(u * 95) * np.sin(v * 95)
    mask = 1 + 0.03 * weave + 0.03 * smooth_noise(rng, grid, 60, 60)
    green = colour((0.10, 0.33, 0.20)) * mask[None]
    green = mix(green, (0.17, 0.45, 0.27), 0.9 * np.maximum(trace, plane))
    outline = coverage(grid, np.abs(box(u, v, 0.82, 0.78, 0.02)) - 0.009)
    dot = coverage(grid, np.hypot(u + 0.74, v + 0.7) - 0.035)
    green = mix(green, (0.86, 0.88, 0.85), 0.9 * np.maximum(outline, dot))
    pad = coverage(grid, box(np.abs(u) - np.float32(REACH - 0.02), local, 0.12, 0.068, 0.02))
    bump = metal(normals(grid, 0.02 * pad), light) + 0.02 * grain(rng, grid)
    return mix(green, bump[None] * colour((0.98, 0.72, 0.36)), pad)


def with_pins(grid: Grid, rng: np.random.Generator, light, u, v, damage: Damage, picture):
    row = row_of(v)
    local = v - row_centre(row).astype(np.float32)
    side = u > 0
    pins = pin_shape(np.abs(u), local)
    if damage.absent is not None:
        gone = (side == bool(damage.absent[0])) & (row == damage.absent[1])
        pins = np.where(gone, np.float32(1), pins)
        if damage.slope:
            out = np.abs(u) - np.float32(HALF_U)
            askew = v - np.float32(row_centre(damage.absent[1])) - np.float32(damage.slope) * out
            pin = np.where(side == bool(damage.absent[0]), pin_shape(np.abs(u), askew), 1)
            pins = np.minimum(pins, pin)
            local = np.where(pin < 0.01, askew, local)
    body = coverage(grid, pins)
    along = np.abs(u)
    bend = 0.10 * (1 - ramp(along, HALF_U + 0.07, HALF_U + 0.15))
    height = bend + 0.25 * np.sqrt(np.maximum(0.004 - local * local, 0))
    tone = metal(normals(grid, height.astype(np.float32)), light) * 1.05
    picture = picture * (1 - 0.5 * cast_shadow(body, light, 0.05, 0.012))[None]
    picture = mix(picture, tone[None] * colour((0.97, 0.97, 1.0)), body)
    return picture if damage.bridge is None else bridged(grid, light, damage.bridge, picture)


def pin_shape(along, across) -> np.ndarray:
    return box(
        along - np.float32((HALF_U + REACH) / 2),
        across,
        (REACH - HALF_U) / 2 + 0.02,
        PIN_HALF_WIDTH,
        0.012,
    )


def bridged(grid: Grid, light, distance, picture):
    inward = 1 - np.clip(-distance / np.float32(0.1), 0, 1)
    dome = np.sqrt(1 - inward * inward) * np.float32(0.07)
    normal = normals(grid, dome)
    tone = metal(normal, light) * 0.95 + 0.3 * gloss(normal, light, 6)
    return mix(picture, tone[None] * colour((0.93, 0.94, 0.97)), coverage(grid, distance))


def with_package(grid: Grid, rng: np.random.Generator, light, u, v, damage: Damage, picture):
    distance = box(u, v, HALF_U, HALF_V, 0.02)
    bevel = np.clip(-distance / np.float32(0.045), 0, 1) * np.float32(0.05)
    texture = 0.0022 * grain(rng, grid)
    dimple = np.hypot(u + 0.23, v + 0.5) - np.float32(0.055)
    height = bevel + texture - 0.012 * ramp(-dimple, -0.01, 0.01)
    black = np.full_like(u, 0.17)
    if damage.chip is not None:
        inside = coverage(grid, damage.chip * 0.6)
        broken = 0.006 * damage.fracture - 0.12 * np.clip(-damage.chip, 0, 0.2)
        height = height * (1 - inside) + broken * inside
        black = black + inside * (0.27 + 0.04 * damage.fracture)
    normal = normals(grid, height.astype(np.float32))
    tone = black * diffuse(normal, light, 0.3) + 0.10 * gloss(normal, light, 4)
    ink = marking(grid, u, v)
    if damage.chip is not None:
        ink = ink * (1 - inside)
    package = mix(tone[None] * colour((1.0, 1.0, 1.03)), (0.62, 0.63, 0.62), 0.8 * ink)
    body = coverage(grid, distance)
    picture = picture * (1 - 0.6 * cast_shadow(body, light, 0.10, 0.02))[None]
    return mix(picture, package, body)


def marking(grid: Grid, u, v) -> np.ndarray:
    """The printed part number, read along the package."""
    sheet = Image.new("L", (256, 128))
    draw = ImageDraw.Draw(sheet)
    draw.text((128, 40), "PM 4017", fill=255, font=ImageFont.load_default(52), anchor="mm")
    draw.text((128, 96), "2609 B", fill=255, font=ImageFont.load_default(40), anchor="mm")
    rows, columns = (u * 230 + 64), (-v * 230 + 128 - 8)
    return ndimage.map_coordinates(np.asarray(sheet, np.float32) / 255, (rows, columns), order=1)


def draw_pin(marker: np.random.Generator) -> tuple[int, int]:
    return int(marker.integers(0, 2)), int(marker.integers(0, PINS))


def missing_pin(grid: Grid, marker: np.random.Generator, u, v) -> Damage:
    return Damage(absent=draw_pin(marker))


def bent_pin(grid: Grid, marker: np.random.Generator, u, v) -> Damage:
    slope = marker.choice((-1, 1)) * marker.uniform(0.38, 0.6)
    return Damage(absent=draw_pin(marker), slope=float(slope))


def solder_bridge(grid: Grid, marker: np.random.Generator, u, v) -> Damage:
    side, row = marker.choice((-1, 1)), marker.integers(0, PINS - 1)
    centre = (side * (REACH + marker.uniform(-0.08, 0.0)), row_centre(row + 0.5))
    stretched = (v - np.float32(centre[1])) * 0.62 + np.float32(centre[1])
    return Damage(bridge=marks.spot(u, stretched, marker, centre, marker.uniform(0.085, 0.11), 0.2))


def chipped_package(grid: Grid, marker: np.random.Generator, u, v) -> Damage:
    corner = marker.choice((-1, 1), 2) * np.array([HALF_U, HALF_V])
    chip = marks.spot(u, v, marker, corner, marker.uniform(0.2, 0.28), 0.5)
    return Damage(chip=chip, fracture=smooth_noise(marker, grid, 120, 120))


DAMAGE = {
    "bent_pin": bent_pin,
    "missing_pin": missing_pin,
    "solder_bridge": solder_bridge,
    "chipped_package": chipped_package,
}
