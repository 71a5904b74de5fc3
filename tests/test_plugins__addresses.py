"""What is promised of `plugins/_addresses.py`."""

from __future__ import annotations

import pytest

from plugins._addresses import client_address, is_loopback, neighbourhood, networks

TRUSTED = networks(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])


def test_without_trust_a_list_changes_nothing():
    assert client_address("203.0.113.5", ["198.51.100.1"], ()) == "203.0.113.5"
    assert client_address("203.0.113.5", ["198.51.100.1"], TRUSTED) == "203.0.113.5"


def test_a_trusted_proxy_is_believed():
    assert client_address("10.0.0.1", ["198.51.100.1"], TRUSTED) == "198.51.100.1"


@pytest.mark.parametrize(
    "forwarded",
    [
        ["6.6.6.6, 198.51.100.1"],
        ["6.6.6.6", "198.51.100.1"],
        ["10.9.9.9, 198.51.100.1"],
        ["198.51.100.1, 10.0.0.2, 192.0.2.7"],
        ["6.6.6.6, 198.51.100.1", "10.0.0.2,192.0.2.7"],
        ["nonsense, 198.51.100.1"],
        [" ,, 198.51.100.1 ,\t, "],
        ["198.51.100.1:4711"],
        ['"198.51.100.1"'],
        ["::ffff:198.51.100.1"],
        ["[::ffff:198.51.100.1]:4711, [fd00::1]:80, fd00::2"],
        ["x" * 60_000 + ", 198.51.100.1"],
    ],
)
def test_the_right_most_hop_that_is_not_trusted_is_the_client(forwarded):
    assert client_address("10.0.0.1", forwarded, TRUSTED) == "198.51.100.1"


def test_a_peer_may_be_an_ipv4_address_in_ipv6_clothes():
    assert client_address("::ffff:10.0.0.1", ["198.51.100.1"], TRUSTED) == "198.51.100.1"


def test_when_all_are_trusted_the_farthest_is_the_client():
    assert client_address("10.0.0.1", ["10.0.0.3, 10.0.0.2"], TRUSTED) == "10.0.0.3"


@pytest.mark.parametrize("forwarded", [[], [""], [","], ["unknown"], ["198.51.100.1, unknown"], ["198.51.100.1, _x"]])
def test_what_nobody_vouches_for_is_not_looked_at(forwarded):
    assert client_address("10.0.0.1", forwarded, TRUSTED) == "10.0.0.1"


@pytest.mark.parametrize(
    "garbage",
    [
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.4:",
        "1.2.3.4:x",
        "[1.2.3.4",
        "[]",
        "[::1]x",
        ":",
        "::1:80:",
        "1.2.3.4 5",
        "1.2.3.4/8",
        "\u0661.2.3.4",
    ],
)
def test_garbage_is_no_address(garbage):
    assert client_address("10.0.0.1", [garbage], TRUSTED) == "10.0.0.1"


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.1/8", "10.0.0.0/33"])
def test_what_is_no_network_cannot_be_trusted(text):
    with pytest.raises(ValueError):
        networks([text])


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::1", "20010db800000001/64"),
        ("2001:db8:0:1:ffff::2", "20010db800000001/64"),
        ("2001:db8:0:2::1", "20010db800000002/64"),
        ("fe80::1%eth0", "fe80000000000000/64"),
        ("::1", "0000000000000000/64"),
        ("", ""),
        ("a:b", "a:b"),
        ("::\0", "::\0"),
    ],
)
def test_an_ipv6_network_is_one_neighbour(address, name):
    assert neighbourhood(address) == name


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.255.0.1", True),
        ("::1", True),
        ("::1%lo", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("128.0.0.1", False),
        ("::", False),
        ("::2", False),
        ("7f00::1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%lo", False),
        ("", None),
        ("?", None),
        ("localhost", None),
        ("127.0.0.1:80", None),
    ],
)
def test_it_is_known_who_can_reach_an_address(address, loopback):
    assert is_loopback(address) is loopback
