"""Keys: what lies in a store -> the key under which it lies. No other module knows these names."""

MARKER = "store.json"  # by which a store is told from any other folder, and its version known
CONDEMNED = "condemned.json"
INCOMING = "incoming"  # files on their way into a folder, in stores that were written without obstore
OBJECTS, ARTIFACTS, RUNS = "objects", "artifacts", "runs"


def object_key(sha256: str) -> str:
    """Return where a content lies, by its sha256."""
    return f"{OBJECTS}/{sha256[:2]}/{sha256}"


def artifact_key(kind: str, digest: str) -> str:
    """Return where the entry of an artifact lies."""
    return f"{ARTIFACTS}/{kind}/{digest}.json"


def launch_key(folder: str) -> str:
    """Return where the entry of a launch lies, whose folder in a results folder is `runs/<run>/<device>/<variant>-<launch>`."""
    return f"{folder}.json"


def run_prefix(run_id: str) -> str:
    """Return what the keys of all entries of a run begin with."""
    return f"{RUNS}/{run_id}/"
