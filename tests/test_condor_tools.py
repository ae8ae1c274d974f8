"""HTCondor's tools: what they print becomes ads, or an error that says whose fault it is; ads in files are read with care."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.sentences import raising

from quadbench.errors import ArtifactError, MissingDependencyError, QuadbenchError, ServiceError, UserError
from quadbench.farm import condor
from quadbench.farm.condor import Condor, quoted, read_ad, this_pool

_AUTHENTICATE = (
    "AUTHENTICATE:1003:Failed to authenticate with any method\nAUTHENTICATE:1004:Failed to authenticate using IDTOKENS\n"
)
_DENIED = 'SECMAN:2010:Received "DENIED" from server for user condor@password using method IDTOKENS.\n'
_NO_SCHEDD = """\
Error: (null)

Extra Info: You probably saw this error because the condor_schedd is not
running on the machine you are trying to query. If the condor_schedd is not
running, the Condor system will not be able to find an address and port to
connect to and satisfy this request.
"""
_NO_COLLECTOR = """\
Error: Couldn't contact the condor_collector on 127.0.0.1:9.

Extra Info: the condor_collector is a process that runs on the central
manager of your Condor pool and collects the status of all the machines
"""
_ROOT = 'ERROR: Failed to commit job submission into the queue.\nERROR: Setting job owner to "root" is not permitted\n'
SAID = {  # what Debian's HTCondor 23.9.6 says on stderr
    "status, no token": ("condor_status", f"Error: communication error\n{_AUTHENTICATE}", "token"),
    "q, no token": ("condor_q", f"-- Failed to fetch ads from: <127.0.0.1:9618> : vm\n{_AUTHENTICATE}", "token"),
    "submit, no token": ("condor_submit", f"ERROR: Failed to connect to local queue manager\n{_AUTHENTICATE}", "token"),
    "status, no file of a token": (
        "condor_status",
        "Error: communication error\nSECMAN:2002:Configuration Problem: The security policy is invalid.\n",
        "token",
    ),
    "rm, no token": ("condor_rm", f"{_AUTHENTICATE}No result found for job 1.0\n", "token"),
    "at the head, no token": ("condor_q", _DENIED, "token"),
    "a person that may not": ("condor_q", _DENIED.replace("condor@password", "ben@quadbench"), "refuses"),
    "another's job": ("condor_rm", "Permission denied to remove job 87.0\n", "refuses"),
    "root": ("condor_submit", _ROOT, "root"),
    "status, no collector": (
        "condor_status",
        "Error: communication error\nCEDAR:6001:Failed to connect to <127.0.0.1:9>\n",
        "answer",
    ),
    "q, no collector": ("condor_q", _NO_COLLECTOR, "answer"),
    "q, no schedd": ("condor_q", _NO_SCHEDD, "answer"),
    "submit, no schedd": ("condor_submit", "\nERROR: Can't find address of schedd quadbench@\n", "answer"),
    "rm, no schedd": ("condor_rm", "Error: cannot get address of schedd \n", "answer"),
    "rm, no daemon here": ("condor_rm", "condor_rm: (null)\n", "answer"),
    "qedit, no schedd": ("condor_qedit", "Failed to connect to queue manager <127.0.0.1:9618>\n", "answer"),
    "a frozen schedd": ("condor_q", "SECMAN:2007:Read failure during security negotiation.\n", "answer"),
    "an unknown job": ("condor_rm", "Couldn't find/remove all jobs in cluster 99999\n", "failed"),
    "a bad description": ("condor_submit", "ERROR: on Line 2 of submit file:\n", "failed"),
    "no configuration": (
        "condor_q",
        'File specified in CONDOR_CONFIG environment variable:\n"/nonexistent" does not exist.\n',
        "failed",
    ),
    "nothing": ("condor_q", "", "failed"),
}
ERRORS = {"token": UserError, "refuses": UserError, "root": UserError, "answer": ServiceError, "failed": UserError}


@dataclass(frozen=True)
class Tools:
    """Tools of HTCondor in a folder that is the whole PATH. They print what a test has recorded, and note their words."""

    folder: Path

    def print(self, name: str, out: str = "", err: str = "", code: int = 0) -> None:
        for stream, text in (("out", out), ("err", err)):
            (self.folder / f"{name}.{stream}").write_text(text)
        script = f"""#!/bin/sh
cd "$(/usr/bin/dirname "$0")"
for word; do printf '%s\\n' "$word"; done >{name}.words
printf '%s\\n' "$CONDOR_CONFIG" "$_CONDOR_SEC_TOKEN_DIRECTORY" >{name}.environment
/bin/cat {name}.out
/bin/cat {name}.err >&2
exit {code}
"""
        (self.folder / name).write_text(script)
        (self.folder / name).chmod(0o755)

    def words(self, name: str) -> list[str]:
        """Return the words with which a tool was called last."""
        return (self.folder / f"{name}.words").read_text().splitlines()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("_CONDOR_SEC_TOKEN_DIRECTORY", raising=False)
    return Tools(tmp_path / "bin")


@pytest.fixture
def pool(tmp_path: Path) -> Condor:
    return Condor(configuration=tmp_path / "pool" / "condor_config")


@pytest.mark.parametrize("case", SAID)
def test_what_a_tool_says_becomes_an_error_that_says_whose_fault_it_is(tools: Tools, pool: Condor, case: str) -> None:
    tool, said, meaning = SAID[case]
    tools.print(tool, err=said, code=1)
    with raising(ERRORS[meaning], meaning) as caught:
        pool.run(tool)
    error = caught.value
    assert isinstance(error, QuadbenchError)
    assert type(error) is ERRORS[meaning]
    assert error.transient == (meaning == "answer")
    assert "\n" not in str(error)


def test_an_error_that_a_tool_prints_elsewhere_or_at_length_is_bounded_and_no_markup(tools: Tools, pool: Condor) -> None:
    tools.print("condor_q", out="\x1b[31mred\n\x07" + "x" * 100_000, code=1)
    with raising(UserError, "red / \\x07xxx", snapshot=False) as caught:
        pool.run("condor_q")
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_a_tool_that_is_missing_names_its_package(tools: Tools, pool: Condor) -> None:
    with raising(MissingDependencyError, "condor_status", "apt-get install condor"):
        pool.slots()
    tools.print("condor_status")
    (tools.folder / "condor_status").chmod(0o644)
    with raising(MissingDependencyError, "condor_status"):
        pool.slots()


def test_a_tool_that_does_not_end_is_ended(tools: Tools, pool: Condor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condor, "_TIMEOUT_S", 0.2)
    (tools.folder / "condor_q").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    (tools.folder / "condor_q").chmod(0o755)
    with raising(ServiceError, "condor_q") as caught:
        pool.run("condor_q")
    assert isinstance(caught.value, ServiceError)
    assert caught.value.transient


def test_a_tool_gets_the_pool_s_configuration_and_a_host_s_token_only_if_asked_to(
    tools: Tools, pool: Condor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDOR_CONFIG", "/another")
    tools.print("condor_status")
    said = tools.folder / "condor_status.environment"
    pool.run("condor_status", "a b", "$HOME")
    assert tools.words("condor_status") == ["a b", "$HOME"]
    assert said.read_text() == f"{pool.configuration}\n\n"
    pool.run("condor_status", as_host=True)
    assert said.read_text() == f"{pool.configuration}\n{pool.configuration.parent / 'host-tokens.d'}\n"


# What is printed


@pytest.mark.parametrize("nothing", ["", "\n", " \n\n"])
def test_no_text_is_no_ads(tools: Tools, pool: Condor, nothing: str) -> None:
    tools.print("condor_status", nothing)
    assert pool.slots("Name") == []
    with raising(ServiceError, "no schedd"):
        pool.schedd()


@pytest.mark.parametrize("text", ["[", "x", "{}", "3", "[1]", '[{"a": 1}, null]', "[" * 100_000, "9" * 5000])
def test_what_is_no_list_of_ads_is_refused(tools: Tools, pool: Condor, text: str) -> None:
    tools.print("condor_status", text)
    with raising(ArtifactError, "condor_status", snapshot=False):
        pool.slots()


def test_too_much_is_refused(tools: Tools, pool: Condor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condor, "_MOST_OUTPUT_BYTES", 10)
    tools.print("condor_status", "[{}]".ljust(10))
    assert pool.slots() == [{}]
    tools.print("condor_status", "[{}]".ljust(11))
    with raising(ArtifactError, 10, 11, snapshot=False):
        pool.slots()


def test_bytes_that_are_no_text_are_replaced(tools: Tools, pool: Condor) -> None:
    tools.print("condor_status")
    (tools.folder / "condor_status.out").write_bytes(b'[{"Name": "a\xff"}]')
    assert pool.slots() == [{"Name": "a�"}]


def test_queries_name_what_they_want(tools: Tools, pool: Condor) -> None:
    tools.print("condor_status", json.dumps([{"Name": "quadbench@head"}]))
    tools.print("condor_q", json.dumps([{"QuadbenchRun": "run-b"}, {"QuadbenchRun": "run-a"}, {"QuadbenchRun": "run-b"}]))
    assert set(pool.queued_runs()) == {"run-a", "run-b"}
    constraint = "QuadbenchRun =!= undefined && JobStatus != 3 && JobStatus != 4"
    chosen, named = "QuadbenchRun,QuadbenchJob,JobStatus", ["-name", "quadbench@head", "-allusers"]
    assert tools.words("condor_q") == [*named, "-constraint", constraint, "-json", "-attributes", chosen]
    pool.slots("Name", "Machine", constraint='Name == "x"')
    assert tools.words("condor_status") == ["-constraint", 'Name == "x"', "-json", "-attributes", "Name,Machine"]


def test_a_removal_asks_first_and_gives_its_reason_on_one_line(tools: Tools, pool: Condor) -> None:
    tools.print("condor_status", json.dumps([{"Name": "quadbench@head"}]))
    tools.print("condor_q")
    pool.remove("QuadbenchJob == 1", "why")  # condor_rm is not even there
    tools.print("condor_q", '[{"Owner": "ana"}]')
    tools.print("condor_rm", "All jobs matching constraint (...) have been marked for removal\n")
    pool.remove("QuadbenchJob == 1 || QuadbenchJob == 2", "no\nlonger")
    chosen = "(QuadbenchJob == 1 || QuadbenchJob == 2) && JobStatus != 3 && JobStatus != 4"  # nothing that is being removed
    assert tools.words("condor_q")[-5:] == ["-constraint", chosen, "-json", "-attributes", "Owner"]
    assert tools.words("condor_rm") == ["-name", "quadbench@head", "-reason", "no / longer", "-constraint", chosen]


@pytest.mark.parametrize("code", [0, 1])
def test_jobs_that_stay_after_a_removal_are_somebody_else_s(tools: Tools, pool: Condor, code: int) -> None:
    """Without permission, condor_rm says that there are no such jobs, and may exit with 0."""
    tools.print("condor_status", json.dumps([{"Name": "quadbench@head"}]))
    tools.print("condor_q", json.dumps([{"Owner": "ben"}, {"Owner": "ana\n[b]"}, {"Owner": "ben"}]))
    tools.print("condor_rm", err="condor_rm:0:There are no jobs in the queue\n", code=code)
    with raising(UserError, "jobs of ana / [b], ben"):
        pool.remove("true", "why")


def test_a_pool_is_told_from_others_by_its_head_and_the_configuration_there(tools: Tools, pool: Condor) -> None:
    tools.print("condor_status", json.dumps([{"Name": "quadbench@head", "Machine": "head", "QuadbenchConfiguration": "/a\n/b"}]))
    assert pool.identity == "head:/a / /b"


def test_a_setting_is_its_text_or_empty(tools: Tools, pool: Condor) -> None:
    tools.print("condor_config_val", "/lab/tokens.d\n")
    assert pool.value("SEC_TOKEN_DIRECTORY") == "/lab/tokens.d"
    tools.print("condor_config_val", err="Not defined: SEC_TOKEN_DIRECTORY\n", code=1)
    assert pool.value("SEC_TOKEN_DIRECTORY") == ""


def test_a_user_s_pool_is_named_by_the_environment_or_lies_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CONDOR_CONFIG", raising=False)
    with raising(UserError, "no pool is configured"):
        this_pool()
    at_home = tmp_path / ".quadbench" / "pool" / "condor_config"
    at_home.parent.mkdir(parents=True)
    at_home.touch()
    assert this_pool().configuration == at_home
    monkeypatch.setenv("CONDOR_CONFIG", str(tmp_path / "gone"))
    with raising(UserError, "$CONDOR_CONFIG", "gone"):
        this_pool()


# Ads in files


def test_an_ad_s_texts_and_whole_numbers_are_read_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / ".job.ad"
    path.write_text(r"""QuadbenchJob = 12
Minus = -3
Empty = ""
Text = "a \"quoted\" b"
Backslash = "a\b"
Both = "a\\"b"
Last = "end\"
Escape = "\x1b[31m"
Equals = "a = b"
Ünï = "ü 🙂"
Real = 1.5
Truth = true
Nothing = undefined
Sum = "a" + "b"
Half = "a
Quote = "
Huge = 99999999999999999999
Arabic = ١
NoSpaces="x"
= "nameless"
""")
    assert read_ad(path) == {
        "QuadbenchJob": 12,
        "Minus": -3,
        "Empty": "",
        "Text": 'a "quoted" b',
        "Backslash": r"a\b",
        "Both": r"a\"b",
        "Last": "end\\",
        "Escape": r"\x1b[31m",
        "Equals": "a = b",
        "Ünï": "ü 🙂",
    }


def test_a_text_of_an_ad_begins_no_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / ".job.ad"
    path.write_bytes("".join(f'A{n} = "x{end}QuadbenchJob = {n}"\n' for n, end in enumerate("\r\v\f\x1c\x85\u2028")).encode())
    assert "QuadbenchJob" not in read_ad(path)


def test_a_file_that_is_no_ad_is_read_as_far_as_it_goes_or_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / ".job.ad"
    path.write_bytes(b"\xff\x00\xfe = 3\nA = 1\n")
    assert read_ad(path)["A"] == 1
    path.write_text("A = 1\n" + "x" * 2**20 + "\nB = 2\n")
    assert read_ad(path) == {"A": 1}
    for wrong in (tmp_path, tmp_path / "gone"):
        with raising(ArtifactError, str(wrong), snapshot=False):
            read_ad(wrong)


def test_an_endless_file_is_not_read_to_its_end() -> None:
    assert read_ad(Path("/dev/zero")) == {}


# With the tools themselves


@pytest.fixture
def real_pool(tmp_path: Path) -> Condor:
    """A pool with HTCondor's own tools and without any daemon."""
    configuration = tmp_path / "condor_config"
    configuration.write_text(
        f"RELEASE_DIR = /usr\nLOCAL_DIR = {tmp_path}\nLOG = {tmp_path}\nLOCAL_CONFIG_FILE =\nLOCAL_CONFIG_DIR =\n"
        "CONDOR_HOST = 127.0.0.1\nCOLLECTOR_HOST = 127.0.0.1:9\n"
    )
    pool = Condor(configuration=configuration)
    try:
        pool.value("LOCAL_DIR")
    except MissingDependencyError:
        pytest.skip("HTCondor is not installed: apt-get install --no-install-recommends condor")
    return pool


def test_a_pool_without_daemons_does_not_answer(real_pool: Condor, tmp_path: Path) -> None:
    (tmp_path / "a.sub").write_text("executable = /bin/true\nqueue\n")
    for command in (
        ("condor_status", "-json"),
        ("condor_q", "-allusers", "-json"),
        ("condor_q", "-name", "quadbench@", "-allusers", "-json"),
        ("condor_submit", "-terse", "-name", "quadbench@", "-spool", "a.sub"),
        ("condor_rm", "-constraint", "true"),
        ("condor_rm", "-name", "quadbench@", "-constraint", "true"),
    ):
        with raising(ServiceError, command[0], snapshot=False) as caught:
            real_pool.run(*command, folder=tmp_path)
        assert isinstance(caught.value, ServiceError)
        assert caught.value.transient, command


@pytest.mark.parametrize("text", ['a "quoted" b', r"a\b", r"a\"b", r"\x1b[31m", "ü 🙂", "", "end\\"])
def test_a_quoted_text_is_the_same_text_for_the_tools(real_pool: Condor, tmp_path: Path, text: str) -> None:
    (tmp_path / "ads").write_text(f'MyType = "Machine"\nName = "slot1"\nText = {quoted(text)}\n\n')
    (ad,) = json.loads(real_pool.run("condor_status", "-ads", "ads", "-json", "-attributes", "Text", folder=tmp_path))
    assert ad["Text"] == read_ad(tmp_path / "ads")["Text"] == text
    if text.endswith("\\"):  # only a line's last text can end so
        return
    found = real_pool.run("condor_status", "-ads", "ads", "-constraint", f"Text == {quoted(text)}", "-json", folder=tmp_path)
    assert [ad["Text"] for ad in json.loads(found)] == [text]
