"""Pictures of gates."""

from __future__ import annotations

from pathlib import Path

from engram_transformers.evaluation.metrics import rate
from engram_transformers.evaluation.report.heatmap import (
    CurvePoint,
    Shaded,
    calibration,
    heatmap,
)

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_heatmap_is_a_picture_and_the_same_every_time(tmp_path: Path) -> None:
    long = Shaded("long", [f" word{i}" for i in range(60)], [i / 60 for i in range(60)])
    odd = Shaded("odd", ["$a_b", "\n", "", "é"], [0.0, 1.0, -0.2, 1.3])
    for name in ("a.png", "b.png"):
        heatmap([long, odd], tmp_path / name, threshold=0.1)
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(PNG) and data == (tmp_path / "b.png").read_bytes()


def test_a_calibration_curve_is_a_picture(tmp_path: Path) -> None:
    points = [CurvePoint(0.1, rate([False] * 9 + [True])), CurvePoint(0.9, rate([True] * 7))]
    calibration(points, tmp_path / "c.png", title="$held out")
    assert (tmp_path / "c.png").read_bytes().startswith(PNG)
