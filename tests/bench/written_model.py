"""Model folders that benchmarks write: an EMO model in bf16 as one file, and a subset of its experts."""
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from interleave import EMO, ROOT, BenchError, positive
from launch.arguments import Arguments


@dataclass(frozen=True)
class Sizes:
    d_model: int
    d_expert: int
    vocabulary: int
    heads: int
    keep: int        # experts of the subset, the shared one counted
    first_kept: int  # the smallest of them
    experts: int = 128
    top_k: int = 8


def shapes(sizes: Sizes, layers: int) -> dict[str, list[int]]:
    D, F, V = sizes.d_model, sizes.d_expert, sizes.vocabulary
    tensors = {"model.embed_tokens.weight": [V, D], "model.norm.weight": [D], "lm_head.weight": [V, D]}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for kind in "qkvo":
            tensors[f"{prefix}self_attn.{kind}_proj.weight"] = [D, D]
        for norm in ("pre_attention_layernorm", "pre_feedforward_layernorm"):
            tensors[f"{prefix}{norm}.weight"] = [D]
        tensors[f"{prefix}mlp.gate.weight"] = [sizes.experts, D]
        for e in range(sizes.experts):
            tensors[f"{prefix}mlp.experts.{e}.gate_proj.weight"] = [F, D]
            tensors[f"{prefix}mlp.experts.{e}.up_proj.weight"] = [F, D]
            tensors[f"{prefix}mlp.experts.{e}.down_proj.weight"] = [D, F]
    return tensors


def size(shape: list[int]) -> int:
    bytes_ = 2
    for extent in shape:
        bytes_ *= extent
    return bytes_


def write_model(folder: pathlib.Path, sizes: Sizes, layers: int, values: Callable[[int], bytes] | None = None) -> int:
    """Model, config.json and subset.json. `values` makes a tensor's bytes; without it the file is nothing but
    holes. Answers the bytes of the tensors."""
    header, offset = {}, 0
    for name, shape in shapes(sizes, layers).items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size(shape)]}
        offset += size(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if values is None:
            file.truncate(8 + len(text) + offset)
        else:
            for shape in shapes(sizes, layers).values():
                file.write(values(size(shape)))
            file.flush()
            os.fsync(file.fileno())
    config = {"model_type": "emo", "vocab_size": sizes.vocabulary, "hidden_size": sizes.d_model,
              "intermediate_size": sizes.d_expert, "num_hidden_layers": layers, "num_attention_heads": sizes.heads,
              "num_key_value_heads": sizes.heads, "rms_norm_eps": 1e-6, "rope_theta": 500000.0,
              "max_position_embeddings": 4096, "eos_token_id": sizes.vocabulary - 1, "num_experts": sizes.experts,
              "num_shared_experts": 1, "num_experts_per_tok": sizes.top_k}
    (folder / "config.json").write_text(json.dumps(config))
    kept = [*range(sizes.first_kept, sizes.experts - 1, sizes.experts // sizes.keep)][:sizes.keep - 1]
    (folder / "subset.json").write_text(json.dumps({"experts_kept_per_layer": [[*kept, sizes.experts - 1]] * layers}))
    return offset


def extract(folder: pathlib.Path) -> None:
    """The model cut to its subset, in folder/cut."""
    result = subprocess.run([EMO, "experts", "extract", folder, folder / "subset.json", folder / "cut"], cwd=ROOT,
                            capture_output=True, text=True)
    if result.returncode != 0:
        raise BenchError(result.stderr.strip())


def read_options(about: str, layers: int, layers_are: str) -> argparse.Namespace:
    parser = Arguments(about.splitlines()[0])
    parser.add_argument("--layers", type=positive, default=layers, help=f"of the model (default {layers}{layers_are})")
    parser.add_argument("--folder", type=pathlib.Path, help="where to write (default: the temporary folder)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser.parse_args()


@contextlib.contextmanager
def temporary_folder(prefix: str, where: pathlib.Path | None) -> Iterator[pathlib.Path]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
