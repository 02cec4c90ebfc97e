"""A seeded sample of the campaign of hostile files; ``make campaign`` runs all of it, and kills the real frameworks."""

import os

import campaign
import pytest


@pytest.mark.parametrize("kind", campaign.KINDS)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_sample_of_hostile_files_is_read_or_refused(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    count, name, make, read = campaign.KINDS[kind]
    faults = [
        campaign.judge(make, name, read, campaign.hash_of(kind, 3, number)) for number in range(max(1, count // 50))
    ]
    assert list(filter(None, faults)) == []
    assert not os.listdir(tmp_path)
