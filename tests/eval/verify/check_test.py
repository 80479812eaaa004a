"""emo check says where the router's choices were ties within rounding."""
import json
import pathlib
import shutil
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import ROOT, Program, check  # noqa: E402

GOLDEN = ROOT / "tests/golden"


def make_twins(path: pathlib.Path, name: str) -> None:
    """In the tensor [E, D] called `name` every second row becomes the one before it."""
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    record = json.loads(data[8:8 + length])[name]
    first = 8 + length + record["data_offsets"][0]
    row = 4 * record["shape"][1]
    for expert in range(0, record["shape"][0] - 1, 2):
        begin = first + expert * row
        data[begin + row:begin + 2 * row] = data[begin:begin + row]
    path.write_bytes(data)


def main() -> None:
    with Program(sys.argv[1]) as emo:
        for golden in sorted(path.parent for path in GOLDEN.glob("*/golden.json")):
            report = emo.json("check", golden)
            passes = [gap["pass"] for gap in report["routing_gaps"]]
            check(passes[0] == "first batch" and "step 1" in passes[1:], f"{golden}: {passes}")
            for gap in report["routing_gaps"]:
                check(not gap["tie"], f"{golden}: a golden folder with a tie: {gap}")
            check("tie " not in emo.run("check", golden).stdout, f"{golden}: a tie is printed")
        folder = emo.folder / "twins"
        shutil.copytree(GOLDEN / "emo_a", folder)
        make_twins(folder / "model.safetensors", "model.layers.1.mlp.gate.weight")
        for arguments, ranks in [((), 0), (("--ep", "2"), 2)]:
            report = emo.run("check", folder, *arguments, ranks=ranks, expect=1).stdout
            check("tie  first batch: experts are chosen at a gap of 0.0e+00" in report, report)
            check("no routing to replay" in report, report)
    print("emo check names ties")


if __name__ == "__main__":
    main()
