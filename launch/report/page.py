"""What pages share: one HTML file that needs nothing else, tables, and plots as SVG elements."""
import html
import io
import math
import re
import typing

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68em; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2.2em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
td, th { padding: .2em .7em; text-align: right; border-bottom: 1px solid #e6e6e6; white-space: nowrap }
td:first-child, th:first-child { text-align: left } .wide { overflow-x: auto } svg { width: 100%; height: auto }
p, li { max-width: 46em } code, pre { background: #f3f3f3; padding: 0 .2em } pre { overflow-x: auto; padding: .6em }
.wrong { border-left: 4px solid #d55e00; padding-left: 1em }
"""
pyplot.rcParams.update({
    "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e6e6e6", "axes.axisbelow": True, "legend.frameon": False,
    "svg.fonttype": "none", "svg.hashsalt": "emo", "figure.constrained_layout.use": True})


def page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>
<style>{STYLE}</style>
{body}
</html>
"""


def table(head: list[str], rows: list[list]) -> str:
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>\n"
    return f'<div class="wide"><table>{line(head, "th")}{"".join(line(row, "td") for row in rows)}</table></div>'


def spread(mean: float | None, deviation: float | None, sign: bool = True) -> str:
    """A mean and its deviation, nats to three digits; "" where there is none."""
    if mean is None or math.isnan(mean):
        return ""
    text = f"{mean:+.3f}" if sign else f"{mean:.3f}"
    return text if deviation is None else f"{text} ± {deviation:.3f}"


def to_svg(figure, described: str) -> str:
    """`described` is what a reader who cannot see the plot is told."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    pyplot.close(figure)
    text = file.getvalue()
    text = text[text.index("<svg"):]
    width = re.search(r'width="([\d.]+)pt"', text)[1]
    label = html.escape(described, quote=True)
    text = re.sub(r'(<svg[^>]*?) width="[^"]+"',
                  lambda m: f'{m[1]} role="img" aria-label="{label}" style="max-width:{width}pt"', text, count=1)
    return re.sub(r'(<svg[^>]*?) height="[^"]+"', r"\1", text, count=1)


def apart(wanted: typing.Sequence[float], least: float) -> list[float]:
    """Heights near the wanted ones, in their order, none closer than `least` to the next: of labels."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[list[int]] = []   # neighbours that touch stand together, around the mean of what they want
    for i in order:
        groups.append([i])
        while len(groups) > 1 and bottom(groups[-1], wanted, least) < top(groups[-2], wanted, least) + least:
            groups[-2:] = [groups[-2] + groups[-1]]
    heights = [0.0] * len(wanted)
    for group in groups:
        for k, i in enumerate(group):
            heights[i] = bottom(group, wanted, least) + k * least
    return heights


def bottom(group: list[int], wanted: typing.Sequence[float], least: float) -> float:
    return sum(wanted[i] for i in group) / len(group) - least * (len(group) - 1) / 2


def top(group: list[int], wanted: typing.Sequence[float], least: float) -> float:
    return bottom(group, wanted, least) + least * (len(group) - 1)
