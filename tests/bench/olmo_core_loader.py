"""How fast OLMo-core's loader gives rows of one file of uint32 ids: olmo_core_loader.py FILE FOLDER WORKERS.
FOLDER takes its order. Prints {"version", and million tokens/s of three ways to ask for the same batches of 64 rows of
4096}; each is timed over 8192 rows after the first 9 batches."""
import importlib.metadata
import json
import os
import pathlib
import sys
import time

import torch
from olmo_core.data import NumpyDataLoaderConfig, NumpyFSLDatasetConfig, TokenizerConfig
from olmo_core.data.types import NumpyDatasetDType

try:
    from olmo_core.data.numpy_dataset import InstanceFilterConfig
except ImportError:
    from olmo_core.data.utils import InstanceFilterConfig

S = 4096
BATCH = 64
ROWS = 8192
WARM = 8


def tokens_per_second(file: str, folder: pathlib.Path, workers: int, **options) -> float:
    tokenizer = TokenizerConfig(vocab_size=100278, eos_token_id=100257, pad_token_id=100277)
    dataset = NumpyFSLDatasetConfig(tokenizer=tokenizer, paths=[file], sequence_length=S, max_target_sequence_length=8192,
                                    dtype=NumpyDatasetDType.uint32, work_dir=str(folder), include_instance_metadata=False,
                                    **options).build()
    dataset.prepare()
    loader = NumpyDataLoaderConfig(global_batch_size=BATCH * S, seed=0, num_workers=workers, work_dir=str(folder)).build(
        dataset, dp_process_group=None)
    loader.reshuffle(epoch=1)
    count = begin = 0
    for number, batch in enumerate(loader):
        assert batch["input_ids"].shape == (BATCH, S)
        count += batch["input_ids"].numel()
        if number == WARM:  # workers run, and the file is in memory
            count, begin = 0, time.perf_counter()
        if count >= ROWS * S:
            break
    speed = count / (time.perf_counter() - begin)
    loader.reset()
    return speed


def main() -> None:
    file, folder, workers = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    filtered = InstanceFilterConfig(repetition_max_period=13, repetition_min_period=1, repetition_max_count=32)
    print(json.dumps({
        "version": importlib.metadata.version("ai2-olmo-core"),
        "rows": tokens_per_second(file, folder / "a", workers),
        "spans": tokens_per_second(file, folder / "b", workers, generate_doc_lengths=True),
        "filter": tokens_per_second(file, folder / "c", workers, generate_doc_lengths=True, instance_filter_config=filtered)}),
          flush=True)
    os._exit(0)  # worker processes that were left in the middle of an epoch sometimes abort what waits for them


if __name__ == "__main__":
    main()
