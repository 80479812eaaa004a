"""Every script answers --help at once and does nothing, wrong arguments end with 64; the build's one line."""
import functools
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.program import ROOT, check, run_cases  # noqa: E402

MAIN = 'if __name__ == "__main__":'


@functools.cache
def scripts() -> list[pathlib.PurePath]:
    """All that is run by name. The rest of launch/ are modules."""
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "launch", "tests/bench",
                             "data", "tests/golden"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    found = [name for name in listed if (ROOT / name).exists() and (name.endswith(".sh") or (
        name.endswith(".py") and not name.startswith("tests/bench") and "\n" + MAIN in (ROOT / name).read_text()))]
    check(len(found) > 20 and "launch/texts.py" in found and "launch/quickstart.sh" in found, f"scripts: {found}")
    return [pathlib.PurePath(name) for name in found]


class Sandbox:
    """A copy of the scripts alone and an empty folder to call them from, which is also the home: whatever a script
    writes, links or removes shows."""

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="emo-scripts-"))
        for name in scripts():
            (self.folder / "tree" / name.parent).mkdir(parents=True, exist_ok=True)
        for part in ("launch", "tests/bench"):
            for path in (ROOT / part).rglob("*"):
                if path.suffix in (".py", ".sh", ".txt") and path.is_file():
                    copy = self.folder / "tree" / path.relative_to(ROOT)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, copy)
        for name in scripts():
            shutil.copy2(ROOT / name, self.folder / "tree" / name)
        (self.folder / "here").mkdir()
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def files(self) -> dict[str, tuple[int, int]]:
        return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in self.folder.rglob("*")}

    def call(self, script: pathlib.PurePath, *arguments: str) -> subprocess.CompletedProcess:
        path = self.folder / "tree" / script
        interpreter = ["bash"] if script.suffix == ".sh" else [sys.executable]
        here = str(self.folder / "here")
        environment = dict(os.environ, HOME=here, XDG_CACHE_HOME=here, TMPDIR=here, PYTHONDONTWRITEBYTECODE="1")
        before = self.files()
        result = subprocess.run([*interpreter, str(path), *arguments], cwd=here, env=environment, capture_output=True,
                                text=True, timeout=5, stdin=subprocess.DEVNULL)
        changed = set(self.files().items()) ^ set(before.items())
        check(not changed, f"{script} {' '.join(arguments)} wrote {sorted(changed)}")
        return result


def test_help_says_how_with_an_example_and_does_nothing():
    wrong = []
    with Sandbox() as sandbox:
        for script in scripts():
            for asked in ("--help", "-h"):
                try:
                    result = sandbox.call(script, asked)
                    check(result.returncode == 0, f"{script} {asked}: exit code {result.returncode}: {result.stderr[-500:]}")
                    check(re.search("usage: ", result.stdout, re.I), f"{script} {asked}: no usage in {result.stdout!r}")
                    check(result.stderr == "", f"{script} {asked}: {result.stderr}")
                    if script.parts[0] == "launch" or script.suffix == ".sh":
                        check("Example:" in result.stdout, f"{script} {asked}: no example in {result.stdout!r}")
                except (AssertionError, subprocess.TimeoutExpired) as error:
                    wrong.append(str(error))
    check(not wrong, "\n".join(wrong))


def test_wrong_arguments_end_with_64_and_a_message():
    wrong = []
    with Sandbox() as sandbox:
        for script in scripts():
            if script.parts[0] != "launch" and script.suffix != ".sh":
                continue
            try:
                result = sandbox.call(script, "--no-such-option")
                check(result.returncode == 64, f"{script}: exit code {result.returncode}: {result.stderr[-500:]}")
                check(result.stderr and not result.stdout, f"{script}: {result.stdout!r} {result.stderr!r}")
            except (AssertionError, subprocess.TimeoutExpired) as error:
                wrong.append(str(error))
    check(not wrong, "\n".join(wrong))


def test_arguments_that_only_seem_right_end_with_64():
    with Sandbox() as sandbox:
        for script, *arguments in [("launch/experiment.sh", "retention", "--no-such-option"),
                                   ("launch/experiment.sh", "retentoin"), ("launch/experiment.sh",),
                                   ("launch/mpirun.sh", "two", "true"), ("launch/mpirun.sh", "2"),
                                   ("launch/build.sh", "release", "--no-such-option"), ("launch/test.sh", "--quick", "--all"),
                                   ("launch/texts.py",), ("launch/texts.py", "out", "no-such-set"),
                                   ("launch/train_tokenizer.py", "in", "many", "out"), ("launch/tidy.sh",),
                                   ("tests/bench/prepare.sh", "plain", "no-such-script.py")]:
            result = sandbox.call(pathlib.PurePath(script), *arguments)
            check(result.returncode == 64 and result.stderr, f"{script} {arguments}: {result.returncode} {result.stderr}")
        shown = sandbox.call(pathlib.PurePath("launch/experiment.sh"), "retention", "--help")
        check(shown.returncode == 0 and "--tuned-domains" in shown.stdout, f"{shown.returncode} {shown.stdout}")


BUILD = """
rule say
  command = $say
build a: say
  say = echo "a remark, as a compiler makes it"
build b: say a
  say = true
build c: say b
  say = {last}
"""


def build_in(folder: pathlib.Path, last: str) -> list[str]:
    (folder / "build.ninja").write_text(BUILD.format(last=last))
    return [str(ROOT / "launch/build_progress.sh"), "ninja", "-C", str(folder)]


def test_the_build_shows_remarks_and_errors_in_full_and_keeps_the_exit_code():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        good = subprocess.run(build_in(folder, "true"), capture_output=True, text=True, timeout=60)
        check(good.returncode == 0, good.stderr)
        check("a remark, as a compiler makes it" in good.stderr and "@step" not in good.stderr, good.stderr)
        check("[1/3]" not in good.stderr, "Ninja's own lines")
        bad = subprocess.run(build_in(folder, 'echo "c.cc:1:2: error: one"; echo "  another line"; exit 3'),
                             capture_output=True, text=True, timeout=60)
        check(bad.returncode == subprocess.run(["ninja", "-C", name], capture_output=True).returncode != 0, f"{bad}")
        check("c.cc:1:2: error: one\n  another line\n" in bad.stderr and "FAILED: c" in bad.stderr, bad.stderr)


def test_lines_that_are_no_terminals_come_every_20_seconds_with_the_time_left():
    """25 steps of a pretended build of 50 seconds; the clock is the shell's own variable."""
    script = (ROOT / "launch/build_progress.sh").read_text()
    reader = script[script.index("every="):script.rindex("NINJA_STATUS=")]
    reading = 'while IFS= read -r line || [ -n "$line" ]; do'
    check(reading in reader, reader)
    reader = reader.replace(reading, 'for i in $(seq 25); do SECONDS=$((2 * i)); line="@step $i 25 Building x"')
    result = subprocess.run(["bash", "-c", f"set -euo pipefail\n{reader}\nshow_progress"], capture_output=True, text=True,
                            timeout=20)
    check(result.stderr.splitlines() == ["[build  20s]  40 %, 10 of 25 steps, about 30 s left",
                                                  "[build  40s]  80 %, 20 of 25 steps, about 10 s left"], result.stderr)


def test_a_terminal_has_one_line_that_is_rewritten():
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(build_in(pathlib.Path(name), "true"), stdout=theirs, stderr=theirs, stdin=theirs)
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:  # the other side is closed
            pass
        check(process.wait(timeout=60) == 0, f"{shown!r}")
        for step in (1, 2, 3):
            line = rf"\r\[build +\d+s\] +{100 * step // 3} %, {step} of 3 steps[^\r\n]*\x1b\[K\r"
            check(re.search(line.encode(), shown + b"\r"), f"{shown!r}")
        check(shown.count(b"\n") == 2, f"the remark's line, and Ninja's about the folder: {shown!r}")


if __name__ == "__main__":
    run_cases(globals())
