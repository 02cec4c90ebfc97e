"""Show a proof of conversion as a table of stages, for a terminal."""

from collections import Counter

from transfer.convert.convert import Proof


def table(proof: Proof) -> str:
    """Return a line a stage (tensors, parameters, difference of features), then what was dropped and why, and the hashes."""
    rows = [("stage", "tensors", "parameters", "largest feature", "largest difference")]
    for row in proof.stages:
        difference, feature = row["max_abs_feature_difference"], row["max_abs_feature"]
        measured = ("-", "-") if difference is None else (f"{feature:.4g}", f"{difference:.1e}")
        rows.append((row["stage"], str(row["tensors"]), f"{row['parameters']:,}", *measured))
    rows.append(("all", str(proof.tensors_mapped), f"{sum(row['parameters'] for row in proof.stages):,}", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  "
        + "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    reasons = Counter(proof.dropped.values())
    lines += [f"  dropped {count}: {reason}" for reason, count in sorted(reasons.items())]
    lines += [f"  names read: {proof.naming}"]
    lines += [f"  sha256 of the {what}: {value}" for what, value in _hashes(proof)]
    return "\n".join(line.rstrip() for line in lines)


def _hashes(proof: Proof) -> list[tuple[str, str]]:
    return [("input", proof.source_sha256), ("tensors", proof.tensors_sha256), ("output", proof.sha256)]
