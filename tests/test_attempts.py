"""An attempt is forked from its host's server, ends as its program ends, and stores nothing once a later attempt has begun."""

import errno
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.sentences import raising, reads, says

from quadbench.dispatch import attempt
from quadbench.dispatch.attempt_client import LENGTH, SERVER_GONE, SERVER_VARIABLE, server_address
from quadbench.dispatch.attempt_server import serving_attempts
from quadbench.errors import ArtifactError, AttemptOverError
from quadbench.farm.dag import JOB_DONE, JOB_FAILED, TRY_AGAIN
from quadbench.farm.job import Job, JobKind, JobState, NewJob
from quadbench.farm.job_status import job_with_attempts
from quadbench.farm.jobs import FarmJobs, Start, locked_attempt
from quadbench.farm.slots import device_need, encoded
from quadbench.host import OWNER_VARIABLE, python_module, user_and_host
from quadbench.results.engine import Source, begin_write

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Served:
    """A server of attempts, which programs reach by their environment."""

    environment: dict[str, str]


@contextmanager
def code_server() -> Iterator[Served]:
    """A server whose attempts run code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[1]))))
        with serving_attempts("support.code_attempts:run_code") as name:
            yield Served({**os.environ, SERVER_VARIABLE: name})


@pytest.fixture(scope="module")
def attempts() -> Iterator[Served]:
    with code_server() as served:
        yield served


def begin(served: Served, folder: Path, code: str, **environment: str) -> subprocess.Popen[str]:
    """Start the program of an attempt that runs this code."""
    (folder / "order").write_text(code)
    settings = {**served.environment, **environment}
    command = python_module("quadbench", "farm", "attempt", "order")
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=settings, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


PID = "import os, time\nprint(os.getpid(), flush=True)\n"


def test_an_attempt_has_the_streams_folder_and_environment_of_its_program_and_a_session_of_its_own(
    attempts: Served, tmp_path: Path
) -> None:
    code = """
import os, sys
print(sys.stdin.read(), os.getcwd(), os.environ["MINE"], "SERVERS" in os.environ, os.getsid(0) == os.getpid())
print("no good", file=sys.stderr)
code = 5
"""
    program = begin(attempts, tmp_path, code, MINE="yes")
    said, errors = program.communicate("hello", PATIENCE_S)
    assert said == f"hello {tmp_path} yes False True\n"
    assert errors == "no good\n"
    assert program.returncode == 5


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("raise SystemExit(7)", 7),
        ("raise SystemExit", 0),
        ("raise SystemExit('a text')", 1),
        ("raise RuntimeError('boom')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    ],
)
def test_a_program_ends_as_its_attempt_does(attempts: Served, tmp_path: Path, code: str, ending: int) -> None:
    program = begin(attempts, tmp_path, code)
    _, errors = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == ending
    assert ("boom" in errors) == ("boom" in code)


def test_a_request_larger_than_a_sockets_buffer_arrives_whole(attempts: Served, tmp_path: Path) -> None:
    large = {f"LARGE_{number}": "x" * 100_000 for number in range(10)}
    program = begin(attempts, tmp_path, "import os; print(sum(name.startswith('LARGE_') for name in os.environ))", **large)
    assert program.communicate(timeout=PATIENCE_S)[0] == "10\n"


def test_a_program_without_standard_streams_has_its_attempt_made(attempts: Served, tmp_path: Path) -> None:
    (tmp_path / "order").write_text("from pathlib import Path; Path('made').write_text('yes'); code = 4")
    words = shlex.join(python_module("quadbench", "farm", "attempt", "order"))
    ended = subprocess.run(["sh", "-c", f"{words} <&- >&- 2>&-"], cwd=tmp_path, env=dict(attempts.environment), check=False)
    assert ended.returncode == 4
    assert (tmp_path / "made").read_text() == "yes"


def test_a_number_of_no_signal_harms_nobody(attempts: Served, tmp_path: Path) -> None:
    (tmp_path / "order").write_text("import time; time.sleep(0.2); code = 6")
    with socket.socket(socket.AF_UNIX) as client, open(os.devnull, "w") as stream:  # noqa: PTH123
        client.connect(server_address(attempts.environment[SERVER_VARIABLE]))
        request = f'{{"order": "{tmp_path}/order", "folder": "{tmp_path}", "environment": {{}}}}'.encode()
        socket.send_fds(client, [LENGTH.pack(len(request))], [stream.fileno()] * 3)
        client.sendall(request + bytes([200, 0, 255]))
        client.settimeout(PATIENCE_S)
        assert client.recv(4) == (6).to_bytes(4, "little")


def test_ctrl_c_reaches_the_attempt_also_if_it_comes_before_the_attempt_begins(attempts: Served, tmp_path: Path) -> None:
    program = begin(attempts, tmp_path, "import time\nprint('begun', flush=True)\ntime.sleep(60)")
    assert program.stdout is not None
    assert program.stdout.readline() == "begun\n"
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 130
    with socket.socket(socket.AF_UNIX) as client, open(os.devnull, "w") as stream:  # noqa: PTH123
        client.connect(server_address(attempts.environment[SERVER_VARIABLE]))
        request = f'{{"order": "{tmp_path}/order", "folder": "{tmp_path}", "environment": {{}}}}'.encode()
        socket.send_fds(client, [LENGTH.pack(len(request))], [stream.fileno()] * 3)
        client.sendall(request + bytes([signal.SIGINT]))
        client.settimeout(PATIENCE_S)
        assert client.recv(4) == (130).to_bytes(4, "little")


def test_an_attempt_whose_program_is_killed_is_killed_with_its_children(attempts: Served, tmp_path: Path) -> None:
    code = f"{PID}import subprocess\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\ntime.sleep(60)"
    program = begin(attempts, tmp_path, code)
    assert program.stdout is not None
    pids = [int(program.stdout.readline()) for _ in range(2)]
    assert all(map(is_alive, pids))
    program.kill()
    killed = time.monotonic()
    wait_until(lambda: not any(map(is_alive, pids)))
    assert time.monotonic() - killed < PATIENCE_S
    program.communicate()


def is_refused(served: Served) -> bool:
    with socket.socket(socket.AF_UNIX) as late:
        return late.connect_ex(server_address(served.environment[SERVER_VARIABLE])) == errno.ECONNREFUSED


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("PPid:")[2].split()[0])


def test_attempts_end_with_their_server_and_may_be_tried_again(tmp_path: Path) -> None:
    with code_server() as served:
        program = begin(served, tmp_path, f"{PID}time.sleep(60)")
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        os.kill(parent_of(parent_of(pid)), signal.SIGKILL)
    _, errors = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == SERVER_GONE
    says(errors, "server")
    wait_until(lambda: not is_alive(pid))


def test_a_server_whose_host_stops_takes_no_more_programs_and_ends_with_its_last_attempt(tmp_path: Path) -> None:
    with code_server() as served:
        program = begin(served, tmp_path, f"{PID}raise SystemExit(int(input()))")
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        server = parent_of(parent_of(pid))
    assert is_alive(pid)
    wait_until(lambda: is_refused(served))
    program.communicate("7\n", timeout=PATIENCE_S)
    assert program.returncode == 7
    wait_until(lambda: not is_alive(server))


DEEP = LENGTH.pack(50_000) + b"[" * 50_000


@pytest.mark.parametrize(
    "sent", [b"", b"\x01", LENGTH.pack(2**31), LENGTH.pack(9) + b"no { JSON", LENGTH.pack(10_000) + b"{", DEEP]
)
def test_a_broken_request_costs_no_other_attempt(attempts: Served, tmp_path: Path, sent: bytes) -> None:
    program = begin(attempts, tmp_path, f"{PID}input()")
    assert program.stdout is not None
    program.stdout.readline()
    with socket.socket(socket.AF_UNIX) as client, open(os.devnull, "w") as stream:  # noqa: PTH123
        client.connect(server_address(attempts.environment[SERVER_VARIABLE]))
        if sent:
            socket.send_fds(client, [sent], [stream.fileno()] * 3)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(PATIENCE_S)
        assert client.recv(4) == b""
    program.communicate("go on\n", PATIENCE_S)
    assert program.returncode == 0


def test_another_user_reaches_no_server(attempts: Served, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can be another user")
    (tmp_path / "order").write_text("print('here')")
    address = server_address(attempts.environment[SERVER_VARIABLE])
    code = f"""
import os, socket
from quadbench.dispatch.attempt_client import LENGTH
os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
client.connect({address!r})
try:
    socket.send_fds(client, [LENGTH.pack(2)], [0, 1, 2])
    client.sendall(b"{{}}")
    print(client.recv(4))
except OSError:
    print(b"")
"""
    settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    said = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True).stdout
    assert said == "b''\n"


def test_without_a_server_the_program_says_so_and_makes_the_attempt_itself(attempts: Served, tmp_path: Path) -> None:
    program = begin(attempts, tmp_path, "no order", **{SERVER_VARIABLE: "nowhere"})
    _, errors = program.communicate(timeout=PATIENCE_S)
    says(errors, "'nowhere'", attempt.MACHINE_AD)
    assert program.returncode == TRY_AGAIN


@pytest.mark.parametrize(("words", "code"), [(("--help",), 0), ((), 2), (("a", "b"), 2), (("--json", "a"), 2), (("",), 2)])
def test_wrong_words_get_the_usage(words: tuple[str, ...], code: int, tmp_path: Path) -> None:
    result = subprocess.run(
        python_module("quadbench", "farm", "attempt", *words), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == code
    reads(result.stdout + result.stderr, "ORDER")


NEED = device_need("phone")


def submit(engine: sa.Engine, most_attempts: int = 3) -> Job:
    new = NewJob(kind=JobKind.MEASURE, needs=NEED, most_attempts=most_attempts)
    (job,) = FarmJobs(engine).submit("run", [new], "ana@lab", "1", lambda jobs: None)
    return job


def write_ads(folder: Path, job: int, start: int, *, serves: str = encoded(NEED), seat: str = '"phone"') -> Path:
    """Write the ads of a job and its slot as HTCondor does, and return the path of the job's."""
    needed = f'QuadbenchNeed = "{encoded(NEED)}"\nRequirements = QuadbenchJob > 0\n'
    (folder / ".job.ad").write_text(f'QuadbenchJob = {job}\nQuadbenchRun = "run"\nNumShadowStarts = {start}\n{needed}')
    results = f'QuadbenchResults = "{folder}/results"\nMachine = "lab-1"\n'
    slot = f'SlotDevice = {seat}\nSlotServes = "other,{serves}"\nSlotAddress = "s25@phone"\nName = "slot1@lab-1"\n'
    (folder / attempt.MACHINE_AD).write_text(results + slot)
    return folder / ".job.ad"


def test_an_attempt_knows_its_job_its_start_and_its_device_from_the_ads(tmp_path: Path) -> None:
    start = Start(job=7, run="run", number=2, seat="phone", host="lab-1")
    assert attempt.read_order(write_ads(tmp_path, 7, 2)) == (start, "s25@phone", tmp_path / "results")


def test_a_slot_that_has_another_device_now_makes_no_attempt(tmp_path: Path) -> None:
    with raising(ArtifactError, "slot1@lab-1", "phone", NEED):
        attempt.read_order(write_ads(tmp_path, 7, 2, serves="device%20tablet"))


@pytest.mark.parametrize("seat", ["7", "undefined", "time()"])
def test_a_slot_without_a_device_is_refused(tmp_path: Path, seat: str) -> None:
    with raising(ArtifactError, ".job.ad"):
        attempt.read_order(write_ads(tmp_path, 7, 2, seat=seat))


def test_an_attempt_that_begins_late_takes_no_number_from_the_one_that_runs(engine: sa.Engine) -> None:
    jobs, new = FarmJobs(engine), submit(engine)
    start = Start(job=new.id, run="run", number=2, seat="phone", host="lab-1")
    current = jobs.begin(start)
    for number in (1, 2):
        with raising(AttemptOverError, "run/1", snapshot=False):
            jobs.begin(replace(start, number=number))
    with begin_write(engine) as connection:
        locked_attempt(connection, current)
    jobs.begin(replace(start, number=3))
    with raising(AttemptOverError, 1, snapshot=False), begin_write(engine) as connection:
        locked_attempt(connection, current)


def test_the_exit_code_says_what_came_of_a_job_also_to_a_start_after_its_end(
    engine: sa.Engine, database: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUADBENCH_DATABASE", str(database) if "://" in str(database) else f"sqlite:///{database}")
    monkeypatch.delenv("QUADBENCH_STORE", raising=False)
    monkeypatch.setenv(OWNER_VARIABLE, "")  # an attempt sets it for its process
    job = submit(engine)
    first = attempt.make_attempt(str(write_ads(tmp_path, job.id, 1)))
    assert first == JOB_FAILED  # no store is named, which no later start mends
    assert user_and_host() == job.owner
    (read,), (only,) = (list(part) for part in (job_with_attempts(engine, job.id)[0].jobs, job_with_attempts(engine, job.id)[1]))
    assert (read.state, read.attempt, only.host, only.seat) == (JobState.FAILED, 1, "lab-1", "phone")
    assert "no store is named" in (only.reason or "")
    assert "no store is named" in (tmp_path / "results" / attempt.LOG_NAME).read_text()
    assert attempt.make_attempt(str(write_ads(tmp_path, job.id, 2))) == JOB_FAILED
    assert attempt.make_attempt(str(write_ads(tmp_path, 999, 1))) == JOB_FAILED  # a job that nobody knows is not started again
    assert attempt.make_attempt(str(tmp_path / "missing")) == TRY_AGAIN
    assert attempt.exit_code(replace(read, state=JobState.DONE)) == JOB_DONE
    assert attempt.exit_code(replace(read, state=JobState.WAITING)) == TRY_AGAIN
    assert len(job_with_attempts(engine, job.id)[1]) == 1


def test_a_program_whose_folder_is_gone_says_so(attempts: Served, tmp_path: Path) -> None:
    words = shlex.join(python_module("quadbench", "farm", "attempt", "/order"))
    (tmp_path / "gone").mkdir()
    command = ["sh", "-c", f"rmdir ../gone; {words}"]
    ended = subprocess.run(
        command, cwd=tmp_path / "gone", env=dict(attempts.environment), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 3
    says(ended.stderr, "folder is gone")


def test_a_frozen_attempt_that_wakes_after_another_has_begun_ends_within_a_second(
    attempts: Served, database: Source, engine: sa.Engine, tmp_path: Path
) -> None:
    start = Start(job=submit(engine).id, run="run", number=1, seat="phone", host="lab-1")
    code = f"""
import time
from functools import partial
from quadbench.dispatch.attempt import stopped_when_over
from quadbench.farm.jobs import FarmJobs, Start, locked_attempt
from quadbench.results.engine import open_engine
import os
from pathlib import Path
engine = open_engine({str(database)!r} if "://" in {str(database)!r} else Path({str(database)!r}))
with stopped_when_over(engine, partial(locked_attempt, attempt=FarmJobs(engine).begin({start}))):
    print(os.getpid(), flush=True)
    time.sleep(60)
"""
    program = begin(attempts, tmp_path, code)
    assert program.stdout is not None
    pid = int(program.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    FarmJobs(engine).begin(replace(start, number=2))
    time.sleep(attempt._STOOD_STILL_S + 0.5)
    assert is_alive(pid)
    os.kill(pid, signal.SIGCONT)
    woken = time.monotonic()
    _, errors = program.communicate(timeout=PATIENCE_S)
    sys.stdout.write(f"ended {time.monotonic() - woken:.2f} s after it woke\n")
    assert program.returncode == -signal.SIGKILL
    assert f"attempt 1 at job {start.job} is over" in errors
