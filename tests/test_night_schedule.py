"""When a night is performed, a folder and a command -> systemd's files and a crontab's line that run that and nothing else."""

import shutil
import subprocess
from pathlib import Path

import pytest
from support.sentences import raising, reads, says

from quadbench.errors import UserError
from quadbench.farm.pool_setup import systemd_unit
from quadbench.nightly.schedule import cron_line, systemd_files

COMMAND = ("/opt/quad bench/quadbench", "nightly", "run", "50%.yaml")


def test_the_timer_is_one_that_systemd_takes(tmp_path: Path) -> None:
    files = systemd_files("phones", ["/bin/true", "50%", "$HOME", 'a"b\\'], tmp_path, "daemon", "2:30")
    assert "OnCalendar=*-*-* 02:30:00" in files["quadbench-night-phones.timer"]
    assert 'ExecStart="/bin/true" "50%%" "$$HOME" "a\\"b\\\\"' in files["quadbench-night-phones.service"]
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not installed")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    result = subprocess.run(
        [analyze, "verify", *(tmp_path / name for name in files)], capture_output=True, text=True, check=False
    )
    assert "quadbench-night-phones" not in result.stderr


def test_the_unit_of_a_pool_runs_its_master_as_a_user_and_takes_no_other_lines() -> None:
    says(systemd_unit("daemon", 90), "ExecStart=/usr/sbin/condor_master -f", "User=daemon", "TimeoutStopSec=90")
    with raising(UserError):
        systemd_unit("me\nExecStartPre=/bin/false")


def test_cron_s_line_is_one_command_of_a_shell() -> None:
    line = cron_line(COMMAND, Path("/srv/it's"), "02:05")
    reads(line, 5, 2, "/srv/it", "/opt/quad bench/quadbench", "50\\%.yaml")


@pytest.mark.parametrize("at", ["24:00", "2", "02:60", "02:00\n* * * * * root", "٠٢:٠٠"])
def test_what_is_no_time_of_day_is_refused(at: str) -> None:
    with raising(UserError, "02:00"):
        cron_line(COMMAND, Path("/srv"), at)


@pytest.mark.parametrize("words", [["a\nb"], ["a\x00"]])
def test_a_word_with_a_line_end_stands_in_no_schedule(words: list[str]) -> None:
    with raising(UserError):
        systemd_files("phones", words, Path("/srv"), "daemon", "02:00")
    with raising(UserError):
        systemd_files("phones", ["true"], Path("/srv"), "me\nExecStartPre=/bin/false", "02:00")
