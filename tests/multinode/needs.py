"""What tests need: where there can be no lab they are skipped and say why; in CI as root that is an error."""

import os

import pytest

from multinode.lab import missing


def needs(*programs: str) -> None:
    """Skip the test where there can be no lab, or these programs, given as PROGRAM or PROGRAM:PACKAGE, are missing."""
    why = missing(programs)
    if why is not None:
        # There .ci/run has installed them: a skipped test would hide that it has not.
        assert not (os.environ.get("CI") and os.geteuid() == 0), f"multi-node lab: {why}"
        pytest.skip(f"multi-node lab: {why}")
