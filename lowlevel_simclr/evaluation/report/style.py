"""The style sheet of a report.

It is light or dark like the reader's system, and works on a phone and on wider screens.
"""

from __future__ import annotations

# Colours by use. A text has a contrast of at least 4.5 with its background, and a line of at least 3.
LIGHT = {
    "page": "#ffffff",
    "panel": "#f3f4f6",
    "text": "#1b1d20",
    "muted": "#565c64",
    "warning": "#8a3b00",
    "edge": "#d5d8dd",
    "c0": "#1f6fb5",
    "c1": "#b3541e",
    "c2": "#2a7a35",
    "c3": "#7b3fa0",
    "c4": "#8a6d00",
    "c5": "#5b6470",
}
DARK = {
    "page": "#15171a",
    "panel": "#1f2226",
    "text": "#e8eaed",
    "muted": "#adb4bd",
    "warning": "#ffb47d",
    "edge": "#3b4047",
    "c0": "#6cb2f0",
    "c1": "#f2a65a",
    "c2": "#7fcf86",
    "c3": "#c79be0",
    "c4": "#e0c341",
    "c5": "#b3bac2",
}
TEXTS = ("text", "muted", "warning")
LINES = ("c0", "c1", "c2", "c3", "c4", "c5")
BACKGROUNDS = ("page", "panel")

RULES = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:16px}
h1{font-size:1.6rem;line-height:1.25;margin:.4em 0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:1.8em 0 .4em;border-bottom:1px solid var(--edge)}
h3{font-size:1rem;margin:.2em 0}
p,li{overflow-wrap:anywhere}
.muted,figcaption,.readout{color:var(--muted);font-size:.875rem}
.warning{color:var(--warning)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr));gap:16px}
figure{margin:0 0 12px;min-width:0}
.chart{background:var(--panel);padding:10px;border-radius:8px;touch-action:pan-y}
.chart>svg{width:100%;height:auto;display:block;cursor:crosshair}
.chart text{fill:var(--text);font-size:13px}
.chart .x{text-anchor:middle}
.chart .x:nth-of-type(2){text-anchor:start}
.chart .x:nth-of-type(10){text-anchor:end}
.chart .y{text-anchor:end}
.grid{stroke:var(--edge);stroke-width:1}
.curve,.level,.dots{fill:none;stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.level{stroke-dasharray:6 4}
.dots{stroke-width:7;stroke-linecap:round}
.key{list-style:none;margin:4px 0;padding:0;display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.875rem}
.swatch{width:24px;height:8px;margin-right:6px;vertical-align:middle}
.dot{width:12px;height:12px;margin-right:4px;vertical-align:-1px}
.readout{margin:2px 0;min-height:1.5em}
.scroll{overflow-x:auto;position:relative}
.scroll img{display:block;background:#fff;max-width:max(100%,760px);height:auto}
table{border-collapse:collapse;font-size:.9rem;margin:.4em 0}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{padding:4px 14px 4px 0;text-align:left;border-bottom:1px solid var(--edge);font-variant-numeric:tabular-nums}
tbody th{font-weight:400}
td,tbody th{max-width:30em;overflow-wrap:break-word}
pre{background:var(--panel);padding:10px;border-radius:8px;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere}
pre span{display:inline-block;max-width:100%}
summary{cursor:pointer}
:focus-visible{outline:2px solid var(--c0);outline-offset:2px}
.map{position:relative;max-width:620px}
.map>svg{width:100%;height:auto;display:block;background:var(--panel);border-radius:8px}
.tip{position:absolute;display:none;background:var(--page);border:1px solid var(--edge);border-radius:6px;padding:6px;
font-size:.8rem;pointer-events:none;z-index:1}
.thumb{width:32px;height:32px;transform:scale(2);transform-origin:0 0;margin:0 32px 32px 0;image-rendering:pixelated}
"""


def write_style() -> str:
    """Return the style sheet."""
    light, dark = (";".join(f"--{name}:{value}" for name, value in colours.items()) for colours in (LIGHT, DARK))
    lines = "".join(f".{name}{{stroke:var(--{name})}}" for name in LINES)
    return f":root{{color-scheme:light dark;{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}{RULES}{lines}"
