"""Parts: intermediate results of builds. Each is a folder named by the digest of all that it depends on, so never stale."""

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quadbench.errors import ArtifactError
from quadbench.host import folder_lock
from quadbench.results.digests import digest_of, sha256_of
from quadbench.results.disk import storage_errors
from quadbench.results.layout import folder_name
from quadbench.results.manifest import discard, link_file, temporary_folder
from quadbench.spec import read_json

_MANIFEST = "part.json"
log = logging.getLogger(__name__)


class PartStore:
    """The parts in the folder `root`. A build uses links to them in `scratch`, so that other commands may remove parts meanwhile.

    `made` counts by kind the parts that this object had to make, because they were missing or damaged.
    """

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root, self.scratch = root, scratch
        self.made: Counter[str] = Counter()

    def folder(self, kind: str, depends_on: Mapping[str, Any], make: Callable[[Path], object]) -> Path:
        """Return a folder with the files of a part, which must not be changed. `make(folder)` makes a missing or damaged part: it
        writes files into an empty folder. `depends_on` holds JSON values that determine what it writes.
        """
        digest = digest_of({"kind": kind, **depends_on})
        linked, stored = self.scratch / f"part-{folder_name(digest)}", self.root / folder_name(digest)
        if linked.is_dir() or self._link(stored, linked, kind, digest):
            return linked
        self.made[kind] += 1
        with temporary_folder(stored) as temporary:
            make(temporary)
            with storage_errors(self.root):
                (temporary / _MANIFEST).write_text(json.dumps(_manifest(temporary, kind, digest), indent=1))
                _link_all(temporary, linked)
                with folder_lock(self.root):
                    discard(stored)  # a damaged part; or an equal one, made meanwhile, which its readers have linked
                    temporary.rename(stored)
        return linked

    def _link(self, stored: Path, linked: Path, kind: str, digest: str) -> bool:
        """Link a part's files into the folder `linked`, and check them there. Return False if the part is missing or damaged."""
        if not stored.is_dir():
            return False
        with storage_errors(self.root), folder_lock(self.root):
            if not stored.is_dir():
                return False
            os.utime(stored)  # `maintenance.remove_unused_parts` reads it
            _link_all(stored, linked)
        try:
            is_sound = read_json(linked / _MANIFEST, fault=ArtifactError) == _manifest(linked, kind, digest)
        except (ArtifactError, OSError) as error:
            log.warning("part '%s': %s", stored, error)
            is_sound = False
        if not is_sound:
            log.warning("part '%s' is damaged and made again", stored)
            shutil.rmtree(linked)
        return is_sound


def _link_all(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file():
            link_file(path, target / path.name)


def _manifest(folder: Path, kind: str, digest: str) -> dict[str, Any]:
    """Return a part's manifest: kind, digest, and the SHA-256 of each file in the folder by file name, without the manifest's."""
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != _MANIFEST}
    return {"kind": kind, "digest": digest, "files": files}
