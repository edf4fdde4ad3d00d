"""The plot of the model card: accuracy against the mean number of experts per message, as SVG."""

from __future__ import annotations

import json
import pathlib

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 400, 64, 150, 24, 48
COLORS = {"fixed k": "#555555", "allocator": "#c02030", "top-p": "#2060c0"}


def draw(curves: dict) -> str:
    """`curves`: {rule: [(setting, mean k, accuracy)]}."""
    shown = {rule: sorted((k, a) for _, k, a in curves[rule]) for rule in COLORS}
    every = [point for points in shown.values() for point in points]
    low, high = min(a for _, a in every), max(a for _, a in every)
    low, high = low - 0.1 * (high - low + 0.2), high + 0.1 * (high - low + 0.2)
    most = max(k for k, _ in every)

    def at(k, accuracy):
        x = LEFT + (k - 1) / (most - 1) * (WIDTH - LEFT - RIGHT)
        return x, TOP + (high - accuracy) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for step in range(6):
        value = low + (high - low) * step / 5
        _, y = at(1, value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for k in range(1, int(most) + 1):
        x, _ = at(k, low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{k}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">experts per message and layer (mean)</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}">right intent, noisy evaluation sets, %</text>')
    for row, (rule, color) in enumerate(COLORS.items()):
        points = [at(*point) for point in shown[rule]]
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in points]
        y = TOP + 20 + 22 * row
        parts.append(f'<line x1="{WIDTH - RIGHT + 16}" x2="{WIDTH - RIGHT + 40}" y1="{y - 4}" y2="{y - 4}" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 48}" y="{y}">{rule}</text>')
    return "\n".join([*parts, "</svg>", ""])


def write(source: pathlib.Path, target: pathlib.Path):
    """From allocator.py's figures to plot.svg."""
    target.write_text(draw(json.loads(source.read_text())))
