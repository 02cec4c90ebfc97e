"""Markers of tests that need more than Python."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slurm: starts a Slurm cluster of one node (Debian: slurm-wlm and munge)")
