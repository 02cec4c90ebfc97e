"""``masktransfer SUBCOMMAND`` is the script of that name, ``tools/run_suite.py`` for ``run-suite``: the same parser and code."""

import argparse
import os
import runpy
import sys
from pathlib import Path

from core.errors import cli

ROOT = Path(__file__).resolve().parent.parent
SHELLS = ("bash", "zsh", "fish")


def scripts() -> dict[str, Path]:
    """Return each subcommand with its script."""
    found = {
        path.stem.replace("_", "-"): path for path in sorted((ROOT / "tools").glob("*.py")) if path.stem != "checkout"
    }
    return {"pretrain": ROOT / "pretrain" / "run.py", **found}


def parser(wanted: str = "") -> argparse.ArgumentParser:
    """Describe the subcommands; with ``wanted``, also what that one takes."""
    whole = argparse.ArgumentParser("masktransfer", description=__doc__)
    commands = whole.add_subparsers(dest="command", metavar="SUBCOMMAND")
    for name, path in scripts().items():
        about = path.read_text().split('"""')[1].splitlines()[0]
        parents = [_run(path, "")["parser"]()] if name == wanted else []
        commands.add_parser(name, help=about, parents=parents, add_help=not parents)
    told = 'print what completes subcommands and options: eval "$(masktransfer completion bash)", or zsh, fish'
    commands.add_parser("completion", help=told).add_argument("shell", choices=SHELLS)
    return whole


def _run(path: Path, name: str) -> dict:
    sys.path.insert(0, str(path.parent))
    return runpy.run_path(str(path), run_name=name)


def main() -> None:
    """Run the script of the subcommand with the rest of the command line."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        words = os.environ.get("COMP_LINE", "").split()
        argcomplete.autocomplete(parser(words[1] if len(words) > 1 else ""))
    found = scripts()
    if len(sys.argv) > 1 and sys.argv[1] in found:
        name = sys.argv.pop(1)
        sys.argv[0] = f"masktransfer {name}"  # what usage lines and results name
        cli(_run(found[name], name)["main"])
    given = parser().parse_args()
    if given.command == "completion":
        import argcomplete

        print(argcomplete.shellcode(["masktransfer"], shell=given.shell))
    else:
        parser().print_help()


if __name__ == "__main__":
    main()
