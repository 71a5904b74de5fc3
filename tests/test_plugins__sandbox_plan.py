from __future__ import annotations

import json

import pytest

from plugins._sandbox import plan as plans
from plugins._sandbox.plan import LAYERS, Limits, Plan, decided, lacks, level, promises

ALL = tuple(LAYERS)


def without(*names):
    return tuple(layer for layer in ALL if layer not in names)


def holding(*names):
    return {layer: "" if layer in names else "not here" for layer in ALL}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (ALL, "A"),
        (without("landlock"), "A"),
        (without("identity"), "A"),
        (without("namespaces"), "B"),
        (without("namespaces", "identity"), "B"),
        (without("namespaces", "landlock"), "C"),
        (without("namespaces", "landlock", "identity"), "C"),
        (without("seccomp"), ""),
        (without("limits"), ""),
        (without("privileges"), ""),
        ((), ""),
    ],
)
def test_the_level_follows_from_the_layers(layers, expected):
    assert level(layers) == expected


def test_what_is_decided_has_the_layers_that_were_wanted_and_hold():
    plan = decided(Plan(layers=without("identity")), holding(*without("namespaces")))
    assert plan.layers == ("limits", "privileges", "landlock", "seccomp")
    assert not plan.nofs
    assert not plan.preload


def test_without_a_wall_around_files_none_can_be_opened_and_the_library_is_imported_beforehand():
    plan = decided(Plan(), holding("limits", "privileges", "seccomp"))
    assert plan.nofs
    assert plan.preload


def test_no_files_may_be_chosen_at_any_level():
    plan = decided(Plan(nofs=True), holding(*ALL))
    assert (level(plan.layers), plan.nofs, plan.preload) == ("A", True, True)


def test_a_library_out_of_reach_is_imported_beforehand():
    plan = decided(Plan(), holding(*without("namespaces")), reachable=False)
    assert (plan.nofs, plan.preload) == (False, True)


def test_a_plan_comes_back_from_json_as_it_was():
    plan = Plan(("limits",), Limits(memory=5, timeout=0.5), ("/a", "/b"), nofs=True, folder="/f", first_uid=7)
    assert plans.from_json(json.loads(json.dumps(plans.to_json(plan)))) == plan


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_each_level_promises_something_and_the_one_below_none_nothing(name):
    assert len(promises(name)) > 3
    assert promises("") == []


def test_all_layers_lack_nothing():
    assert lacks(ALL) == []


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (without("seccomp"), "Without seccomp nothing is run"),
        (without("limits"), "Without limits nothing is run"),
        (without("privileges"), "Without giving up privileges nothing is run"),
        (without("namespaces"), "a process exists"),
        (without("namespaces"), "looking at it now and then"),
        (without("namespaces", "landlock"), "no file at all"),
        (without("landlock"), "no second wall"),
        (without("identity"), "have the user id of the proxy"),
        (without("identity", "namespaces"), "bound is a loose one"),
    ],
)
def test_a_layer_that_is_missing_is_told_with_what_it_costs(layers, words):
    assert any(words in sentence for sentence in lacks(layers))


def test_nothing_is_said_to_be_seen_where_no_file_can_be():
    assert not any("exists" in sentence for sentence in lacks(without("namespaces", "landlock")))
