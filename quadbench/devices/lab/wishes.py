"""Convert --devices values to device addresses. A value is an address, a phone name in farm.yaml or a request for free phones."""

from collections.abc import Sequence
from contextlib import suppress

from quadbench.devices import list_devices
from quadbench.devices.lab.farm_file import expected_phones
from quadbench.devices.lab.overview import FarmPhone, overview, phone_named
from quadbench.devices.lab.selection import chosen, parse_wish
from quadbench.errors import UserError
from quadbench.host import user_and_host
from quadbench.results.layout import Layout


def addresses_for(words: Sequence[str], layout: Layout) -> list[str]:
    """Convert --devices values to a list of device addresses. `s25*2` gives two free s25 phones, none named by another value.

    Raises:
        DeviceNotFoundError: too few phones are free for a wish.
        SpecError, UserError: farm.yaml is wrong.
    """
    expected = expected_phones()
    serials = {phone.name: phone.serial for phone in expected}
    label_keys = {key for phone in expected for key in phone.labels}
    wishes = {word: wish for word in words if (wish := parse_wish(word, tuple(label_keys)))}
    if not wishes:
        return [serials.get(word, word) for word in words]
    named = {word: serials.get(word, word) for word in words if word not in wishes}
    phones, owner = [phone for phone in overview(list_devices(), expected, layout) if phone.is_here], user_and_host()
    taken = {serial for address in named.values() if (serial := _serial_at(address, phones))}
    free = {phone.seen.address: phone.labels for phone in phones if phone.is_free_for(owner) and phone.seen.serial not in taken}
    given = dict(zip(wishes, chosen(tuple(wishes.values()), free), strict=True))
    return [address for word in words for address in (given[word] if word in given else [named[word]])]


def _serial_at(address: str, phones: Sequence[FarmPhone]) -> str | None:
    """Return the adb serial of the one attached phone that matches an address; None if no phone or several match."""
    with suppress(UserError):
        return phone_named(address.partition("?")[0].rpartition("@")[2], phones).seen.serial
    return None
