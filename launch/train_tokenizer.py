"""Trains the quick start's tokenizer: byte-level BPE in the file format of Hugging Face.

Usage: train_tokenizer.py DOCUMENTS.jsonl VOCABULARY_SIZE TOKENIZER.json
"""
import json
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def texts(path: str):
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def main() -> None:
    documents, size, output = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts(documents), trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.save(output)


if __name__ == "__main__":
    main()
