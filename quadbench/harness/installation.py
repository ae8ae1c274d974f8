"""Installation: a bundle on one device, ready to be launched there."""

from dataclasses import dataclass

from quadbench.artifacts import Bundle, CompiledBundle, Deployment, FileRef, Stored
from quadbench.artifacts.kit import Kit, Library
from quadbench.devices import Device
from quadbench.errors import ArtifactError
from quadbench.harness.execution_provider import ExecutionProvider
from quadbench.harness.libraries import PlacedLibrary


@dataclass(frozen=True, kw_only=True)
class InstalledKit:
    """A kit in a `folder` of the device, where its libraries have their names; those that were pushed."""

    folder: str
    kit: Kit
    libraries: tuple[Library, ...]

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which the loader, and Qualcomm's libraries on the NPU's side, find the libraries."""
        return {"LD_LIBRARY_PATH": self.folder, "ADSP_LIBRARY_PATH": self.folder}

    @property
    def versions(self) -> dict[str, str]:
        """Return what a record says of the kit: its digest, and each library with its sha256."""
        return {"kit": self.kit.digest, **{f"kit.{library.name}": library.file.sha256 for library in self.libraries}}


@dataclass(frozen=True, kw_only=True)
class Installation:
    """All that a plan of the harness is made of, but for what the launch runs.

    `program` and `runtime` are the sha256 of the harness and of ONNX Runtime's library among the deployed files; where there is a
    kit, that is one of its. `litert` is that of LiteRT's library, which then runs the quantized graphs, `dispatch` that of the
    library by which it runs them on a chip's NPU. An execution provider of None is the CPU's. `libraries` are all that the
    harness may find on the device.
    """

    device: Device
    bundle: Stored[Bundle]
    compiled: Stored[CompiledBundle]
    deployment: Deployment
    program: str
    runtime: str
    litert: str | None = None
    dispatch: str | None = None
    kit: InstalledKit | None = None
    execution_provider: ExecutionProvider | None = None
    libraries: tuple[PlacedLibrary, ...] = ()

    @property
    def address(self) -> str:
        """Return the device's address, as on the command line."""
        return self.device.facts.address

    def path_of_library(self, sha256: str) -> str:
        """Return where a runtime's library lies on the device: one of a kit under its name.

        Raises:
            ArtifactError: it was not deployed.
        """
        if self.kit is None:
            return self.path_of_digest(sha256, "the runtime library")
        name = next(library.name for library in self.kit.libraries if library.file.sha256 == sha256)
        return f"{self.kit.folder}/{name}"

    def path_of(self, file: FileRef) -> str:
        """Return where a file of the bundle lies on the device.

        Raises:
            ArtifactError: the file was not deployed.
        """
        return self.path_of_digest(file.sha256, f"'{file.path}'")

    def path_of_digest(self, sha256: str, name: str) -> str:
        """Return where the file with a digest lies on the device; `name` is what an error calls it.

        Raises:
            ArtifactError: the file was not deployed.
        """
        objects = self.deployment.objects
        if sha256 not in objects:
            raise ArtifactError(
                f"{name} (sha256 {sha256}) is not among the {len(objects)} deployed files", hint="push the bundle again"
            )
        return objects[sha256]
