"""Writes inputs for fuzzers to begin with, those that are right: first_inputs.py FOLDER."""
import hashlib
import io
import json
import pathlib
import struct
import sys

import numpy


def npy_inputs() -> list[bytes]:
    inputs = []
    for number, kind in enumerate(("u1", "<u2", "<u4", "<i8")):
        file = io.BytesIO()
        numpy.save(file, numpy.arange(7).astype(kind))
        inputs += [bytes([number]) + file.getvalue(), bytes([number]) + numpy.arange(7).astype(kind).tobytes()]
    return inputs


def index_inputs() -> list[bytes]:
    ends = b"emoends1" + struct.pack("<qq", 96, 1) + struct.pack("<5Q", 10, 11, 40, 95, 96) + b"0" * 128
    records = b"".join(struct.pack("<QQII", end, 3, 0, 0) for end in (10, 11, 40, 95, 96))
    return [bytes([at, 96, 0]) + content for at in (0, 100) for content in (ends, records)]


def mix_inputs() -> list[bytes]:
    return [b"\0web,web/{TOKENIZER}/a.npy\n# nothing\ncode,code.npy # more\n",
            b"\0- label: web\n  paths: web/*.npy\n  weight: 3\n- {label: rest, paths: [a.npy, '{TOKENIZER}'], weight: 1.5, "
            b"max_epochs: 2}\n",
            b"\1- {label: a, paths: b, tokens: 1_000}\n- &x {label: *y, paths: *x}\n"]


def dataset_inputs() -> list[bytes]:
    dataset = {"format": "emo-tokens-1", "dtype": "uint16", "vocab_size": 300, "eos_id": 0, "tokenizer_identity": "",
               "tokenizer_sha256": "", "tokens": 5, "documents": 2, "sources": ["web"],
               "shards": [{"name": "tokens-00000", "tokens": 5, "documents": 2, "sha256": ""}]}
    record = {"fingerprint": "v3:1", "files": [{"name": "a.npy", "tokens": 5, "sample": "0123456789abcdef"}],
              "sources": [{"label": "web", "sequences": 4, "epochs": 0.5}]}
    return [json.dumps(dataset).encode(), json.dumps(record).encode()]


def main() -> None:
    for parser, inputs in (("npy", npy_inputs()), ("index", index_inputs()), ("mix", mix_inputs()),
                           ("dataset", dataset_inputs())):
        folder = pathlib.Path(sys.argv[1]) / parser
        folder.mkdir(parents=True, exist_ok=True)
        for content in inputs:
            (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


if __name__ == "__main__":
    main()
