"""The keys (relative paths) of files in a store. A launch's key is the path of its folder in a results folder, and `.json`."""

MARKER = "store.json"  # identifies a folder as a store and holds its version
CONDEMNED = "condemned.json"
INCOMING = "incoming"  # unfinished uploads in stores of older versions, which did not use obstore
OBJECTS, ARTIFACTS, RUNS = "objects", "artifacts", "runs"


def object_key(sha256: str) -> str:
    """Return the key under which a store has the content with this sha256."""
    return f"{OBJECTS}/{sha256[:2]}/{sha256}"


def artifact_key(kind: str, digest: str) -> str:
    """Return the key of an artifact's entry in a store."""
    return f"{ARTIFACTS}/{kind}/{digest}.json"
