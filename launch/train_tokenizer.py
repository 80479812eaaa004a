"""Trains the quick start's tokenizer: byte-level BPE in the file format of Hugging Face.

Usage: train_tokenizer.py DOCUMENTS.jsonl VOCABULARY_SIZE TOKENIZER.json
Example: build/python/bin/python launch/train_tokenizer.py documents.jsonl 4096 tokenizer.json
"""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from launch.arguments import Arguments  # noqa: E402


def texts(path: str):
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def main() -> None:
    parser = Arguments(__doc__)
    parser.add_argument("documents", help="JSON lines with a field \"text\"")
    parser.add_argument("vocabulary_size", type=int)
    parser.add_argument("output", help="tokenizer.json to write")
    options = parser.parse_args()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # --help does without
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts(options.documents), trainers.BpeTrainer(
        vocab_size=options.vocabulary_size, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.save(options.output)


if __name__ == "__main__":
    main()
