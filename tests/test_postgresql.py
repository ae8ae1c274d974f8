"""Records in PostgreSQL: what a server refuses is said by name, and what concurrent processes store is stored once."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.forked import told
from support.postgresql_server import PostgresqlServer
from support.sentences import raising, says
from support.stored_records import query, record, sample

from quadbench.cli import main
from quadbench.errors import ArtifactError, StorageError, UserError
from quadbench.results.engine import DATABASE_VARIABLE, begin_write, database_of, open_engine
from quadbench.results.layout import Layout
from quadbench.results.records import open_records, read_records


@pytest.fixture
def url(postgresql: PostgresqlServer) -> str:
    return postgresql.new_database()


def test_a_server_that_is_not_reached_is_named_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    with raising(StorageError, "postgresql://me:***@/db?host=", snapshot=False) as refusal:
        open_records(f"postgresql://me:secret@/db?host={tmp_path}")
    assert "secret" not in str(refusal.value)


def test_a_server_that_never_answers_is_given_up_after_the_time_that_its_url_allows() -> None:
    pytest.importorskip("psycopg")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://me:secret@127.0.0.1:{silent.getsockname()[1]}/db?connect_timeout=2"
        with raising(StorageError, "connect_timeout") as refusal:
            open_records(url)
    assert "secret" not in str(refusal.value)


def test_a_database_that_is_not_there_is_refused(postgresql: PostgresqlServer) -> None:
    with raising(StorageError, 'database "nowhere" does not exist', snapshot=False):
        open_records(postgresql.url("nowhere"))


def test_a_text_that_is_no_url_is_refused() -> None:
    with raising(UserError):
        open_records("postgresql://host:port/db")


def test_a_user_who_may_not_write_stores_nothing_but_reads(postgresql: PostgresqlServer, url: str) -> None:
    with open_records(url) as records:
        records.store(record())
    with read_records(url) as records:
        with raising(StorageError):
            records.store(record("r2"))
        assert records.run_records("run-a") == (record(),)


def test_a_database_without_tables_is_not_read(url: str) -> None:
    with raising(ArtifactError):
        read_records(url)


def test_tables_that_are_gone_are_damage(url: str) -> None:
    open_records(url).close()
    query(url, "DROP TABLE samples CASCADE")
    with open_records(url) as records, raising(ArtifactError):
        records.store(record())


def test_a_value_that_nothing_has_written_is_damage(url: str) -> None:
    with open_records(url) as records:
        records.store(record())
        query(url, "UPDATE records SET variant = 'shraed'")
        with raising(ArtifactError, "shraed"):
            records.run_records("run-a")


def test_a_text_that_the_server_does_not_take_leaves_nothing(url: str) -> None:
    with open_records(url) as records:
        with raising(ArtifactError):
            records.store(record(reason="a\0b"))
        assert records.run_ids() == []


def test_large_numbers_come_back_as_they_were(url: str) -> None:
    huge = record(samples=(sample(iteration=2**63 - 1, step=2**40, value=1e300, metric="switch_ns"),))
    small = record(samples=(sample(iteration=2**63 - 1, step=2**40),))
    with open_records(url) as records:
        with pytest.raises(ArtifactError):
            records.store(huge)
        records.store(small)
        assert records.run_records("run-a") == (small,)


def test_what_many_store_at_once_is_stored_once(url: str) -> None:
    with open_records(url) as records, ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(records.store, [record()] * 32)) == 1
        assert records.run_records("run-a") == (record(),)


def test_the_variable_says_where_records_are_kept(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DATABASE_VARIABLE, url)
    layout = Layout(tmp_path / "results")
    with open_records(database_of(layout)) as records:
        records.store(record("elsewhere", run_id="of-another-folder"))
    assert main(["report", "--results", str(layout.root)]) == 3
    says(capsys.readouterr().err)
    assert not layout.database.exists()


def test_without_the_extra_the_package_is_named() -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from quadbench.results.records import open_records\n"
        "from quadbench.errors import MissingDependencyError\n"
        "try: open_records('postgresql://host/db')\n"
        "except MissingDependencyError as error: print(error)\n"
    )
    said = told(code)
    says(said, "psycopg", "quadbench[farm]")


def test_records_in_a_file_need_no_driver(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from quadbench.results.records import open_records\n"
        "open_records(sys.argv[1]).close()\n"
        "assert not [name for name in sys.modules if name.startswith('psycopg')]\n"
    )
    told(code, tmp_path / "db.sqlite")


def test_a_client_that_stands_still_in_a_transaction_loses_what_it_has_locked(url: str) -> None:
    frozen = open_engine(url)

    def stand_still() -> None:
        with begin_write(frozen) as held:
            held.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '200ms'")  # not while tables are made
            held.exec_driver_sql("SELECT 1 FROM records FOR UPDATE")
            query(url, "UPDATE records SET launch = 1")  # waits for the lock
            held.exec_driver_sql("SELECT 1")

    with open_records(url) as records:
        records.store(record())
        with pytest.raises(StorageError):
            stand_still()
        assert query(url, "SELECT launch FROM records") == [(1,)]
    frozen.dispose()


def test_a_lock_that_is_not_given_in_time_may_be_given_later(url: str) -> None:
    hasty = open_engine(f"{url}&options=-c%20lock_timeout%3D100ms")
    with open_records(url) as records:
        records.store(record())
        with begin_write(records.engine) as held:
            held.exec_driver_sql("SELECT 1 FROM records FOR UPDATE")
            with raising(StorageError), begin_write(hasty) as late:
                late.exec_driver_sql("UPDATE records SET launch = 1")
    hasty.dispose()
