"""The arguments of the Python scripts here: --help shows the script's own text, with its usage and an example;
wrong ones end with 64, as those of `emo`."""
import argparse
import sys
import typing


class Arguments(argparse.ArgumentParser):
    def __init__(self, about: str, **options):
        super().__init__(description=about, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> typing.NoReturn:
        self.print_usage(sys.stderr)
        self.exit(64, f"{self.prog}: {message}\n")
