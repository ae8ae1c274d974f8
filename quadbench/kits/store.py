"""Build runtime kits from files or packages, and list, find or remove stored kits. A kit is a set of libraries for one ABI."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quadbench.artifacts import FileRef, StoredArtifact
from quadbench.artifacts.kit import Kit, Library, Origin, Role, kit_digest, role_of
from quadbench.errors import ArtifactError, UnknownNameError, UserError
from quadbench.host import folder_lock
from quadbench.kits import archives, packages
from quadbench.kits.elf import exported_names, read_elf
from quadbench.kits.kit_compatibility import (
    ENTRY_POINTS,
    built_in_problem,
    has_built_in_qnn,
    kit_problems,
    qnn_build,
    runtime_version,
)
from quadbench.results.layout import Layout
from quadbench.results.manifest import discard, link_file, publish, read_checked, read_manifest, temporary_folder
from quadbench.target.abi import Abi

_QNN_ROLES = (Role.BACKEND, Role.STUB, Role.SKEL)


@dataclass(frozen=True, kw_only=True)
class AddedKit:
    """A runtime kit built from given files. `left_out` holds the names of libraries in the files that the kit does not need."""

    kit: StoredArtifact[Kit]
    left_out: tuple[str, ...]


def add_kit(sources: Sequence[Path], abi: Abi, layout: Layout, *, origins: Sequence[Origin] = ()) -> AddedKit:
    """Build and store a runtime kit from a user's files and folders. Return the kit and unused libraries' names as AddedKit.

    The same libraries give the same kit, which is stored once; a damaged kit is replaced. `origins` are set for fetched files.

    Raises:
        UserError: a file cannot be read, or the libraries cannot form a kit; the error lists every reason. Nothing was stored.
    """
    with temporary_folder(layout.kits / "incoming") as folder:
        contents = archives.extract_libraries(sources, abi, folder)
        brought = [Library(name=name, role=role_of(name), file=file) for name, file in sorted(_merged(contents).items())]
        elves = {library: read_elf(folder / library.file.path, name=library.name, fault=UserError) for library in brought}
        # The kit has the libraries with a role of their own, and all that these need, directly or indirectly.
        wanted = {library.name for library in elves if library.role is not Role.SUPPORT}
        while more := {name for library, elf in elves.items() if library.name in wanted for name in elf.needed} - wanted:
            wanted |= more
        libraries = [library for library in elves if library.name in wanted]
        left_out = tuple(sorted({library.name for library in elves} - wanted))
        builds = {library: qnn_build(folder / library.file.path) for library in libraries if library.role in _QNN_ROLES}
        exports = {
            library: exported_names(folder / library.file.path, ENTRY_POINTS[library.role], name=library.name, fault=UserError)
            for library, elf in elves.items()
            if library.role in ENTRY_POINTS and elf.machine == abi.traits.elf_machine  # only for this machine
        }
        runtimes = [library for library in libraries if library.role is Role.RUNTIME]
        problems = kit_problems({library: elves[library] for library in libraries}, builds, exports, abi)
        problems += [built_in_problem(one.name) for one in runtimes if has_built_in_qnn(folder / one.file.path)]
        if problems:
            raise UserError(
                "\n".join((f"these files cannot form a runtime kit for {abi}:", *problems)),
                hint="pass all files of one release for one ABI together; docs/phones.md lists where to get them",
            )
        kit = _kit(abi, libraries, folder, origins or [content.origin for content in contents], builds)

        def fill(place: Path) -> Kit:
            for name in {library.file.path for library in kit.libraries}:  # two libraries may have the same content
                link_file(folder / name, place / name)
            return kit

        return AddedKit(kit=publish(layout.kit(kit.digest), fill), left_out=left_out)


def fetch_kit(pins: Sequence[packages.PinnedPackage], layout: Layout, *, maven: str) -> AddedKit:
    """Download packages, build and store a runtime kit, and return it as AddedKit. `maven` is the base URL for Maven packages.

    Raises:
        UserError: the packages are for several ABIs, or cannot form a kit.
        MissingDependencyError: npm or pip is not installed, or the registry does not deliver a package.
        ArtifactError: a downloaded file does not have the pinned SHA-256.
    """
    abis = {pin.abi for pin in pins}
    if len(abis) != 1:
        raise UserError(f"these packages are for {' and '.join(sorted(abis))}; a kit is for one ABI")
    with temporary_folder(layout.kits / "fetched") as folder:
        files = []
        for number, pin in enumerate(pins):
            (place := folder / str(number)).mkdir()
            files.append(packages.fetch_package(pin.package, place, archive=maven))
        return add_kit(files, abis.pop(), layout, origins=[pin.package.origin for pin in pins])


def list_kits(layout: Layout) -> list[StoredArtifact[Kit]]:
    """Return all stored kits, sorted by digest; a damaged kit raises ArtifactError."""
    return [read_manifest(folder, Kit) for folder in _folders(layout)]


def list_checked_kits(layout: Layout) -> dict[Path, StoredArtifact[Kit] | ArtifactError]:
    """Check the files of all stored runtime kits. Return a dict from folder to kit, or to ArtifactError for a damaged kit."""
    checked: dict[Path, StoredArtifact[Kit] | ArtifactError] = {}
    for folder in _folders(layout):
        try:
            checked[folder] = read_checked(folder, Kit)
        except ArtifactError as error:
            checked[folder] = error
    return checked


def find_kit(digest: str, layout: Layout) -> StoredArtifact[Kit]:
    """Return the kit whose digest begins with `digest`. Raise UnknownNameError if no kit matches, UserError if several match."""
    return read_manifest(_place(digest, layout), Kit)


def remove_kit(digest: str, layout: Layout) -> Path:
    """Delete the kit whose digest begins with `digest`, damaged or not, and return the path of its folder.

    Raises:
        UnknownNameError: no kit has this prefix.
        UserError: several kits have this prefix.
        StorageError: the kit cannot be deleted.
    """
    place = _place(digest, layout)
    with folder_lock(place.parent):
        discard(place)
    return place


def _folders(layout: Layout) -> list[Path]:
    """Return the folders of all kits in a results folder, including damaged kits without a manifest."""
    return sorted(path for path in layout.kits.glob("[0-9a-f]*") if path.is_dir())


def _place(digest: str, layout: Layout) -> Path:
    places = {folder.name: folder for folder in _folders(layout)}
    fitting = [folder for folder in places.values() if digest and _digest_begins(folder, digest)]
    if len(fitting) > 1:
        names = ", ".join(folder.name for folder in fitting)
        raise UserError(f"several kits begin with '{digest}': {names}", hint="give more characters of the digest")
    if not fitting:
        raise UnknownNameError("runtime kit", digest, places)
    return fitting[0]


def _digest_begins(folder: Path, digest: str) -> bool:
    """Return True if the digest of the kit in `folder` begins with `digest`. The folder's name is the start of the digest."""
    if len(digest) <= len(folder.name):
        return folder.name.startswith(digest)
    try:
        return read_manifest(folder, Kit).artifact.digest.startswith(digest)
    except ArtifactError:
        return False


def _merged(contents: Iterable[archives.SourceContent]) -> dict[str, FileRef]:
    """Return a dict from library name to FileRef for a kit's sources. Raise UserError if two different files share a name."""
    libraries, owners = dict[str, FileRef](), dict[str, str]()
    for content in contents:
        for name, file in content.libraries.items():
            if libraries.setdefault(name, file) != file:
                raise UserError(f"'{owners[name]}' and '{content.origin.name}' contain two different libraries '{name}'")
            owners.setdefault(name, content.origin.name)
    return libraries


def _kit(
    abi: Abi, libraries: Sequence[Library], folder: Path, origins: Sequence[Origin], builds: dict[Library, str | None]
) -> Kit:
    (runtime,) = (library for library in libraries if library.role is Role.RUNTIME)
    versions = {"onnxruntime": runtime_version(folder / runtime.file.path), "qnn": next(filter(None, builds.values()), None)}
    return Kit(
        digest=kit_digest(abi, libraries),
        abi=abi,
        libraries=tuple(libraries),
        versions={name: version for name, version in versions.items() if version},
        origins=tuple(origins),
    )
