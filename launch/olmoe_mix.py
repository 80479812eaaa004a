#!/usr/bin/env python3
"""Prints the mix of the 1T-token run, OLMoE-mix-0824, as `data.mix` takes it: 1,122 lines "label,path" in the order
that decides the order of its chunks. configs/mixes/OLMoE-mix-0824.txt is its output.

Source of labels, folders and numbers of files: src/olmo_core/data/mixes/OLMoE-mix-0824.txt of OLMo-core.

Usage: olmoe_mix.py
Example: launch/olmoe_mix.py > OLMoE-mix-0824.txt
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from launch.arguments import Arguments  # noqa: E402

# label, folder, names of the files without part- and .npy
SOURCES = [
    ("proofpile-2-stack", "proof-pile-2/v0_decontaminated/algebraic-stack/train", [f"{i:02}-00000" for i in range(16)]),
    ("proofpile-2-arxiv", "proof-pile-2/v0_decontaminated/arxiv/train", [f"{i:02}-00000" for i in range(20)]),
    ("proofpile-2-open-web-math", "proof-pile-2/v0_decontaminated/open-web-math/train", [f"{i:02}-00000" for i in range(13)]),
    ("pes2o", "pes2o", [f"{i:02}-00000" for i in range(26)]),
    ("starcoder", "starcoder/v1-decon-100_to_20k-2star-top_token_030", [f"{i:03}-00000" for i in range(100)]),
    # The five of part 104 stand twice there, each behind itself, and were trained on twice.
    ("dclm", "dclm/text_openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train",
     [f"{i:03}-{j:05}" for i in range(188) for j in range(5) for _ in range(2 if i == 104 else 1)]),
    ("wikipedia", "olmo-mix/danyh-compiled-v1_7/documents/wiki", [f"{i}-00000" for i in range(2)]),
]


def main() -> None:
    Arguments(__doc__).parse_args()
    print("# The mix of the 1T-token run (OLMoE-mix-0824 of OLMo-core), in its order; made by launch/olmoe_mix.py.\n"
          "# data.root is where `preprocessed` lies, data.tokenizer_name is allenai/dolma2-tokenizer.")
    for label, folder, parts in SOURCES:
        for part in parts:
            print(f"{label},preprocessed/{folder}/{{TOKENIZER}}/part-{part}.npy")


if __name__ == "__main__":
    main()
