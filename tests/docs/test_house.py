"""The house keeps its measures (docs/architecture.md); `python tests/docs/test_house.py` prints them."""

import subprocess
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[2]
# Drawn for 360 files and 38,500 lines; what was built into it since has its own (docs/architecture.md).
LIMITS = {
    "rooms directly in transfer/": 7, "floors of rooms in transfer/ (longest chain of imports)": 3,
    "Python files in transfer/": 100, "Python files in the tree": 388, "lines of Python in the tree": 57_500,
    "files in docs/": 60, "megabytes in docs/": 4.0,
}  # fmt: skip


def measured() -> dict[str, float]:
    """Return each measure of the files that git knows."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    python = [path for path in files if path.suffix == ".py"]
    docs = [path for path in files if path.is_relative_to(ROOT / "docs")]
    transfer = [path for path in python if path.is_relative_to(ROOT / "transfer")]
    rooms = {path.relative_to(ROOT / "transfer").parts[0].removesuffix(".py") for path in transfer} - {"__init__"}
    values = (
        len(rooms), floors(rooms), len(transfer), len(python),
        sum(len(path.read_text().splitlines()) for path in python), len(docs),
        round(sum(path.stat().st_size for path in docs) / 1e6, 1),
    )  # fmt: skip
    return dict(zip(LIMITS, values, strict=True))


def floors(rooms: set[str]) -> int:
    """Return the length of the longest chain of rooms that import each other."""
    graph = grimp.build_graph("transfer")
    for room in rooms:
        graph.squash_module(f"transfer.{room}")
    below = {
        room: [
            m
            for m in rooms - {room}
            if graph.direct_import_exists(importer=f"transfer.{room}", imported=f"transfer.{m}")
        ]
        for room in rooms
    }

    def height(room: str, above: tuple[str, ...] = ()) -> int:
        assert room not in above, f"a circle of rooms: {' → '.join((*above, room))}"
        return 1 + max((height(other, (*above, room)) for other in below[room]), default=0)

    return max(map(height, rooms))


def test_the_house_keeps_its_measures() -> None:
    beyond = {name: value for name, value in measured().items() if value > LIMITS[name]}
    assert not beyond


def test_every_room_of_transfer_stands_on_a_floor_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (floors_,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["transfer"]]
    named = {room.strip() for floor in floors_ for room in floor.split("|")}
    there = {p.stem for p in (ROOT / "transfer").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert named == there - {"__init__"}


if __name__ == "__main__":
    for name, value in measured().items():
        print(f"{value:>8,} of at most {LIMITS[name]:>8,}  {name}")
