"""The plots as files, without a browser: SVG, PNG and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np

from lmtrain.core.errors import UserError
from lmtrain.core.files import atomic_file
from lmtrain.report.charts import PALETTE, Drawing, Line, Plot
from lmtrain.report.log import Column
from lmtrain.report.series import SMOOTHING, smoothed

FORMATS: Final = ("png", "svg", "csv")
_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 24, 64, 40
_ROW: Final = 18  # between two rows of the legend
_ZOOM: Final = 2  # pixels of a PNG for each unit of the SVG
_INK, _SOFT, _GRID, _RULE = "#1d2125", "#5c646c", "#ecece7", "#d5d5cf"


def export(drawing: Drawing, formats: Sequence[str], folder: Path) -> list[Path]:
    """Write each plot in each of :data:`FORMATS` asked for as ``folder/loss.svg``; returns the files."""
    written: list[Path] = []
    for plot in drawing.plots:
        svg = svg_of(drawing, plot) if {"svg", "png"} & set(formats) else ""
        for kind in formats:
            content = csv_of(drawing, plot).encode() if kind == "csv" else svg.encode() if kind == "svg" else _png(svg)
            path = folder / f"{plot.id}.{kind}"
            try:
                with atomic_file(path) as stream:
                    stream.write(content)
            except OSError as error:
                raise UserError(f"{path} cannot be written ({error.strerror})", flag="--export_dir") from error
            written.append(path)
    return written


def require_png() -> None:
    """Raise :class:`UserError` when PNG files are asked for and what draws them is not installed."""
    try:
        import resvg_py  # noqa: F401
    except ImportError:
        raise UserError(
            "png needs a package more: pip install 'lmtrain[png]'; or take svg, or the button at each plot of the page",
            flag="--export",
        ) from None


def _png(svg: str) -> bytes:
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=_ZOOM))


def csv_of(drawing: Drawing, plot: Plot) -> str:
    """Long form: a row for each value. ``low`` and ``high`` are the extremes where a row stands for several steps."""
    turn = _turn(plot)
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("run", "curve", "step", "tokens", "seconds", "value", "low", "high"))
    for line in plot.lines:
        table = drawing.tables[line.run][line.table]
        band = table.curves[line.curve]
        columns = (table.step, table.tokens, table.seconds, turn(band.mean), turn(band.low), turn(band.high))
        for row in zip(*columns, strict=True):
            if math.isfinite(row[3]):
                rows.writerow((drawing.names[line.run], line.label, *(_cell(float(value)) for value in row)))
    return out.getvalue()


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.10g}"


def _turn(plot: Plot) -> Callable[[Column], Column]:
    if plot.transform == "none":
        return lambda values: values

    def exponential(values: Column) -> Column:
        with np.errstate(over="ignore"):
            return np.exp(values)

    return exponential


# ---- SVG ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values ``low`` to ``high`` on pixels ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: Any) -> Any:
        """Pixels; nan for what has no place."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.log:
                share = np.log(np.asarray(values) / self.low) / math.log(self.high / self.low)
            else:
                share = (np.asarray(values) - self.low) / (self.high - self.low)
            return np.where(np.isfinite(share), self.start + share * (self.end - self.start), np.nan)


def svg_of(drawing: Drawing, plot: Plot) -> str:
    """A plot on its own, by step, on white ground."""
    curves = [_Curve.of(drawing, plot, line) for line in plot.lines]
    x = _Scale(*_ends([c.x for c in curves], pad=0.0), _LEFT, _WIDTH - _RIGHT)
    values = [c.y[c.y > 0] if plot.log else c.y for c in curves]
    y = _Scale(*_ends(values, pad=0.05, log=plot.log, fine=plot.form == "number"), _HEIGHT - _BOTTOM, _TOP, plot.log)
    legend, more = _legend(plot)
    height = _HEIGHT + more
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {_WIDTH} {height:.0f}" font-family="system-ui, Helvetica, Arial, sans-serif">',
        f"<title>{escape(plot.title)}</title>",
        f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
        _text(16, 26, plot.title, _INK, size=16, more='font-weight="600"'),
        _text(_WIDTH - _RIGHT, 26, plot.unit, _SOFT, anchor="end"),
        *legend,
        f'<g transform="translate(0 {more:.0f})">',
        *_axes(x, y, plot),
        # wider than the axes by a dot, which may stand at their very end
        f'<clipPath id="inside"><rect x="{_LEFT - 4}" y="{_TOP - 4}" width="{_WIDTH - _LEFT - _RIGHT + 8}" '
        f'height="{_HEIGHT - _TOP - _BOTTOM + 8}"/></clipPath>',
        '<g clip-path="url(#inside)" fill="none" stroke-linejoin="round">',
        *(shape for curve in curves for shape in curve.shapes(x, y)),
        "</g>",
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True, slots=True)
class _Curve:
    line: Line
    x: Column
    y: Column
    smooth: Column | None
    low: Column
    high: Column

    @classmethod
    def of(cls, drawing: Drawing, plot: Plot, line: Line) -> _Curve:
        table = drawing.tables[line.run][line.table]
        band = table.curves[line.curve]
        known = np.isfinite(band.mean)
        x, turn = table.step[known], _turn(plot)
        smooth = None
        if plot.smooth and not line.dots and len(x) > 2:
            smooth = turn(smoothed(x, band.mean[known], SMOOTHING * float(x[-1] - x[0])))
        return cls(line, x, turn(band.mean[known]), smooth, turn(band.low[known]), turn(band.high[known]))

    def shapes(self, x: _Scale, y: _Scale) -> list[str]:
        colour = PALETTE[self.line.colour % len(PALETTE)][0]
        across = x(self.x)
        found = []
        if not np.array_equal(self.low, self.high):
            edge = [*_points(across, y(self.high)), *reversed(_points(across, y(self.low)))]
            found.append(f'<path d="M{"L".join(edge)}Z" fill="{colour}" fill-opacity="0.14"/>')
        if self.smooth is not None:
            thin = 'stroke-width="1" stroke-opacity="0.32"'
            found.append(f'<path d="{_path(across, y(self.y))}" stroke="{colour}" {thin}/>')
        main = y(self.y if self.smooth is None else self.smooth)
        dashes = _dashes(self.line)
        found.append(f'<path d="{_path(across, main)}" stroke="{colour}" stroke-width="1.8"{dashes}/>')
        if (self.line.dots and len(across) <= 120) or len(across) == 1:
            points = (point.split(",") for point in _points(across, main))
            found += [f'<circle cx="{at}" cy="{up}" r="3" fill="{colour}"/>' for at, up in points]
        return found


def _points(across: Column, up: Column) -> list[str]:
    limit = 10.0 * _HEIGHT  # far outside of the picture a line may end
    return [
        f"{a:.1f},{min(max(u, -limit), limit):.1f}"
        for a, u in zip(across.tolist(), up.tolist(), strict=True)
        if math.isfinite(u)
    ]


def _path(across: Column, up: Column) -> str:
    return "M" + "L".join(_points(across, up)) if np.isfinite(up).any() else ""


def _ends(columns: Sequence[Column], *, pad: float, log: bool = False, fine: bool = True) -> tuple[float, float]:
    known = [column[np.isfinite(column)] for column in columns]
    joined = np.concatenate([*known, np.empty(0)])
    if not len(joined):
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(joined.min()), float(joined.max())
    if log:
        room = max((high / low) ** pad, 1.02)
        return low / room, high * room
    # A constant has no ticks of its own, be it but for rounding; of memory and speed a hundredth is no change either.
    is_flat = high - low <= (1e-9 if fine else 0.01) * abs(high)
    room = (abs(high) * 0.05 or 1.0) if is_flat else (high - low) * pad
    return (max(low - room, 0.0) if low >= 0 else low - room), high + room


def _axes(x: _Scale, y: _Scale, plot: Plot) -> list[str]:
    parts = []
    for tick in ticks(y.low, y.high, log=y.log):
        at = float(y(tick))
        parts.append(f'<path d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}" stroke="{_GRID}"/>')
        parts.append(_text(_LEFT - 8, at + 4, written(tick, plot.form), _SOFT, anchor="end"))
    bottom = _HEIGHT - _BOTTOM
    for tick in ticks(x.low, x.high):
        at = float(x(tick))
        parts.append(f'<path d="M{at:.1f} {bottom}v4" stroke="{_RULE}"/>')
        parts.append(_text(at, bottom + 19, written(tick, "rate"), _SOFT, anchor="middle"))
    parts.append(f'<path d="M{_LEFT} {bottom}H{_WIDTH - _RIGHT}" stroke="{_RULE}"/>')
    parts.append(_text(_WIDTH - _RIGHT, _HEIGHT - 6, "step", _SOFT, anchor="end"))
    return parts


def _legend(plot: Plot) -> tuple[list[str], float]:
    """Its shapes, and how much more height than one row its rows take."""
    if len(plot.lines) < 2:
        return [], 0.0
    parts, x, y = list[str](), 16.0, 45.0
    for line in plot.lines:
        width = 46 + 6.4 * len(line.label)
        if x > 16 and x + width > _WIDTH:
            x, y = 16.0, y + _ROW
        colour = PALETTE[line.colour % len(PALETTE)][0]
        parts.append(f'<path d="M{x:.0f} {y:.0f}h18" stroke="{colour}" stroke-width="2.5"{_dashes(line)}/>')
        parts.append(_text(x + 24, y + 4, line.label, _SOFT))
        x += width
    return parts, y - 45


def _dashes(line: Line) -> str:
    return f' stroke-dasharray="{line.dash}"' if line.dash else ""


def _text(x: float, y: float, text: str, colour: str, *, size: int = 12, anchor: str = "start", more: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"'
        f"{' ' + more if more else ''}>{escape(text)}</text>"
    )


def ticks(low: float, high: float, count: int = 6, *, log: bool = False) -> list[float]:
    """Round values between the two, about ``count``."""
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        return [low]
    if log and high / low > 30:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        every = max(1, math.ceil((last - first) / count))
        return [10.0**power for power in range(first, last + 1, every)]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(part * power for part in (1, 2, 5, 10) if raw <= part * power * 1.0000001)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def written(value: float, form: str) -> str:
    """A tick as text: ``25 %``, ``11.2 GB``, ``100 k``, ``3e-4``."""
    if form == "percent":
        return f"{value * 100:.4g} %"
    scale, prefix = 1.0, ""
    if form in ("bytes", "rate") or abs(value) >= 1e5:
        found = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
        scale, prefix = next((pair for pair in found if abs(value) >= pair[0] * 0.9995), (1.0, ""))
    text = f"{value / scale:.5g}".replace("e-0", "e-")
    return f"{text} {prefix}{'B' if form == 'bytes' else ''}".strip()
