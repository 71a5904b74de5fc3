"""Every dialect over every provider: each cell of the table in the README is proven here."""

from __future__ import annotations

import pytest

import matrix
from conftest import ROOT


@pytest.fixture(scope="module")
def world():
    with matrix.world() as here:
        yield here


@pytest.fixture
def no_thread_left_behind():
    """The stand-ins of this module have theirs for as long as it takes; those of a test end with it."""


@pytest.mark.parametrize("capability", matrix.CAPABILITIES)
@pytest.mark.parametrize("provider", matrix.COLUMNS)
@pytest.mark.parametrize("dialect", matrix.DIALECTS, ids=lambda dialect: dialect.name)
def test_a_cell_is_proven_or_cannot_be(world, dialect, provider, capability):
    proof = matrix.proven(matrix.Cell(dialect(world.house), provider, world.ups[provider]), capability)
    assert proof.failure == ""


def test_the_readme_has_the_table_as_it_is_printed():
    whole = {
        (dialect.name, provider, capability): matrix.Proof(matrix.IMPOSSIBLE.get((dialect.name, capability), ""))
        for dialect in matrix.DIALECTS
        for provider in matrix.COLUMNS
        for capability in matrix.CAPABILITIES
    }
    assert "\n".join(matrix.table(whole)) in (ROOT / "README.md").read_text("utf-8")
