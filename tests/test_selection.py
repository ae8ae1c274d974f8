"""Words as `s25*2,chip=SM8750` are served if any way of giving out the devices serves them."""

from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sentences import raising

from quadbench.devices.lab.selection import Wish, chosen, parse_wish
from quadbench.devices.lab.wishes import addresses_for
from quadbench.errors import DeviceNotFoundError, UserError
from quadbench.results.layout import Layout

DEVICES = {
    "s25@A": {"profile": "s25", "chip": "SM8750", "rack": "left"},
    "s25@B": {"profile": "s25", "chip": "SM8750"},
    "s25@C": {"profile": "s25", "chip": "SM8650", "name": "old-one"},
    "tabs11@D": {"profile": "tabs11", "chip": "MT6989"},
}


def wishes(text: str) -> list[Wish]:
    parsed = [parse_wish(word, ["rack"]) for word in text.split(",")]
    return [wish for wish in parsed if wish]


@pytest.mark.parametrize(
    "address",
    ["s25", "s25@A", "local", "virtual:s25", "virtual:s25?target=qnn", "s25?target=xnnpack", "hub:s25", "R3*", "*2",
     "a/b*2", "a/b*0", "virtual:s25?scenario=hot&data_mb=64", "rock=left", "chip="],
)  # fmt: skip
def test_an_address_is_no_wish(address: str) -> None:
    assert parse_wish(address, ["rack"]) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s25*2,chip=SM8750", [["s25@B", "s25@C"], ["s25@A"]]),
        ("chip=sm8750*2", [["s25@A", "s25@B"]]),
        ("rack=left,s25*2", [["s25@A"], ["s25@B", "s25@C"]]),
        ("s25*1,rack=left,old-one*1", [["s25@B"], ["s25@A"], ["s25@C"]]),
    ],
)
def test_devices_are_given_out_so_that_all_are_served(text: str, expected: list[list[str]]) -> None:
    assert [sorted(devices) for devices in chosen(wishes(text), DEVICES)] == expected


def test_too_few_devices_are_refused_with_those_that_fit() -> None:
    with raising(DeviceNotFoundError, "s25*4", 3, "s25@A", "s25@B", "s25@C"):
        chosen(wishes("s25*4"), DEVICES)


@pytest.mark.parametrize("word", ["s25*0", "local*1000000", "chip=sm8750*10000", f"s25*{'9' * 5000}"])
def test_a_number_of_devices_that_no_farm_has_is_refused_at_bounded_length(word: str) -> None:
    with raising(UserError, word[:20], 1, 9999, snapshot=False) as caught:
        parse_wish(word, [])
    assert len(str(caught.value)) < 200
    assert wishes("s25*9999")[0].count == 9999


CHIPS, NAMES = st.sampled_from("xy"), st.sampled_from("abc")
FARMS = st.lists(st.fixed_dictionaries({"chip": CHIPS, "profile": NAMES}), max_size=5)
WISHES = st.lists(st.one_of(CHIPS.map(lambda chip: f"chip={chip}"), NAMES.map(lambda name: f"{name}*1")), min_size=1, max_size=4)


@given(FARMS, WISHES)
def test_wishes_are_served_exactly_where_some_order_of_the_devices_serves_them(
    farm: list[dict[str, str]], words: list[str]
) -> None:
    devices, asked = {f"device-{number}": labels for number, labels in enumerate(farm)}, wishes(",".join(words))
    orders = permutations(devices, len(asked))
    is_possible = any(all(wish.fits(devices[name]) for wish, name in zip(asked, order, strict=True)) for order in orders)
    try:
        given_out = [name for (name,) in chosen(asked, devices)]
    except DeviceNotFoundError:
        assert not is_possible
    else:
        assert len(set(given_out)) == len(asked)
        assert all(wish.fits(devices[name]) for wish, name in zip(asked, given_out, strict=True))


def test_a_device_that_is_named_twice_stays_so_and_is_refused_where_it_is_connected(tmp_path: Path) -> None:
    assert addresses_for(["local", "local"], Layout(tmp_path)) == ["local", "local"]
