"""The report's plots, each as the text of an SVG element."""
from launch.report.page import pyplot, to_svg
from launch.retention.arms import KEEPS, METHODS
from launch.retention.results import (Results, Spread, full_loss, increase, no_routed, overlap_matrix)

COLOURS = {"emo": "#1f6fb4", "standard": "#d1602b", "emo-by-domain": "#7fb2dd", "small": "#6b6b6b", "dense": "#2e8b57"}
METHOD_COLOURS = dict(zip(METHODS, ("#1f6fb4", "#2e8b57", "#8a5fb0", "#b0b0b0")))

def line(axes, x, spreads: list[Spread], **style) -> None:
    """A line with the standard deviation over seeds as error bars, where there are several."""
    bars = [s.deviation for s in spreads]
    axes.errorbar(x, [s.mean for s in spreads], yerr=bars if None not in bars else None, capsize=3, marker="o",
                  markersize=4, **style)


def cut_arms(results: Results) -> list[str]:
    return [arm for arm in ("emo", "emo-by-domain", "standard") if arm in results.retention]


def retention(results: Results) -> str:
    """Increase over the full model by what is kept, and the losses themselves beside the baselines."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    fractions = [1.0, *KEEPS]
    x = range(len(fractions))
    for arm in cut_arms(results):
        for weights, dashes in (("kept", "-"), ("full", ":")):
            rises = [increase(results, arm, keep=keep, weights=weights) for keep in KEEPS]
            label = arm + (", weights of the full model" if weights == "full" else "")
            line(left, x, [Spread([0.0]), *rises] if rises[0].deviation is None else
                 [Spread([0.0] * len(rises[0].values)), *rises], color=COLOURS[arm], linestyle=dashes, label=label)
            if weights == "kept":
                full = full_loss(results, arm)
                absolute = [full, *(Spread([f + r for f, r in zip(full.values, rise.values)]) for rise in rises)]
                line(right, x, absolute, color=COLOURS[arm], label=arm)
    for arm in ("small", "dense"):
        if arm in results.evaluations:
            right.axhline(full_loss(results, arm).mean, color=COLOURS[arm], linestyle="--", label=f"{arm}, from scratch")
    left.set_ylabel("nats per token over the full model")
    right.set_ylabel("test loss, nats per token")
    for axes in (left, right):
        axes.set_xticks(x, [f"{100 * f:g} %" for f in fractions])
        axes.set_xlabel("experts kept")
        axes.legend(fontsize=8)
    return to_svg(figure, "Loss by share of experts kept, for each model")


def grouped_bars(axes, groups: list[str], series: dict[str, list[Spread]], colours: dict[str, str]) -> None:
    """For each group a bar of each series, with the standard deviation over seeds where there are several."""
    width = 0.8 / len(series)
    for i, (name, spreads) in enumerate(series.items()):
        bars = [s.deviation or 0 for s in spreads]
        axes.bar([k + (i - (len(series) - 1) / 2) * width for k in range(len(groups))], [s.mean for s in spreads], width,
                 yerr=bars if any(bars) else None, capsize=2, color=colours[name], label=name)
    axes.set_xticks(range(len(groups)), groups)


def methods(results: Results) -> str:
    """Increase by ranking method."""
    arms = cut_arms(results)
    figure, panels = pyplot.subplots(1, len(arms), figsize=(10, 3.4), sharey=True, squeeze=False)
    for axes, arm in zip(panels[0], arms):
        grouped_bars(axes, [f"{100 * keep:g} %" for keep in KEEPS],
                     {method: [increase(results, arm, method=method, keep=keep) for keep in KEEPS] for method in METHODS},
                     METHOD_COLOURS)
        axes.set_xlabel("experts kept")
        axes.set_title(arm, fontsize=10)
    panels[0][0].set_ylabel("nats per token over the full model")
    panels[0][0].legend(fontsize=8)
    return to_svg(figure, "Loss increase by ranking method")


def calibration(results: Results) -> str:
    """Increase by the number of documents that experts are ranked by."""
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.4))
    sizes = [*results.plan["sizes"], "all"]
    for axes, keep in zip(panels, (0.25, 0.125)):
        for arm in cut_arms(results):
            line(axes, range(len(sizes)), [increase(results, arm, keep=keep, documents=size) for size in sizes],
                 color=COLOURS[arm], label=arm)
        axes.set_xticks(range(len(sizes)), sizes)
        axes.set_xlabel("calibration documents")
        axes.set_title(f"{100 * keep:g} % of the experts kept", fontsize=10)
    panels[0].set_ylabel("nats per token over the full model")
    panels[0].legend(fontsize=8)
    return to_svg(figure, "Loss increase by number of calibration documents")


def whose_experts(results: Results) -> str:
    """Own experts, another domain's, random ones, none."""
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 3.4), sharey=True)
    kinds = {"own": {}, "another\ndomain's": {"calibrated_on": "other"}, "random": {"method": "random"}, "none": None}
    for axes, keep in zip(panels, (0.25, 0.125)):
        def rise(arm: str, properties: dict | None) -> Spread:
            return no_routed(results, arm) if properties is None else increase(results, arm, keep=keep, **properties)
        grouped_bars(axes, list(kinds), {arm: [rise(arm, properties) for properties in kinds.values()]
                                         for arm in cut_arms(results)}, COLOURS)
        axes.set_title(f"{100 * keep:g} % of the experts kept", fontsize=10)
    panels[0].set_ylabel("nats per token over the full model")
    panels[0].legend(fontsize=8)
    return to_svg(figure, "Loss increase with own, another domain's, random and no routed experts")


def overlap(results: Results) -> str:
    """Which experts the domains share, of the first seed."""
    arms = cut_arms(results)
    figure, panels = pyplot.subplots(1, len(arms), figsize=(4.2 * len(arms), 4.6), squeeze=False)
    for axes, arm in zip(panels[0], arms):
        seed = min(results.overlap[arm])
        shared = results.overlap[arm][seed]
        image = axes.imshow(overlap_matrix(shared), vmin=0, vmax=1, cmap="Blues")
        names = shared["domains"]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names if arm == arms[0] else [""] * len(names), fontsize=8)
        axes.grid(False)
        axes.set_title(arm, fontsize=10)
    figure.colorbar(image, ax=panels[0], shrink=0.6, label="Jaccard overlap")
    return to_svg(figure, "Overlap of the domains' experts")
