"""Cutting a model folder of the released model's shape. Called by cut_large_model.sh."""
import json
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


def plain_copy(folder: pathlib.Path, count: int) -> float:
    """Seconds to write as many zeros and sync them: the disk's rate."""
    begin = time.monotonic()
    block = bytes(1 << 20)
    with open(folder / "plain", "wb") as file:
        for _ in range(count >> 20):
            file.write(block)
        os.fsync(file.fileno())
    seconds = time.monotonic() - begin
    (folder / "plain").unlink()
    return seconds


def body() -> None:
    options = read_options(__doc__, 16, ", the released one's")
    with temporary_folder("emo-cut-", options.folder) as folder:
        model_bytes = write_model(folder, RELEASED, options.layers)
        result = {"model_bytes": model_bytes, **cut(folder)}
        shutil.rmtree(folder / "cut")
        result["plain_write_seconds"] = plain_copy(folder, result["bytes_written"])
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
