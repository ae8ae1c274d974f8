"""Placed: the libraries that a device has for the harness, pushed or its system's -> where they lie there, and of which build."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from quadbench.artifacts import Deployment
from quadbench.artifacts.kit import Role, role_of
from quadbench.deploy import LocalFile
from quadbench.devices.emulator import emulator_libraries
from quadbench.errors import ArtifactError
from quadbench.harness.installation import InstalledKit
from quadbench.harness.libraries import PlacedLibrary
from quadbench.kits.elf import read_elf


def placed_libraries(
    names: Sequence[str], files: Sequence[LocalFile], deployment: Deployment, kit: InstalledKit | None, *, is_emulated: bool
) -> Iterator[PlacedLibrary]:
    """Yield the libraries that were deployed as `files`, by their names, and those of an emulator.

    Raises:
        ArtifactError: a file is no library.
    """
    objects = [deployment.objects[file.sha256] for file in files]
    for file, name, place in zip(files, names, objects, strict=True):
        paths = (f"{kit.folder}/{name}", place) if kit else (place,)
        yield _placed(name, paths, file.path)
    for path, local in emulator_libraries().items() if is_emulated else ():
        if role_of(local.name) is not Role.SUPPORT:
            yield _placed(local.name, (path,), local)


def _placed(name: str, paths: tuple[str, ...], local: Path) -> PlacedLibrary:
    return PlacedLibrary(name=name, paths=paths, build_id=read_elf(local, name=name, fault=ArtifactError).build_id)
