"""What reading a model costs: all of it, the experts of a subset, and the model cut to them. Called by load_subset.sh."""
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

import numpy
import safetensors.numpy

from interleave import EMO, ROOT, BenchError, main, positive, table

D, F, V, EXPERTS, TOP_K, HEADS = 1024, 512, 4096, 128, 8, 16
KEEP = EXPERTS // 8


def shapes(layers: int) -> dict[str, list[int]]:
    tensors = {"model.embed_tokens.weight": [V, D], "model.norm.weight": [D], "lm_head.weight": [V, D]}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        tensors |= {f"{prefix}self_attn.{kind}_proj.weight": [D, D] for kind in "qkvo"}
        tensors |= {f"{prefix}{norm}.weight": [D] for norm in ("pre_attention_layernorm", "pre_feedforward_layernorm")}
        tensors[f"{prefix}mlp.gate.weight"] = [EXPERTS, D]
        for e in range(EXPERTS):
            tensors |= {f"{prefix}mlp.experts.{e}.{name}_proj.weight": [F, D] for name in ("gate", "up")}
            tensors[f"{prefix}mlp.experts.{e}.down_proj.weight"] = [D, F]
    return tensors


def write_model(folder: pathlib.Path, layers: int) -> int:
    """One bf16 file of random numbers, on the disk for real. Answers its bytes."""
    sizes = {name: 2 * int(numpy.prod(shape)) for name, shape in shapes(layers).items()}
    header, offset = {}, 0
    for name, shape in shapes(layers).items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + sizes[name]]}
        offset += sizes[name]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    draw = numpy.random.default_rng(1)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for size in sizes.values():
            values = (draw.standard_normal(size // 2, dtype=numpy.float32) * 0.02).view(numpy.uint32) >> 16
            file.write(values.astype(numpy.uint16).tobytes())
        os.fsync(file.fileno())
    config = {"model_type": "emo", "vocab_size": V, "hidden_size": D, "intermediate_size": F, "num_hidden_layers": layers,
              "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "rms_norm_eps": 1e-6, "rope_theta": 500000.0,
              "max_position_embeddings": 512, "eos_token_id": 0, "num_experts": EXPERTS, "num_shared_experts": 1,
              "num_experts_per_tok": TOP_K}
    (folder / "config.json").write_text(json.dumps(config))
    kept = [*range(3, EXPERTS - 1, EXPERTS // KEEP)][:KEEP - 1] + [EXPERTS - 1]
    (folder / "subset.json").write_text(json.dumps({"experts_kept_per_layer": [kept] * layers}))
    safetensors.numpy.save_file({"input_ids": numpy.arange(8, dtype=numpy.int64)[None]}, folder / "tokens.safetensors")
    return offset


def forget(folder: pathlib.Path) -> None:
    """Takes the folder's files out of the page cache, so that what is read next comes from the disk."""
    for path in folder.rglob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(folder: pathlib.Path, model: pathlib.Path, *options) -> dict:
    """Logits of eight tokens, from a cold cache: that is opening the model, and little more."""
    forget(folder)
    command = [EMO, "logits", model, "--tokens", folder / "tokens.safetensors", "--output", folder / "logits.safetensors",
               "--overwrite", *options]
    begin = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise BenchError(process.stderr.read().decode().strip())
    logits = safetensors.numpy.load_file(folder / "logits.safetensors")["logits"]
    return {"seconds": time.monotonic() - begin, "read_bytes": usage.ru_inblock * 512,
            "resident_bytes": usage.ru_maxrss * 1024, "logits": logits}


def body() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=positive, default=5, help="of the model (default 5: 2 GB)")
    parser.add_argument("--folder", type=pathlib.Path, help="where to write (default: the temporary folder)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="emo-load-", dir=options.folder))
    try:
        model_bytes = write_model(folder, options.layers)
        extract = subprocess.run([EMO, "experts", "extract", folder, folder / "subset.json", folder / "cut"], cwd=ROOT,
                                 capture_output=True, text=True)
        if extract.returncode != 0:
            raise BenchError(extract.stderr.strip())
        os.sync()
        cut_bytes = sum(path.stat().st_size for path in (folder / "cut").glob("*.safetensors"))
        measure(folder, folder / "cut")  # the program and its libraries into the cache
        results = {"all experts": measure(folder, folder),
                   f"{KEEP} of {EXPERTS} experts": measure(folder, folder, "--experts", folder / "subset.json"),
                   "the cut model": measure(folder, folder / "cut")}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    view, cut = (result.pop("logits") for result in list(results.values())[1:])
    results["all experts"].pop("logits")
    if not numpy.array_equal(view, cut):
        raise BenchError("the subset's logits are not those of the cut model")
    if options.json:
        print(json.dumps({"model_bytes": model_bytes, "cut_bytes": cut_bytes, "results": results}))
        return
    print(f"model {model_bytes / 1e9:.2f} GB, cut {cut_bytes / 1e9:.2f} GB, bf16; cold page cache; the logits of the last two "
          "are equal\n")
    print(table(["", "read, GB", "seconds", "resident, GB"],
                [[name, f"{r['read_bytes'] / 1e9:.2f}", f"{r['seconds']:.2f}", f"{r['resident_bytes'] / 1e9:.2f}"]
                 for name, r in results.items()]))


if __name__ == "__main__":
    main(body)
