"""Write docs/protocols.md, the table of all benchmarks, from their classes and configs."""

import argparse

import checkout  # noqa: F401

from core.errors import cli


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    return argparse.ArgumentParser(description=__doc__)


def main() -> None:
    """Parse, then read every config with its own framework and write the page."""
    parser().parse_args()
    from transfer.suite import protocols  # here: --help must not wait

    protocols.write()
    print(protocols.PAGE)


if __name__ == "__main__":
    cli(main)
