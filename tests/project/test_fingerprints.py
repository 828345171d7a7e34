"""Plans, schedules, shards, batches and streams are what they were, seed for seed."""

import json

from tests.helpers.fingerprints import GOLDEN, fingerprints


def test_everything_that_a_seed_decides_is_what_it_was():
    golden = json.loads(GOLDEN.read_text())
    found = fingerprints()
    assert list(found) == list(golden)
    assert {name for name in golden if golden[name] != found[name]} == set()
