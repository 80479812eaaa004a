"""What must be in memory on a rank, by the formula of docs/performance.md ("Memory"), in bytes.

Usage: memory_formula.py CONFIG [section.key=value...] [--ranks N]
"""
import argparse
import math
import pathlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """`ranks` = dp x ep."""
    ranks: int = 1
    ep: int = 1


def read_config(path: str | pathlib.Path, overrides: list[str]) -> dict:
    """Sections of scalars, which is all that the formula needs of a YAML file: whole numbers as int, the rest as
    text. `section.key=value` on top."""
    config: dict[str, dict] = {}
    lines = [line.split("#")[0].rstrip() for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines()]
    for line in filter(None, lines):
        key, _, text = line.strip().partition(":")
        if line[0] != " ":
            section = config.setdefault(key, {})
        else:
            section[key] = scalar(text.strip())
    for override in overrides:
        name, _, text = override.partition("=")
        first, _, key = name.partition(".")
        config.setdefault(first, {})[key] = scalar(text)
    return config


def scalar(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def layout_of(config: dict, ranks: int) -> Layout:
    return Layout(ranks, config.get("parallel", {}).get("ep", 1))


def dense_buckets(config: dict) -> list[int]:
    """Parameters that every rank holds: the embedding; in each layer attention, two norms, the router with its
    shared rows, and the shared experts; the final norm with the head."""
    m = config["model"]
    D, F, shared = m["d_model"], m["d_expert"], m.get("num_shared_experts", 1)
    layer = 4 * D * D + 2 * D + m["num_experts"] * D + 3 * D * F * shared
    return [m["vocab_size"] * D, *[layer] * m["n_layers"], m["vocab_size"] * D + D]


def experts_of_layer(config: dict) -> int:
    """Parameters of all routed experts of a layer."""
    m = config["model"]
    return 3 * m["d_model"] * m["d_expert"] * (m["num_experts"] - m.get("num_shared_experts", 1))


def buckets_under_way(config: dict, layout: Layout) -> float:
    """Gradients that arrive from the other ranks for what a rank owns, of two buckets at once; those of experts
    travel where dp > 1."""
    dp = layout.ranks // layout.ep
    dense = (layout.ranks - 1) / layout.ranks
    travelling = experts_of_layer(config) / layout.ep * (dp - 1) / dp
    embedding, *layers, head = (dense * size for size in dense_buckets(config))
    sizes = [embedding, *(layer + travelling for layer in layers), head]
    return max(a + b for a, b in zip(sizes, sizes[1:]))


def rows_of_exchange(config: dict, layout: Layout, tokens: int) -> float:
    """R, the rows on a rank where experts are chosen evenly and at random: a token's K experts leave out all of
    a rank's with probability C(E - E / P, K) / C(E, K)."""
    m = config["model"]
    shared = m.get("num_shared_experts", 1)
    E, K = m["num_experts"] - shared, m["top_k"] - shared
    others = E - E // layout.ep
    return layout.ep * tokens * (1 - math.comb(others, K) / math.comb(E, K))


def rows_of_logits(V: int) -> int:
    """Of a chunk of the head."""
    return min(max((1 << 22) // V, 256), 1024)


def memory_bytes(config: dict, layout: Layout = Layout()) -> float:
    """Without recomputation, dense layers or slices; the process's libraries are not in it."""
    if config["model"].get("dense_layers", "none") != "none" or \
            config.get("parallel", {}).get("recompute", "none") != "none" or \
            config.get("parallel", {}).get("slices", 1) != 1:
        raise ValueError("the formula is written for experts in every layer, no recomputation, one slice")
    m, t = config["model"], config["train"]
    D, F, H, L, V = m["d_model"], m["d_expert"], m["n_heads"], m["n_layers"], m["vocab_size"]
    shared = m.get("num_shared_experts", 1)
    K = m["top_k"] - shared
    tokens = math.ceil(t["batch"] / t.get("micro_batches", 1) / layout.ranks) * config["data"]["sequence_length"]
    dense, experts = sum(dense_buckets(config)), L * experts_of_layer(config)
    held = dense + experts / layout.ep
    owned = (dense + experts) / layout.ranks
    rows = rows_of_exchange(config, layout, tokens) if layout.ep > 1 else tokens
    layer = tokens * (8 * D + H + (m["num_experts"] - shared) + 2 * F * m["top_k"])
    arrived = rows - rows / layout.ep if layout.ep > 1 else 0
    layer += arrived * D
    shared_buffers = tokens * K * D + arrived * 4 * D + tokens * 9 * D + min(tokens, rows_of_logits(V)) * V
    return 4 * (2 * held + 2 * owned + L * layer + shared_buffers + buckets_under_way(config, layout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--ranks", type=int, default=1)
    options = parser.parse_args()
    config = read_config(options.config, options.overrides)
    print(f"{memory_bytes(config, layout_of(config, options.ranks)) / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
