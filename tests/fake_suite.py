"""A benchmark, a framework and its training script that end in milliseconds, for tests of suites and launchers."""

import os
import sys
import textwrap
from pathlib import Path

from transfer import frameworks

MODULES = ("transfer.frameworks.fake",)
TASK = {"fake_task": {"file": "rows.yaml"}}  # as a suite names it

PLUGINS = {
    "rows.yaml": """
        fake_task:
          {{title: Fake, framework: fake, config: protocol.yaml, train: a, test: b,
            metrics: [x/AP, x/AP50], headline: x/AP, trials: 2}}
    """,
    "frameworks/fake.py": """
        import sys
        from transfer.frameworks import Framework
        class Fake(Framework):
            target, suffix, varies = "fake", ".pth", ("devices",)
            def command(self, benchmark, weights, folder, seed, options=(), departure=None):
                return [sys.executable, "-S", "{script}", str(weights), str(folder), str(seed), *options]
            def bases(self, config):
                return []
    """,
    # a subprocess gets the plug-ins, and a converter and targets that need no torch
    "sitecustomize.py": """
        import sys, types, pathlib, hashlib
        import transfer.convert, transfer.frameworks
        home = pathlib.Path(__file__).parent
        transfer.frameworks.__path__.append(str(home / "frameworks"))
        class Proof:
            def to_dict(self):
                return {{"arch": "fake", "recipe": {{"pretrain": {{"method": "moco", "branches": ["mscn"]}}}}}}
        def convert(source, output, *, target, dialect, source_sha256):
            output.write_bytes(source.read_bytes())
            return Proof()
        for name, content in {{"convert": convert, "TARGETS": {{}}}}.items():
            made = types.ModuleType("transfer.convert." + name.lower())
            setattr(made, name, content)
            sys.modules[made.__name__] = made
            setattr(transfer.convert, name.lower(), made)
    """,
    "script.py": """
        import fcntl, json, os, pathlib, sys, time
        weights, folder, seed, *options = sys.argv[1:]
        folder = pathlib.Path(folder)
        alone = open(folder.parent / "alone", "w")
        try:
            fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            (folder.parent / "two_at_once").touch()
        with open("{calls}", "a") as calls:
            calls.write(pathlib.Path(weights).read_text() + " " + seed + "\\n")
        if "slow" in options:
            (folder / "last_checkpoint").write_text("started")
            time.sleep(60)
        for option in options:
            if option.startswith("lasts="):
                time.sleep(float(option[6:]))
            if option.startswith("until="):
                (folder / "last_checkpoint").write_text("started")
                while not os.path.exists(option[6:]):
                    time.sleep(0.02)
        if "bad" in pathlib.Path(weights).read_text():
            sys.exit("RuntimeError: the weights are bad")
        metrics = {{"x/AP": int(seed) / 1000 + len(pathlib.Path(weights).read_text()), "x/AP50": None}}
        made = {{"metrics": metrics, "seconds": 1.5, "device": "cpu"}}
        (folder / "evaluation.tmp").write_text(json.dumps(made))
        (folder / "evaluation.tmp").rename(folder / "evaluation.json")
    """,
}


def install(home: Path, monkeypatch) -> None:
    """Write the plug-ins below ``home``, make them known here and to subprocesses, and write three checkpoints."""
    (home / "protocol.yaml").write_text("steps: 1\n")
    places = {"script": home / "script.py", "calls": home / "calls.txt"}
    for name, text in PLUGINS.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(textwrap.dedent(text).format(**places))
    monkeypatch.setattr(frameworks, "__path__", [*frameworks.__path__, str(home / "frameworks")])
    monkeypatch.setenv("PYTHONPATH", str(home), prepend=os.pathsep)
    for module in MODULES:
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.chdir(home)
    for name in ("good", "bad", "other"):
        (home / f"{name}.pth").write_text(name)


def forget() -> None:
    """Let the next test import plug-ins of its own."""
    for module in MODULES:
        sys.modules.pop(module, None)
