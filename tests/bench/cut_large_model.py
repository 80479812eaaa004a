"""Cutting a model folder of the released model's shape. Called by cut_large_model.sh."""
import json
import mmap
import os
import pathlib
import resource
import shutil
import time

from interleave import main, table
from written_model import Sizes, extract, read_options, temporary_folder, write_model

RELEASED = Sizes(d_model=2048, d_expert=1024, vocabulary=100352, heads=16, keep=32, first_kept=0)  # emo-facts 7.1


def cut(folder: pathlib.Path) -> dict:
    begin = time.monotonic()
    extract(folder)
    written = sum(f.stat().st_size for f in (folder / "cut").iterdir())
    return {"seconds": time.monotonic() - begin, "bytes_written": written,
            "resident_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}


def plain_write(path: pathlib.Path, count: int, past_cache: bool) -> float | None:
    """Bytes a second of a file of at least as many zeros, synced: the disk's rate. None where the folder has no
    way past the cache."""
    block = mmap.mmap(-1, 16 << 20)  # O_DIRECT wants its alignment
    begin = time.monotonic()
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | (os.O_DIRECT if past_cache else 0))
    except OSError:
        return None
    written = 0
    while written < count:
        written += os.write(file, block)
    os.fsync(file)
    os.close(file)
    rate = written / (time.monotonic() - begin)
    path.unlink()
    return rate


def body() -> None:
    options = read_options(__doc__, 16, ", the released one's")
    with temporary_folder("emo-cut-", options.folder) as folder:
        result = {"model_bytes": write_model(folder, RELEASED, options.layers), **cut(folder)}
        shutil.rmtree(folder / "cut")
        for name, past_cache in (("plain_write", False), ("plain_write_past_cache", True)):
            result[f"{name}_bytes_per_second"] = plain_write(folder / "plain", result["bytes_written"], past_cache)
    if options.json:
        print(json.dumps(result))
        return
    gb = 1e9
    past = result["plain_write_past_cache_bytes_per_second"]
    print(table(["model, GB", "cut model, GB", "seconds", "GB/s written", "plain write of as much, GB/s", "past the cache",
                 "resident, GB"],
                [[f"{result['model_bytes'] / gb:.1f}", f"{result['bytes_written'] / gb:.2f}", f"{result['seconds']:.1f}",
                  f"{result['bytes_written'] / gb / result['seconds']:.2f}",
                  f"{result['plain_write_bytes_per_second'] / gb:.2f}", f"{past / gb:.2f}" if past else "-",
                  f"{result['resident_bytes'] / gb:.2f}"]]))


if __name__ == "__main__":
    main(body)
