"""The keys (relative paths) of all files in a store. No other module builds such keys."""

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


def launch_key(folder: str) -> str:
    """Return the key of a launch's entry in a store. `folder` is the launch's path, `runs/<run>/<device>/<variant>-<launch>`."""
    return f"{folder}.json"


def run_prefix(run_id: str) -> str:
    """Return the key prefix that all entries of a run's launches in a store share."""
    return f"{RUNS}/{run_id}/"
