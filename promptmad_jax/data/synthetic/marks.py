"""Shapes of defects: strokes, wandering paths, irregular spots."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from promptmad_jax.data.synthetic.geometry import Grid


def wander(rng: np.random.Generator, start, angle: float, length: float, steps: int, wobble: float):
    """Path [steps + 1, 2] from `start` whose direction changes by about `wobble` per step."""
    angles = angle + np.cumsum(rng.normal(0, wobble, steps))
    moves = np.stack([np.cos(angles), np.sin(angles)], 1) * (length / steps)
    return np.concatenate([np.zeros((1, 2)), np.cumsum(moves, 0)]) + np.asarray(start)


def arc(rng: np.random.Generator, centre, length: float, angle: float, bend: float) -> np.ndarray:
    """Smooth path [25, 2] of `length` through `centre` that turns by `bend` radians in all."""
    angles = angle + np.linspace(-0.5, 0.5, 24) * bend + rng.normal(0, 0.03, 24)
    moves = np.stack([np.cos(angles), np.sin(angles)], 1) * (length / 24)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(moves, 0)])
    return path - path.mean(0) + np.asarray(centre)


def stroke(grid: Grid, path: np.ndarray, width, soft: float = 0.0) -> np.ndarray:
    """Coverage [H, W] of a line along `path`; `width` is one number or one for each point."""
    image = Image.new("L", (grid.side, grid.side))
    draw = ImageDraw.Draw(image)
    points = (np.asarray(path) + 1) / grid.pixel
    radii = np.broadcast_to(np.asarray(width, float), len(points)) / grid.pixel / 2
    dense = np.linspace(0, len(points) - 1, 16 * len(points))
    index = np.arange(len(points))
    columns = (points[:, 0], points[:, 1], radii)
    for px, py, r in np.stack([np.interp(dense, index, column) for column in columns], 1):
        draw.ellipse((px - r, py - r, px + r, py + r), fill=255)
    blurred = image.filter(ImageFilter.GaussianBlur(0.7 + soft / grid.pixel))
    return np.asarray(blurred, np.float32) / np.float32(255)


def tapered(count: int, width: float, rng: np.random.Generator) -> np.ndarray:
    """Widths of `count` points: thin at both ends, uneven between."""
    shape = np.sin(np.linspace(0.12, np.pi - 0.12, count)) ** 0.6
    return width * shape * rng.uniform(0.75, 1.25, count)


def spot(x, y, rng: np.random.Generator, centre, radius: float, rough: float = 0.25):
    """Signed distance (roughly) to an irregular round spot in the coordinates (x, y)."""
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    theta, distance = np.arctan2(dy, dx), np.hypot(dx, dy)
    edge = np.zeros_like(theta)
    for k in range(2, 8):
        wave = np.cos(k * theta + np.float32(rng.uniform(0, 2 * np.pi)))
        edge += np.float32(rough * rng.uniform(0.4, 1.0) / k) * wave
    # Fading the waves out towards the centre keeps the field smooth there.
    edge *= np.minimum(distance / np.float32(radius), 1) ** 2
    return distance - np.float32(radius) * (1 + edge)


def scuff(grid: Grid, path: np.ndarray, width: float, rng: np.random.Generator) -> np.ndarray:
    """Scratch of a main stroke along `path` and two thinner, shorter ones beside it."""
    mark = stroke(grid, path, tapered(len(path), width, rng))
    along = path[-1] - path[0]
    beside = np.array([-along[1], along[0]]) / np.hypot(*along)
    for side in (-1, 1):
        first, last = rng.integers(0, 8), rng.integers(14, len(path))
        part = path[first:last] + side * rng.uniform(0.8, 1.5) * width * beside
        mark = np.maximum(mark, 0.85 * stroke(grid, part, tapered(len(part), width * 0.5, rng)))
    return mark


def spots(x, y, rng: np.random.Generator, centre, spread: float, radius: float, count: int):
    """Signed distance to a cluster of `count` spots around `centre`."""
    distance = spot(x, y, rng, centre, radius * 1.2)
    for _ in range(count - 1):
        place = np.asarray(centre) + rng.normal(0, spread, 2)
        other = spot(x, y, rng, place, radius * rng.uniform(0.3, 0.9))
        distance = np.minimum(distance, other)
    return distance


def dent(x, y, centre, radius: float, stretch: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """Bell [H, W] of height 1 at `centre`, falling to nothing at about 1.5 radii."""
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = (cos * dx + sin * dy) / np.float32(stretch), cos * dy - sin * dx
    square = (u * u + v * v) / np.float32(radius * radius)
    return np.exp(-square * square)
