"""Queries and commands to an HTCondor pool, by HTCondor's own command-line tools and their JSON output.

The tools always have the version of the daemons, say why an authentication failed, and can be ended after a timeout. A pool is
named by its configuration file: $CONDOR_CONFIG, else the file that `quadbench farm init` wrote for this user.
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from quadbench.artifacts.safe_text import one_line
from quadbench.errors import ArtifactError, MissingDependencyError, QuadbenchError, ServiceError, UnknownNameError, UserError
from quadbench.host import find_program
from quadbench.spec import first_problem
from quadbench.spec.variables import path_variable

Ad = Mapping[str, Any]
"""A ClassAd, HTCondor's description of a job, slot or daemon: a dict from attribute to value."""

CONFIG_VARIABLE = "CONDOR_CONFIG"
PACKAGE = "condor"  # Debian's
DOMAIN = "quadbench"  # the part after @ in the names of tokens
HOST_IDENTITY = "condor"  # the name by which the daemons of a pool know each other
NEW_TOKEN = "quadbench farm token NAME, at the head"
_TIMEOUT_S = 60.0  # the tools give up by themselves after 20 s
_MOST_OUTPUT_BYTES = 256 * 2**20
_MOST_AD_CHARACTERS = 2**20
_MOST_SAID = 500  # characters of a tool's error
_NO_ROOT = re.compile(r'job owner to "root"|Tried to start as root', re.IGNORECASE)
_REFUSED = re.compile(r"AUTHENTICATE:100[34]|SECMAN:2002|SECMAN:20\d\d:.*DENIED|not authorized|Permission denied", re.IGNORECASE)
_NO_TOKEN = re.compile(r"SECMAN:2002|AUTHENTICATE:100[34]|condor@password")  # who has the key is condor without a token
_UNREACHABLE = re.compile(
    r"CEDAR:6001|SECMAN:2007|Can't find address|cannot get address|condor_schedd is not running|Couldn't (locate|contact)"
    r"|Failed to connect|communication error|Unable to locate|Can't connect|condor_\w+: \(null\)",
    re.IGNORECASE,
)
_IN_QUEUE = "JobStatus != 3 && JobStatus != 4"  # neither removed nor completed
_AT_NO_SLOT = (1, 5)  # idle or held
_ATTRIBUTE = re.compile(r'^([^=\n]*) = (?:"((?:\\"|[^"\n])*)"|(-?[0-9]{1,18}))$', re.MULTILINE)  # a text or a whole number
_ADS = TypeAdapter(list[Ad])


@dataclass(frozen=True, kw_only=True)
class Condor:
    """An HTCondor pool, named by the path of its configuration on this host.

    Methods raise MissingDependencyError if HTCondor is not installed, UserError if the pool refuses this user or a command,
    ServiceError if it does not answer, and ArtifactError if the answer has another form than expected.
    """

    configuration: Path

    def slots(self, *attributes: str, constraint: str = "") -> list[Ad]:
        """Return the slots (a device, or a host's place for builds) that the pool's collector knows."""
        return self._ads("condor_status", *_where(constraint), attributes=attributes)

    def schedd(self) -> Ad:
        """Return the ad of the pool's schedd, the daemon on the head that has the queue. Raise ServiceError if there is none."""
        chosen = "Name", "Machine", "CondorVersion", "QuadbenchConfiguration"
        for ad in self._ads("condor_status", "-schedd", attributes=chosen):
            return ad
        raise ServiceError("the pool has no schedd at present", transient=True, hint="quadbench farm check")

    def owners(self) -> list[Ad]:
        """Return the accounting records of the pool's users: priority, and slots in use."""
        chosen = "Name", "Priority", "ResourcesUsed", "WeightedAccumulatedUsage"
        constraint = 'MyType == "Accounting" && IsAccountingGroup =!= True'
        return self._ads("condor_status", "-any", *_where(constraint), attributes=chosen)

    def queue(self, *attributes: str, constraint: str = "") -> list[Ad]:
        """Return all users' jobs in the queue."""
        words = "-name", self._schedd_name, "-allusers", *_where(constraint)
        return self._ads("condor_q", *words, attributes=attributes)

    def queued_runs(self) -> dict[str, set[int]]:
        """Return the runs that have a DAG or a job in the queue: a dict from run id to the ids of its jobs that no slot runs."""
        runs = dict[str, set[int]]()
        constraint = f"QuadbenchRun =!= undefined && {_IN_QUEUE}"
        for ad in self.queue("QuadbenchRun", "QuadbenchJob", "JobStatus", constraint=constraint):
            unstarted = runs.setdefault(str(ad.get("QuadbenchRun")), set())
            if ad.get("JobStatus") in _AT_NO_SLOT and isinstance(job := ad.get("QuadbenchJob"), int):
                unstarted.add(job)
        return runs

    def submit(self, folder: Path, description: str) -> None:
        """Submit the job of a submit description, a file in `folder`, with the files that it names, to the pool's head."""
        self.run("condor_submit", "-terse", "-name", self._schedd_name, "-spool", description, folder=folder)

    def remove(self, constraint: str, reason: str) -> None:
        """Remove all jobs that the constraint selects. Running jobs are told to stop first. If there are none, do nothing.
        Raise UserError if the jobs belong to somebody else.
        """
        constraint = f"({constraint}) && {_IN_QUEUE}"
        if not self.queue("Owner", constraint=constraint):
            return
        with suppress(UserError):
            if self.run("condor_rm", "-name", self._schedd_name, "-reason", one_line(reason), *_where(constraint)):
                return  # without permission, condor_rm may exit with 0, but prints nothing
        if left := self.queue("Owner", constraint=constraint):
            owners = ", ".join(sorted({one_line(str(job.get("Owner"))) for job in left}))
            raise UserError(f"the pool does not let you remove jobs of {owners}", hint="ask them")

    def drain(self, host: str, *, undo: bool) -> None:
        """Let a host's slots start no more jobs, and tell those that run to stop; or let its slots start jobs again.

        Raises:
            UserError: this user has no token of a host, by which the pool lets hosts be drained.
            UnknownNameError: the pool has no such host.
        """
        if not (self._host_token_folder.is_dir() and any(self._host_token_folder.iterdir())):
            raise UserError("only a user with a host's token may drain hosts", hint="as the user that runs the pool, at the head")
        slots = {str(ad.get("Machine")): str(ad.get("Name")) for ad in self.slots("Machine", "Name")}
        if host not in slots:
            raise UnknownNameError("host of the pool", host, sorted(slots))
        # condor_drain finds a slot in the collector. Given a host's name, it would ask the name service.
        self.run("condor_drain", "-cancel" if undo else "-graceful", slots[host], as_host=True)

    def value(self, name: str) -> str:
        """Return a setting of the configuration, or "" if it is not set."""
        try:
            return self.run("condor_config_val", name).strip()
        except UserError:  # it is not defined
            return ""

    def tokens(self) -> Path:
        """Return the folder of this user's tokens. Raise UserError if the configuration is not quadbench's and names none."""
        if not (folder := self.value("SEC_TOKEN_DIRECTORY")):
            raise UserError(f"'{self.configuration}' names no folder of tokens", hint="write it by: quadbench farm init")
        return Path(folder)

    def run(self, tool: str, *words: str, folder: Path | None = None, as_host: bool = False) -> str:
        """Run one of HTCondor's tools, and return what it printed. With `as_host`, use the token of this host's daemons."""
        if (program := find_program(tool)) is None:
            raise MissingDependencyError(f"a farm needs HTCondor: {tool} is not found", hint=f"apt-get install {PACKAGE}")
        tokens = {"_CONDOR_SEC_TOKEN_DIRECTORY": str(self._host_token_folder)} if as_host else {}
        try:
            done = subprocess.run(
                [program, *words],
                env={**os.environ, CONFIG_VARIABLE: str(self.configuration), **tokens},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ServiceError(f"{tool} got no answer from the pool in {_TIMEOUT_S:g} s", transient=True) from error
        if len(done.stdout) > _MOST_OUTPUT_BYTES:
            raise ArtifactError(f"{tool} printed {len(done.stdout)} bytes; expected at most {_MOST_OUTPUT_BYTES}")
        if done.returncode != 0:
            raise _failure(tool, (done.stderr or done.stdout).decode(errors="replace"), as_host=as_host)
        return done.stdout.decode(errors="replace")

    @cached_property
    def identity(self) -> str:
        """Return what tells the pool from others: its head, and the path of its configuration there."""
        head = self.schedd()
        return one_line(f"{head.get('Machine')}:{head.get('QuadbenchConfiguration')}")

    @cached_property
    def _schedd_name(self) -> str:  # a setting, so it is asked once
        return str(self.schedd().get("Name"))

    @property
    def _host_token_folder(self) -> Path:
        return self.configuration.parent / "host-tokens.d"

    def _ads(self, tool: str, *words: str, attributes: Sequence[str]) -> list[Ad]:
        chosen = ("-attributes", ",".join(attributes)) if attributes else ()
        text = self.run(tool, *words, "-json", *chosen).strip() or "[]"  # no result is no text at all
        try:
            return _ADS.validate_json(text)
        except ValidationError as error:
            raise ArtifactError(f"{tool} printed no list of ads: {first_problem(error)}") from error


def pool_folder() -> Path:
    """Return the folder where `quadbench farm init` keeps this user's part of a pool: its configuration, keys and tokens."""
    return Path.home() / ".quadbench" / "pool"


def this_pool() -> Condor:
    """Return the pool that this user belongs to. Raise UserError if none is configured, or its configuration is not a file."""
    named = path_variable(CONFIG_VARIABLE)
    path = named or pool_folder() / "condor_config"
    if not path.is_file():
        what = f"${CONFIG_VARIABLE} names '{path}', which does not exist" if named else "no pool is configured for this user"
        raise UserError(f"{what}, and a farm needs one", hint="on each host: quadbench farm init; see docs/farm.md")
    return Condor(configuration=path)


def read_ad(path: Path) -> dict[str, str | int]:
    """Read the ad that HTCondor puts into a job's folder. Return its whole numbers and texts; other values are left out.
    Raise ArtifactError if the file cannot be read.
    """
    try:
        with path.open(errors="replace", newline="\n") as file:
            attributes = _ATTRIBUTE.findall(file.read(_MOST_AD_CHARACTERS))
    except OSError as error:
        raise ArtifactError(f"'{path}' cannot be read: {error.strerror}", hint="HTCondor starts this command") from error
    return {name: int(number) if number else text.replace('\\"', '"') for name, text, number in attributes}


def quoted(text: str) -> str:
    """Return a text as a string in a ClassAd. Only quotes are escaped: HTCondor's tools take other backslashes literally.

    Within an expression, the text may not end with a backslash.
    """
    return '"' + text.replace('"', '\\"') + '"'


def _where(constraint: str) -> Sequence[str]:
    return ("-constraint", constraint) if constraint else ()


def _failure(tool: str, text: str, *, as_host: bool) -> QuadbenchError:
    """Return the error of a tool by what it printed. `as_host`: it used the token of this host's daemons, and no person's."""
    said = one_line(text.strip().removeprefix(f"{tool}: "), _MOST_SAID).rstrip(" .") or "it said nothing"
    text = " ".join(text.split())  # the tools break lines within sentences
    if _NO_ROOT.search(text):
        hint = "use a token of a person: quadbench farm token NAME, at the head; see docs/farm.md"
        return UserError("the pool takes no jobs of root, and the token here is root's", hint=hint)
    if _NO_TOKEN.search(text) and not as_host:
        hint = f"what is wrong with each: quadbench farm check; make one: {NEW_TOKEN}"
        return UserError(f"the pool accepts no token of this user ({tool}: {said})", hint=hint)
    if _REFUSED.search(text):
        return UserError(f"the pool refuses this user: {tool}: {said}", hint="which token is needed: quadbench farm check")
    if _UNREACHABLE.search(text):
        return ServiceError(f"the pool does not answer: {tool}: {said}", transient=True, hint="quadbench farm check")
    return UserError(f"{tool} failed: {said}")
