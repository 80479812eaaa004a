"""A model folder in numpy, written from the formulas (emo-facts 2, 5.1): slow, obvious, the oracle of tests.

Names: T tokens, D width, E routed experts, K routed experts per token.
"""
import json
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load_file


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@dataclass
class LayerView:
    """What a MoE layer saw and did with one document's piece."""
    probability: np.ndarray  # [T, E] softmax over all experts
    chosen: np.ndarray       # [T, K]
    weights: np.ndarray      # [T, K]
    lengths: np.ndarray      # [T, K] weight times the length of the expert's answer
    turned: np.ndarray       # [T] max(0, 1 - cos(h, h + o))


class NumpyModel:
    def __init__(self, folder: pathlib.Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors: dict[str, np.ndarray] = {}
        for file in sorted(folder.glob("model*.safetensors")):
            self.tensors.update({name: t.astype(np.float64) for name, t in load_file(file).items()})
        self.layers = self.config["num_hidden_layers"]
        self.shared = self.config["num_shared_experts"]

    def experts(self, layer: int) -> int:
        """Routed ones."""
        return self.tensors[f"model.layers.{layer}.mlp.gate.weight"].shape[0] - self.shared

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"]) * self.tensors[name]

    def attention(self, layer: int, x: np.ndarray) -> np.ndarray:
        T, D = x.shape
        H = self.config["num_attention_heads"]
        W = D // H
        angle = np.arange(T)[:, None] * self.config["rope_theta"] ** (-np.arange(0, W, 2) / W)
        cosine, sine = (np.tile(f(angle), 2)[:, None, :] for f in (np.cos, np.sin))

        def head(kind: str) -> np.ndarray:
            return (x @ self.tensors[f"model.layers.{layer}.self_attn.{kind}_proj.weight"].T).reshape(T, H, W)

        def rotate(y: np.ndarray) -> np.ndarray:
            return y * cosine + np.concatenate([-y[..., W // 2:], y[..., :W // 2]], -1) * sine

        scores = np.einsum("thw,shw->hts", rotate(head("q")), rotate(head("k"))) / np.sqrt(W)
        scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)
        out = np.einsum("hts,shw->thw", softmax(scores), head("v")).reshape(T, D)
        return out @ self.tensors[f"model.layers.{layer}.self_attn.o_proj.weight"].T

    def expert(self, layer: int, e: int, x: np.ndarray) -> np.ndarray:
        gate, up, down = (self.tensors[f"model.layers.{layer}.mlp.experts.{e}.{kind}_proj.weight"]
                          for kind in ("gate", "up", "down"))
        g = x @ gate.T
        return (g / (1 + np.exp(-g)) * (x @ up.T)) @ down.T

    def moe(self, layer: int, h: np.ndarray, kept: list[int] | None) -> tuple[np.ndarray, LayerView]:
        E = self.experts(layer)
        z = h @ self.tensors[f"model.layers.{layer}.mlp.gate.weight"][:E].T
        allowed = np.ones(E, bool) if kept is None else np.isin(np.arange(E), kept)
        scores = softmax(np.where(allowed, z, -np.inf))
        K = min(self.config["num_experts_per_tok"] - self.shared, int(allowed.sum()))
        chosen = np.argsort(-scores, -1, kind="stable")[:, :K]
        weights = np.take_along_axis(scores, chosen, -1)
        out = sum(self.expert(layer, E + s, h) for s in range(self.shared))
        lengths = np.zeros(chosen.shape)
        for e in range(E):
            token, slot = np.nonzero(chosen == e)
            added = weights[token, slot][:, None] * self.expert(layer, e, h[token])
            out[token] += added
            lengths[token, slot] = np.linalg.norm(added, axis=-1)
        both = h + out
        cosine = (h * both).sum(-1) / np.linalg.norm(h, axis=-1) / np.linalg.norm(both, axis=-1)
        return out, LayerView(softmax(z), chosen, weights, lengths, np.maximum(0, 1 - cosine))

    def run(self, tokens: np.ndarray, kept: list[list[int]] | None = None) -> Iterator[LayerView]:
        """Layer by layer, so that who asks may fill `kept` up to the layer that comes next."""
        x = self.tensors["model.embed_tokens.weight"][tokens]
        for layer in range(self.layers):
            x = x + self.attention(layer, self.norm(x, f"model.layers.{layer}.pre_attention_layernorm.weight"))
            h = self.norm(x, f"model.layers.{layer}.pre_feedforward_layernorm.weight")
            out, view = self.moe(layer, h, kept[layer] if kept is not None and layer < len(kept) else None)
            x = x + out
            yield view


def prepared_pieces(folder: pathlib.Path, S: int) -> dict[str, list[np.ndarray]]:
    """The pieces of each document of a prepared folder, by its id."""
    info = json.loads((folder / "dataset.json").read_text())
    pieces = {}
    for shard in info["shards"]:
        tokens = np.fromfile(folder / f"{shard['name']}.npy", info["dtype"]).astype(np.int64)
        records = np.fromfile(folder / f"{shard['name']}.index", np.dtype([("end", "<u8"), ("bytes", "<u8"),
                                                                           ("source", "<u4"), ("context", "<u4")]))
        begin = 0
        for name, end in zip((folder / f"{shard['name']}.ids").read_text().splitlines(), records["end"]):
            of_document, at = [], begin
            while not of_document or at + 1 < int(end):
                of_document.append(tokens[at:min(at + S, int(end))])
                at = min(at + S, int(end)) - 1
            pieces[name] = of_document
            begin = int(end)
    return pieces
