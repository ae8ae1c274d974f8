"""All commands by name and group, with their one-line descriptions. Each command is a module of the package `cli`."""

OWN_EXIT_CODES = frozenset({"nightly"})  # commands whose exit codes encode their result; every error is 1

GROUPS = {
    "measure": {
        "run": "build a recipe, push it to devices, measure and report",
        "compare": "launch two recipes or builds in turn and say which takes more",
        "sweep": "run a recipe with several values of one key, and compare them",
        "nightly": "say what got worse since last night, and whose doing it is",
        "history": "say what changed of a case since when, and by which files",
        "runs": "list the stored runs",
        "show": "print the figures and the result of a stored run again",
        "report": "write the report of a stored run again, and print its figures",
        "serve": "show runs, the farm, nights and reports on a live page",
        "quality": "score the images of a stored run or a folder against references",
    },
    "stored records": {
        "samples": "write every value that stored runs measured, as CSV or Parquet",
        "prune": "remove old runs that nothing refers to",
        "db": "copy all records and nights from one database to another",
        "store": "send and fetch what hosts of a farm share, and look after it",
    },
    "build": {
        "recipe": "check recipes, write a new one, or print their schema",
        "compile": "compile a recipe or a bundle for a target and print where it lies",
        "lint": "say what compilers and NPUs would refuse in a bundle's graphs",
        "adapter": "look at adapters, convert them, and add them to a built bundle",
        "sensitivity": "say how much rounding costs each adapter, and choose the anchor",
    },
    "devices and this machine": {
        "devices": "list phones with their health, and what else --devices takes",
        "reserve": "keep a device for yourself for a while",
        "release": "give a reserved device back",
        "farm": "begin a farm, work for it, have it run recipes, see its jobs",
        "who": "say who has which device, and until when",
        "targets": "list what can be compiled for, and what to install for the rest",
        "doctor": "say what is installed and what to install, or try a device",
        "harness": "build the native harness, for this machine or for devices",
        "runtime": "make and show runtime kits, with which devices run graphs",
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
