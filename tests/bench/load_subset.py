"""What reading a model costs: all of it, the experts of a subset, and the model cut to them. Called by load_subset.sh."""
import json
import os
import pathlib
import subprocess
import time

import numpy
import safetensors.numpy

from interleave import EMO, ROOT, BenchError, main, table
from written_model import Sizes, extract, read_options, temporary_folder, write_model

SIZES = Sizes(d_model=1024, d_expert=512, vocabulary=4096, heads=16, keep=16, first_kept=3)
DRAW = numpy.random.default_rng(1)


def random_bf16(count: int) -> bytes:
    """So many bytes, on the disk for real."""
    values = (DRAW.standard_normal(count // 2, dtype=numpy.float32) * 0.02).view(numpy.uint32) >> 16
    return values.astype(numpy.uint16).tobytes()


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
    seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise BenchError(process.stderr.read().decode().strip())
    return {"seconds": seconds, "read_bytes": usage.ru_inblock * 512, "resident_bytes": usage.ru_maxrss * 1024,
            "logits": safetensors.numpy.load_file(folder / "logits.safetensors")["logits"]}


def body() -> None:
    options = read_options(__doc__, 5, ": 2 GB")
    with temporary_folder("emo-load-", options.folder) as folder:
        model_bytes = write_model(folder, SIZES, options.layers, random_bf16)
        safetensors.numpy.save_file({"input_ids": numpy.arange(8, dtype=numpy.int64)[None]}, folder / "tokens.safetensors")
        extract(folder)
        os.sync()
        cut_bytes = sum(path.stat().st_size for path in (folder / "cut").glob("*.safetensors"))
        measure(folder, folder / "cut")  # the program and its libraries into the cache
        results = {"all experts": measure(folder, folder),
                   f"{SIZES.keep} of {SIZES.experts} experts": measure(folder, folder, "--experts", folder / "subset.json"),
                   "the cut model": measure(folder, folder / "cut")}
    _, view, cut = (result.pop("logits") for result in results.values())
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
