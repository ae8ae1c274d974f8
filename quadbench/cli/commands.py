"""All commands by name and group, with their one-line descriptions. Each command is a module of the package `cli`."""

OWN_EXIT_CODES = frozenset({"nightly"})  # commands whose exit codes encode their result; every error is 1

GROUPS = {
    "measure": {
        "run": "build a recipe, push it to devices, measure and report",
        "compare": "launch two recipes or builds in turn and compare time and memory",
        "sweep": "run a recipe with several values of one key, and compare them",
        "nightly": "report what got worse since last night, and what caused it",
        "history": "show what changed in a nightly case, since when, by which files",
        "runs": "list the stored runs",
        "show": "print the figures and the result of a stored run",
        "report": "write the report of a stored run again, and print its figures",
        "serve": "show runs, the farm, nights and reports on a live page",
        "quality": "score the images of a stored run or a folder against references",
    },
    "stored records": {
        "samples": "export every measured value of stored runs as CSV",
        "prune": "remove old runs that nothing refers to",
        "store": "send, fetch and clean up artifacts that farm hosts share",
    },
    "build": {
        "recipe": "list, check and copy recipes, write new ones, print their schema",
        "compile": "compile a recipe or bundle for a target and print its folder",
        "lint": "list what compilers and NPUs would refuse in a bundle's graphs",
        "adapter": "inspect adapters, convert them, and add them to a built bundle",
        "sensitivity": "measure each adapter's quantization error, and choose the anchor",
    },
    "devices and this machine": {
        "devices": "list phones with their health, and other devices for runs",
        "reserve": "reserve a device for your own runs",
        "release": "end the reservation of a device",
        "farm": "set up a farm, submit runs, list jobs, check the pool",
        "who": "list who uses or reserves which device, and until when",
        "targets": "list compile targets, and what to install for missing ones",
        "doctor": "check what is installed and what is missing, or test a device",
        "harness": "build the native harness, for this machine or for devices",
        "runtime": "create and show runtime kits: libraries to run graphs on devices",
        "completion": "print a script for your shell to complete commands and options",
    },
}
COMMANDS = {name: purpose for commands in GROUPS.values() for name, purpose in commands.items()}


def command_list() -> str:
    """Return the text of `--help` that lists all commands with their descriptions, by group."""
    width = max(map(len, COMMANDS))
    lines = []
    for title, commands in GROUPS.items():
        lines += [f"{title}:", *(f"  {name.ljust(width)}  {purpose}" for name, purpose in commands.items()), ""]
    return "\n".join(lines)
