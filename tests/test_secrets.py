"""Secrets in URLs: whatever form a database's, a store's or a mirror's URL has, no message shows its password."""

import http.server
import threading
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.sentences import raising

from quadbench.cli import main
from quadbench.errors import QuadbenchError, UserError
from quadbench.farm.store.opening import open_store
from quadbench.kits.packages import MAVEN_VARIABLE, MavenPackage, fetch_package
from quadbench.results.engine import source_name
from quadbench.spec.variables import mask_url, mask_urls_in, web_variable

SECRET = "hunter2"
AROUND = st.text(st.sampled_from("@:/?#%&=+. aZ0é[]\\'\""), max_size=4)
PASSWORDS = st.builds("{}hunter2{}".format, AROUND, AROUND)
SCHEMES = ["postgresql", "postgresql+psycopg", "postgres", "mysql", "sqlite", "s3", "S3", "simplecache::s3", "lab", "file"]
WEB = ["http", "https", "ftp", "HTTPS", "git+https"]
HOSTLESS = ["{scheme}://u:{password}", "{scheme}://u:{password}/x", "user:{password}"]  # an @ or a / would end the password
LOGINS = [
    *HOSTLESS,
    *("{scheme}://u:{password}@127.0.0.1/x", "{scheme}://:{password}@127.0.0.1", "{scheme}://u:{password}@[h/x"),
    *("{scheme}:u:{password}@h/x", "{scheme}:/u:{password}@b", "{scheme}:///u:{password}@h/x"),
    *("u:{password}@h/x", "//u:{password}@h/x", "\t{scheme}://u:{password}@127.0.0.1/x"),
    *("{scheme}://127.0.0.1/x?password={password}", "{scheme}://u:{password}@127.0.0.1:99999999/x"),
    *("{scheme}://u:{password}@127.0.0.1:port/x", "{scheme}://u:{password}@127.0.0.1/" + "x" * 5000),
]
OTHERS = ["{scheme}://{password}@127.0.0.1/x", "{scheme}://127.0.0.1/x#{password}"]
drawn = settings(
    max_examples=150, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def urls(draw: st.DrawFn, forms: Sequence[str], schemes: Sequence[str]) -> str:
    """Draw a URL with a password that contains SECRET, whole or mistyped."""
    form, password = draw(st.sampled_from(forms)), draw(PASSWORDS)
    if form in HOSTLESS:
        password = password.replace("@", "").replace("/", "")
    return form.format(scheme=draw(st.sampled_from(schemes)), password=password)


@drawn
@given(url=urls([*LOGINS, *OTHERS], [*SCHEMES, *WEB]))
def test_a_masked_url_shows_no_password(url):
    assert SECRET not in mask_url(url)


@drawn
@given(url=urls(LOGINS, SCHEMES))
def test_no_form_of_a_databases_url_shows_its_password(url):
    try:
        shown = source_name(url)
    except QuadbenchError as error:
        shown = f"{error} {error.__cause__!r}"
    assert SECRET not in shown


@drawn
@given(url=urls([*LOGINS, *OTHERS], SCHEMES))
def test_no_form_of_a_stores_url_shows_its_password(url):
    with pytest.raises(QuadbenchError) as refused:
        open_store(url)
    assert SECRET not in str(refused.value)


@drawn
@given(url=urls([*LOGINS, *OTHERS], WEB))
def test_no_form_of_a_mirrors_address_shows_its_password(monkeypatch, tmp_path, url):
    monkeypatch.setenv(MAVEN_VARIABLE, url)
    package = MavenPackage(group="a", artifact="b", version="1", sha256="0" * 64)
    with pytest.raises(QuadbenchError) as refused:
        fetch_package(package, tmp_path, archive=web_variable(MAVEN_VARIABLE) or "")
    assert SECRET not in f"{refused.value} {refused.value.__cause__!r}"


@pytest.mark.parametrize("variable", ["QUADBENCH_DATABASE", "QUADBENCH_STORE"])
@pytest.mark.parametrize(
    "url",
    [
        *("postgresql://u:p@hunter2@127.0.0.1:1/x", "postgresql://u:hunter2", "postgresql:u:hunter2@h/x", "s3:/u:hunter2@b"),
        *(
            "simplecache::s3://u:hunter2@b",
            "postgresql://u:hunter2@127.0.0.1:1/x?connect_timeout=2",
            "postgresql://u:hunter2\n@h/x",
            "postgresql:///d?host=/tmp&password=hunter2&port=zz",
            "ftp://u:hunter2#zz@127.0.0.1:1/p",
        ),
    ],
)
def test_no_command_prints_a_password(monkeypatch, tmp_path, capfd, caplog, variable, url):
    monkeypatch.setenv("QUADBENCH_STORE", str(tmp_path))
    monkeypatch.setenv(variable, url)
    for command in (["runs"], ["runs", "--json"], ["devices"], ["farm", "status"], ["store", "status"], ["show", "-v"]):
        main([*command, "--results", str(tmp_path / "results")])
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err + caplog.text


def test_a_database_in_words_of_libpq_is_refused_without_its_password(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("QUADBENCH_DATABASE", "host=127.0.0.1 port=1 user=u password=hunter2")
    assert main(["runs", "--results", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://ana:hunter2@db:5432/lab", "postgresql://***@db:5432/lab"),
        ("https://repo1.maven.org/maven2", "https://repo1.maven.org/maven2"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("s3://bucket/lab?key=hunter2", "s3://bucket/lab?***"),
        ("postgresql://u:hunter2", "postgresql://u:***"),
        ("results/quadbench.sqlite", "results/quadbench.sqlite"),
    ],
)
def test_a_masked_url_still_says_where_it_leads(url, expected):
    assert mask_url(url) == expected


def test_words_beside_a_url_are_left_as_they_are():
    said = "GET 'https://u:t@host/x' failed at 12:30: try mail@example.com or port=443"
    assert mask_urls_in(said) == "GET 'https://***@host/x' failed at 12:30: try mail@example.com or port=443"


def test_a_wrong_proxy_is_named_without_its_password(monkeypatch, tmp_path):
    monkeypatch.setenv("http_proxy", "http:/u:hunter2@proxy:3128")
    package = MavenPackage(group="a", artifact="b", version="1", sha256="0" * 64)
    with pytest.raises(QuadbenchError) as refused:
        fetch_package(package, tmp_path, archive="http://mirror.invalid")
    assert SECRET not in f"{refused.value} {refused.value.__cause__!r}"


def test_a_mirror_with_a_login_is_asked_with_it_and_another_host_without(monkeypatch, tmp_path):
    """A mirror answers who has the login; it sends the request on to another host, which must not see the login."""
    content, seen = b"an archive", []

    class Mirror(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers["Authorization"]))
            if self.path.startswith("/m/"):
                self.send_response(302 if self.headers["Authorization"] else 401)
                self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(MAVEN_VARIABLE, f"http://ana:hunter%402@127.0.0.1:{server.server_port}/m")
        package = MavenPackage(group="a", artifact="b", version="1", sha256=sha256(content).hexdigest())
        assert fetch_package(package, tmp_path, archive=web_variable(MAVEN_VARIABLE) or "").read_bytes() == content
        server.shutdown()
    login = f"Basic {b64encode(b'ana:hunter@2').decode()}"
    assert seen == [("/m/a/b/1/b-1.aar", login), ("/elsewhere", None)]


@pytest.mark.parametrize("url", ["postgresql:u@h/x", "s3:/bucket", "results:old/x.sqlite"])
def test_a_mistyped_url_is_not_taken_for_a_file(url):
    for ask in (source_name, open_store):
        with raising(UserError):
            ask(url)
