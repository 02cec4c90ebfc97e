"""Every benchmark names a protocol that can be read: its framework, its configs with all their bases, and its metrics."""

import pytest

from core import plugins
from core.errors import InputError
from core.provenance import ROOT
from transfer.benchmarks import Protocol
from transfer.suite.trial import protocol_hash, protocol_of

NAMES = plugins.names("transfer.benchmarks")


@pytest.mark.parametrize("name", NAMES)
def test_the_configs_of_a_benchmark_exist_with_all_their_bases(name):
    protocol, framework = protocol_of(name)
    found = framework.config_files(ROOT / protocol.config)
    assert found[-1] == ROOT / protocol.config
    assert len(found) >= 4  # facts or model, data and schedule stand in bases
    assert all(path.is_file() for path in found)


def test_no_two_benchmarks_have_the_same_protocol():
    assert len({protocol_hash(*protocol_of(name)) for name in NAMES}) == len(NAMES)


def test_options_change_a_protocols_hash_and_its_title_does_not():
    protocol, framework = protocol_of("coco_c4")
    renamed = protocol.model_copy(update={"title": "another", "trials": 9})
    assert protocol_hash(renamed, framework) == protocol_hash(protocol, framework)
    assert protocol_hash(protocol, framework, ["SEED", "1"]) != protocol_hash(protocol, framework)


def test_a_missing_config_is_named_with_its_benchmark():
    protocol, framework = protocol_of("coco_c4")
    with pytest.raises(InputError, match=r"cannot read .*none.yaml, a config of 'COCO C4 1x'"):
        protocol_hash(protocol.model_copy(update={"config": "none.yaml"}), framework)


def test_a_headline_that_is_not_measured_is_refused():
    with pytest.raises(ValueError, match="headline 'b' is none of the metrics a"):
        Protocol(title="t", framework="f", config="c", train="a", test="b", metrics=("a",), headline="b")
