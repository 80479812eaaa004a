"""No function of model/host/simd.h has all its loops over exponentials, or over largest values, in scalar
instructions, in any version: a compiler that leaves them so says nothing, gives the same results and takes four times as
long.

Usage: vectorised_loops_test.py EMO        an x86-64 program compiled with -O3
"""
import collections
import platform
import re
import subprocess
import sys
import pathlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.program import check, run_cases  # noqa: E402

# fast_exp rounds to an integer: one lane at a time, and many. The same of largest values.
SCALAR_AND_VECTOR = {"conversion": ("cvttss2si", "cvttps2dq"), "maximum": ("maxss", "maxps")}
FEWEST = {"conversion": 5, "maximum": 2}  # loops that have such instructions, in each version


def versions(executable: str) -> dict[str, set[str]]:
    """Names of instructions by function, of the versions that simd.h compiles."""
    code = subprocess.run(["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", executable], check=True,
                          capture_output=True, text=True).stdout
    found, name = collections.defaultdict(set), None
    for line in code.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            name = head[1] if re.search(r"emo::run_(portably|with_avx2|with_avx512)<", head[1]) else None
        elif name and (instruction := re.match(r"\s+[0-9a-f]+:\s+(\w+)", line)):
            found[name].add(instruction[1].removeprefix("v"))
    return found


def test_no_loop_is_left_scalar(emo):
    if platform.machine() != "x86_64":
        return
    functions = versions(emo.executable)
    for what, (scalar, vector) in SCALAR_AND_VECTOR.items():
        left = [name for name, instructions in functions.items() if scalar in instructions and vector not in instructions
                and not (what == "maximum" and "run_portably<" in name)]  # SSE2 has no blend for those of a part
        check(not left, f"{what} one by one:\n" + "\n".join(left))
        for version in ("portably", "with_avx2", "with_avx512"):
            having = [name for name, instructions in functions.items() if f"run_{version}<" in name and vector in instructions]
            check(len(having) >= FEWEST[what], f"{what}: {len(having)} loops of run_{version}")


if __name__ == "__main__":
    run_cases(globals())
