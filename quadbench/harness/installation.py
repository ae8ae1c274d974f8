"""Installation: a bundle on one device, ready to be launched there."""

from dataclasses import dataclass

from quadbench.artifacts import Bundle, CompiledBundle, Deployment, FileRef, Stored
from quadbench.devices import Device
from quadbench.errors import ArtifactError
from quadbench.harness.execution_provider import ExecutionProvider


@dataclass(frozen=True, kw_only=True)
class Installation:
    """All that a plan of the harness is made of, but for what the launch runs.

    `program` and `runtime` are the sha256 of the harness and of the runtime library among the deployed files. An execution
    provider of None is the CPU's.
    """

    device: Device
    bundle: Stored[Bundle]
    compiled: Stored[CompiledBundle]
    deployment: Deployment
    program: str
    runtime: str
    execution_provider: ExecutionProvider | None = None

    @property
    def address(self) -> str:
        """Return the device's address, as on the command line."""
        return self.device.facts.address

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
