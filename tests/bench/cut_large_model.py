"""Cutting a model folder of the released model's shape. Called by cut_large_model.sh."""
import argparse
import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import tempfile
import time

from interleave import EMO, ROOT, BenchError, main, positive, table

D, F, V, EXPERTS, SHARED, TOP_K, HEADS = 2048, 1024, 100352, 128, 1, 8, 16  # emo-facts 7.1
KEEP = 32


def shapes(layers: int) -> dict[str, list[int]]:
    tensors = {"model.embed_tokens.weight": [V, D], "model.norm.weight": [D], "lm_head.weight": [V, D]}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for kind in "qkvo":
            tensors[f"{prefix}self_attn.{kind}_proj.weight"] = [D, D]
        for norm in ("pre_attention_layernorm", "pre_feedforward_layernorm"):
            tensors[f"{prefix}{norm}.weight"] = [D]
        tensors[f"{prefix}mlp.gate.weight"] = [EXPERTS, D]
        for e in range(EXPERTS):
            tensors[f"{prefix}mlp.experts.{e}.gate_proj.weight"] = [F, D]
            tensors[f"{prefix}mlp.experts.{e}.up_proj.weight"] = [F, D]
            tensors[f"{prefix}mlp.experts.{e}.down_proj.weight"] = [D, F]
    return tensors


def size(shape: list[int]) -> int:
    bytes_ = 2
    for extent in shape:
        bytes_ *= extent
    return bytes_


def write_sparse(folder: pathlib.Path, layers: int) -> int:
    """One file for all tensors, a header and nothing but holes. Answers its bytes of tensors."""
    header, offset = {}, 0
    for name, shape in shapes(layers).items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size(shape)]}
        offset += size(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    config = {"model_type": "emo", "vocab_size": V, "hidden_size": D, "intermediate_size": F,
              "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
              "rms_norm_eps": 1e-6, "rope_theta": 500000.0, "max_position_embeddings": 4096, "eos_token_id": 100257,
              "num_experts": EXPERTS, "num_shared_experts": SHARED, "num_experts_per_tok": TOP_K}
    (folder / "config.json").write_text(json.dumps(config))
    kept = [*range(0, EXPERTS - SHARED, 4)][:KEEP - SHARED] + [EXPERTS - 1]
    (folder / "subset.json").write_text(json.dumps({"experts_kept_per_layer": [kept] * layers}))
    return offset


def cut(folder: pathlib.Path) -> dict:
    begin = time.monotonic()
    result = subprocess.run([EMO, "experts", "extract", folder, folder / "subset.json", folder / "cut"], cwd=ROOT,
                            capture_output=True, text=True)
    if result.returncode != 0:
        raise BenchError(result.stderr.strip())
    written = sum(f.stat().st_size for f in (folder / "cut").iterdir())
    return {"seconds": time.monotonic() - begin, "bytes_written": written,
            "resident_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}


def plain_copy(folder: pathlib.Path, count: int) -> float:
    """Seconds to write as many zeros and sync them: the disk's rate."""
    begin = time.monotonic()
    block = bytes(1 << 24)
    with open(folder / "plain", "wb") as file:
        for _ in range(count >> 24):
            file.write(block)
        os.fsync(file.fileno())
    (folder / "plain").unlink()
    return time.monotonic() - begin


def body() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=positive, default=16, help="of the model (default 16, the released one's)")
    parser.add_argument("--folder", type=pathlib.Path, help="where to write (default: the temporary folder)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="emo-cut-", dir=options.folder))
    try:
        model_bytes = write_sparse(folder, options.layers)
        result = {"model_bytes": model_bytes, **cut(folder)}
        shutil.rmtree(folder / "cut")
        result["plain_write_seconds"] = plain_copy(folder, result["bytes_written"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps(result))
        return
    gb = 1e9
    print(table(["model, GB", "cut model, GB", "seconds", "GB/s written", "plain write of as much, GB/s", "resident, GB"],
                [[f"{result['model_bytes'] / gb:.1f}", f"{result['bytes_written'] / gb:.2f}", f"{result['seconds']:.1f}",
                  f"{result['bytes_written'] / gb / result['seconds']:.2f}",
                  f"{result['bytes_written'] / gb / result['plain_write_seconds']:.2f}",
                  f"{result['resident_bytes'] / gb:.2f}"]]))


if __name__ == "__main__":
    main(body)
