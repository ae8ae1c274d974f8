"""Device contract: the tests that devices of every family pass; a test module gives the fixture `device`."""

import contextlib
import hashlib
import os
import time
from pathlib import Path

import pytest

from quadbench.devices import Device
from quadbench.devices.device import LINE_LIMIT_BYTES, TAIL_BYTES, TEXT_LIMIT_BYTES
from quadbench.errors import CommandError, CommandTimeoutError, DeviceError, OutputLimitError, UserError
from support.sentences import raising, reads

BIG_BYTES = 50 * 2**20


def wait_until_gone(device: Device, process_id: str) -> None:
    """Fail where a process of the device is still there after five seconds."""
    deadline = time.monotonic() + 5
    while state_of(device, process_id) not in ("", "Z"):
        assert time.monotonic() < deadline, f"process {process_id} still runs"
        time.sleep(0.05)


def state_of(device: Device, process_id: str) -> str:
    """Return the kernel's letter for a process's state; empty if there is no such process, Z if it is dead but not yet buried."""
    state = device.shell(["cat", f"/proc/{process_id}/stat"], 10).stdout
    return state.rpartition(")")[2].split()[0] if state else ""


class DeviceContract:
    def test_facts_name_the_device(self, device: Device) -> None:
        facts = device.facts
        assert (facts.serial, facts.family) == (device.serial, device.family)
        assert all((facts.address, facts.profile, facts.title, facts.soc_model, facts.cpu))

    def test_variables_are_set_for_a_command_alone(self, device: Device) -> None:
        argv = ["sh", "-c", 'echo "$LD_LIBRARY_PATH, $OTHER"']
        variables = {"LD_LIBRARY_PATH": "/data/kits", "OTHER": "two words = 'x'"}
        folder = f"{device.root}/runs/variables"
        assert list(device.stream(argv, 20, folder, variables)) == ["/data/kits, two words = 'x'"]
        assert list(device.stream(argv, 20, folder)) == [", "]

    @pytest.mark.parametrize("size_bytes", [0, 1, 64 * 1024, 64 * 1024 + 1])
    def test_a_file_comes_back_as_it_was_pushed(self, device: Device, tmp_path: Path, size_bytes: int) -> None:
        content = os.urandom(size_bytes)
        (tmp_path / "there").write_bytes(content)
        device.push({f"{device.root}/round/trip": tmp_path / "there"})
        device.pull(f"{device.root}/round/trip", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content

    def test_a_big_file_arrives_whole_and_says_how_far_it_is(self, device: Device, tmp_path: Path) -> None:
        content = os.urandom(BIG_BYTES)
        (tmp_path / "big").write_bytes(content)
        reports: list[int] = []
        device.push({f"{device.root}/big": tmp_path / "big"}, reports.append)
        arrived = device.shell(["sha256sum", f"{device.root}/big"], 60).stdout.split()[0]
        assert arrived == hashlib.sha256(content).hexdigest()
        assert reports == sorted(reports)
        assert len(reports) > 10
        assert reports[-1] == BIG_BYTES

    def test_pushing_replaces_a_file(self, device: Device, tmp_path: Path) -> None:
        for content in (b"first and longer", b"second"):
            (tmp_path / "file").write_bytes(content)
            device.push({f"{device.root}/replaced": tmp_path / "file"})
        assert device.shell(["cat", f"{device.root}/replaced"], 10).stdout == "second"

    @pytest.mark.parametrize("name", ["a b", "it's", 'quo"te', "$HOME;ls", "-rf", "ümläut 日本", "com,ma,33188", "*", "a\\b"])
    def test_odd_names_are_taken_literally(self, device: Device, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_text(name)
        remote = f"{device.root}/odd names/{name}"
        device.push({remote: tmp_path / "file"})
        assert device.shell(["cat", remote], 10).stdout == name
        device.pull(remote, tmp_path / "back")
        assert (tmp_path / "back").read_text() == name

    def test_pulling_what_is_missing_names_it_and_leaves_nothing(self, device: Device, tmp_path: Path) -> None:
        with raising(DeviceError, "No such file"):
            device.pull(f"{device.root}/no-such-file", tmp_path / "back")
        assert list(tmp_path.iterdir()) == []

    def test_pushing_below_a_file_is_an_error(self, device: Device, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        device.push({f"{device.root}/plain": tmp_path / "file"})
        with raising(DeviceError):
            device.push({f"{device.root}/{name}": tmp_path / "file" for name in ("before", "plain/below", "after")})
        assert device.shell(["cat", f"{device.root}/before"], 10).stdout == "x"

    @pytest.mark.parametrize("status", [0, 1, 7, 255])
    def test_the_exit_code_is_the_commands_own(self, device: Device, status: int) -> None:
        assert device.shell(["sh", "-c", f"exit {status}"], 10).exit_code == status

    def test_a_command_killed_by_a_signal_says_so(self, device: Device) -> None:
        assert device.shell(["sh", "-c", "kill -KILL $$"], 10).exit_code == 128 + 9

    def test_a_missing_program_is_exit_code_127(self, device: Device) -> None:
        result = device.shell(["no-such-program"], 10)
        assert result.exit_code == 127
        assert "no-such-program" in result.stderr

    def test_stderr_is_apart_from_stdout(self, device: Device) -> None:
        result = device.shell(["sh", "-c", "echo out; echo err >&2; echo out again"], 10)
        assert result.stderr == "err\n"
        reads(result.stdout)

    def test_arguments_arrive_as_they_are(self, device: Device) -> None:
        arguments = ["a b", "", "$HOME", "it's", "*", "line\nbreak", "\\"]
        assert device.shell(["printf", "[%s]", *arguments], 10).stdout == "".join(f"[{argument}]" for argument in arguments)

    def test_a_command_sees_the_end_of_stdin(self, device: Device) -> None:
        assert device.shell(["cat"], 10).exit_code == 0

    def test_much_output_arrives_whole(self, device: Device) -> None:
        assert device.shell(["seq", "200000"], 30).stdout == "".join(f"{number}\n" for number in range(1, 200001))

    def test_a_command_that_takes_too_long_is_killed(self, device: Device) -> None:
        pids = f"{device.root}/pids"
        with raising(CommandTimeoutError, "sh", "0.5"):
            device.shell(["sh", "-c", f"sleep 60 & echo $$ $! > '{pids}'; wait"], 0.5)
        for process_id in device.shell(["cat", pids], 10).stdout.split():
            wait_until_gone(device, process_id)

    def test_lines_come_while_the_command_still_runs(self, device: Device) -> None:
        lines = device.stream(["sh", "-c", "echo first; sleep 2; echo second"], 10, f"{device.root}/stream")
        times = [time.monotonic() for _ in lines]
        assert times[1] - times[0] > 0.7

    def test_lines_have_no_ends_and_the_last_needs_none(self, device: Device) -> None:
        lines = device.stream(["printf", "one\\n\\nthree ü\\nlast"], 10, f"{device.root}/stream")
        assert list(lines) == ["one", "", "three ü", "last"]

    def test_a_stream_that_fails_gives_its_lines_then_its_exit_code_and_stderr(self, device: Device) -> None:
        lines: list[str] = []
        with raising(CommandError, 3) as caught:
            lines += device.stream(["sh", "-c", "echo 'the reason' >&2; exit 3"], 10, f"{device.root}/stream")
        assert (caught.value.status, caught.value.stderr_tail) == (3, "the reason")

    def test_a_stream_that_takes_too_long_is_killed(self, device: Device) -> None:
        lines: list[str] = []
        with pytest.raises(CommandTimeoutError):
            lines.extend(device.stream(["sh", "-c", "echo $$; sleep 60"], 0.5, f"{device.root}/stream"))
        assert lines == [] or len(lines) == 1

    def test_leaving_a_stream_early_kills_its_processes(self, device: Device) -> None:
        with contextlib.closing(device.stream(["sh", "-c", "sleep 60 & echo $$ $!; wait"], 60, f"{device.root}/stream")) as lines:
            process_ids = next(lines).split()
        for process_id in process_ids:
            wait_until_gone(device, process_id)

    def test_ctrl_c_in_a_stream_kills_its_processes(self, device: Device) -> None:
        lines = device.stream(["sh", "-c", "echo $$; sleep 60"], 60, f"{device.root}/stream")
        process_id = next(lines)
        with pytest.raises(KeyboardInterrupt):
            lines.throw(KeyboardInterrupt)
        wait_until_gone(device, process_id)

    def test_free_space_is_that_of_the_file_system(self, device: Device) -> None:
        device.shell(["mkdir", "-p", device.root], 10)
        assert 2**20 < device.free_bytes(device.root) < 2**60

    def test_free_space_of_a_missing_folder_is_an_error(self, device: Device) -> None:
        with raising(DeviceError):
            device.free_bytes(f"{device.root}/no-such-folder")

    def test_an_empty_command_is_refused(self, device: Device) -> None:
        with raising(UserError):
            device.shell([], 10)

    def test_a_file_that_is_too_large_is_not_copied(self, device: Device, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"12345678")
        device.push({f"{device.root}/limited": tmp_path / "file"})
        device.pull(f"{device.root}/limited", tmp_path / "back", limit_bytes=8)
        (tmp_path / "back").unlink()
        with raising(OutputLimitError, 7):
            device.pull(f"{device.root}/limited", tmp_path / "back", limit_bytes=7)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    @pytest.mark.parametrize(
        "make",
        ["ln -s /dev/zero odd", "mkfifo odd", "mkdir odd", "ln -s plain-file odd", "rm -rf odd && ln -s /no-such-file odd"],
        ids=["endless", "pipe", "folder", "link", "nowhere"],
    )
    def test_what_is_no_regular_file_is_not_copied(self, device: Device, tmp_path: Path, make: str) -> None:
        script = f'mkdir -p "{device.root}" && cd "{device.root}" && rm -rf odd && echo x > plain-file && {make}'
        assert device.shell(["sh", "-c", script], 10).exit_code == 0
        with raising(DeviceError):
            device.pull(f"{device.root}/odd", tmp_path / "back")
        assert list(tmp_path.iterdir()) == []

    def test_a_line_without_end_is_not_read_to_its_end(self, device: Device) -> None:
        lines: list[str] = []
        with raising(OutputLimitError, 2, "sh", LINE_LIMIT_BYTES):
            lines += device.stream(["sh", "-c", "echo first; exec head -c 200000000 /dev/zero"], 60, f"{device.root}/stream")

    def test_long_lines_come_whole_up_to_the_limit(self, device: Device) -> None:
        script = f"head -c {LINE_LIMIT_BYTES} /dev/zero; echo; echo last"
        assert [len(line) for line in device.stream(["sh", "-c", script], 30, f"{device.root}/stream")] == [LINE_LIMIT_BYTES, 4]

    def test_output_without_end_is_not_read_to_its_end(self, device: Device) -> None:
        with raising(OutputLimitError, TEXT_LIMIT_BYTES):
            device.shell(["cat", "/dev/zero"], 60)

    def test_of_much_on_stderr_the_end_is_kept(self, device: Device) -> None:
        result = device.shell(["sh", "-c", "head -c 5000000 /dev/zero >&2; echo last >&2"], 60)
        assert len(result.stderr) == TAIL_BYTES
        assert result.stderr.endswith("last\n")
