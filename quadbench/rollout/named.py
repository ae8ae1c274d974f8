"""Named: the libraries of a kit among a device's objects -> a folder there in which they have their names."""

from collections.abc import Sequence

from quadbench.artifacts.kit import Kit, Library
from quadbench.devices import Device
from quadbench.errors import DeviceError
from quadbench.harness.installation import InstalledKit

_TIMEOUT_S = 30.0
# $1 is the kit's folder; then each library with its object. Phones let nobody make hard links.
_LINK = """\
mkdir -p "$1" && cd "$1" || exit
shift
while [ $# -gt 0 ]; do
  ln -sf "../../objects/$2" "$1" || exit
  shift 2
done
"""


def name_libraries(device: Device, kit: Kit, libraries: Sequence[Library]) -> InstalledKit:
    """Link a kit's libraries, which were deployed, under their names. A folder is one kit's, however often it is pushed.

    Raises:
        DeviceError: the device cannot make the links.
    """
    folder = f"{device.root}/kits/{kit.digest}"
    words = [word for library in libraries for word in (library.name, library.file.sha256)]
    result = device.shell(["sh", "-c", _LINK, "sh", folder, *words], _TIMEOUT_S)
    if result.exit_code:
        said = " / ".join(result.stderr.splitlines()[-3:]) or "nothing on stderr"
        raise DeviceError(f"'{folder}' cannot be made on device '{device.facts.address}': {said}")
    return InstalledKit(folder=folder, kit=kit, libraries=tuple(libraries))
