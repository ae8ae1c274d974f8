"""Who looks at the live page has the token where there is one, and asks for this host by a name of its own."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from support.live_site import Site, served
from support.sentences import raising, says

pytest.importorskip("starlette")

from quadbench.cli import main
from quadbench.errors import UserError
from quadbench.results.layout import Layout
from quadbench.serve.auth import AccessRules, access_of

TOKEN = "correct-horse-battery-staple"
ANYWHERE = "0.0.0.0"
FORM = {"content_type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served(Layout(tmp_path_factory.mktemp("empty")), AccessRules(token=TOKEN)) as site:
        yield site


@pytest.mark.parametrize("path", ["/live/now", "/metrics"])
def test_a_program_without_the_token_is_refused(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert site.ask(path, authorization=f"Bearer {TOKEN}x").status == 401
    assert site.ask(path, authorization=f"Basic {TOKEN}").status == 401
    assert site.ask(path, cookie=f"quadbench={TOKEN}").status == 401


def test_a_program_with_the_token_is_let_in(site: Site) -> None:
    assert site.ask("/metrics", authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize("path", ["/", "/farm", "/runs/x", "/nothing", "/live.js", "/runs?page=2"])
def test_a_person_without_the_token_is_led_to_where_it_is_asked_for(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert (answer.status, answer.headers["location"]) == (303, f"/sign-in?to={quote(path)}")
    assert site.ask(answer.headers["location"]).status == 200


def test_who_signs_in_is_let_in_by_a_cookie_that_scripts_and_other_sites_do_not_have(site: Site) -> None:
    answer = site.ask("/sign-in", "POST", f"token={TOKEN}&to=%2Ffarm", **FORM)
    assert (answer.status, answer.headers["location"]) == (303, "/farm")
    cookie, *marks = [part.strip().lower() for part in answer.headers["set-cookie"].split(";")]
    assert {"httponly", "samesite=strict", "path=/"} <= set(marks)
    assert TOKEN not in cookie
    assert site.ask("/farm", cookie=cookie).status == 200
    assert site.ask("/farm", cookie=f"{cookie}0").status == 303
    assert "secure" not in marks
    through_tls = site.ask("/sign-in", "POST", f"token={TOKEN}", x_forwarded_proto="https", **FORM)
    assert "secure" in through_tls.headers["set-cookie"].lower()


def test_who_has_another_token_is_told_so(site: Site) -> None:
    answer = site.ask("/sign-in", "POST", "token=wrong", **FORM)
    assert answer.status == 403
    says(answer.text)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "place",
    ["//evil.example", "//[", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/%0d%0aset-cookie:x", '"><b>'],
)
def test_who_signs_in_is_led_nowhere_else(site: Site, place: str) -> None:
    answer = site.ask("/sign-in", "POST", f"token={TOKEN}&to={place}", **FORM)
    assert answer.status == 303
    assert answer.headers["location"] == "/"
    assert "<b>" not in site.ask("/sign-in?to=%22%3E%3Cb%3E").text


def test_a_form_of_megabytes_is_not_read(site: Site) -> None:
    assert site.ask("/sign-in", "POST", "x" * 2**21, **FORM).status == 413
    assert site.ask("/sign-in", "POST", transfer_encoding="chunked", **FORM).status == 411


def test_the_token_is_written_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    access = AccessRules(token=TOKEN)
    with served(Layout(tmp_path), access) as site:
        texts = [site.ask("/farm", authorization=f"Bearer {TOKEN}").text, site.ask("/sign-in").text]
        site.ask(f"/nothing?{TOKEN}", authorization=f"Bearer {TOKEN}")
        site.ask("/sign-in", "POST", f"token={TOKEN}", **FORM)
    assert TOKEN not in repr(access) + caplog.text + "".join(texts)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "127.0.0.1.evil.example"])
def test_a_page_that_is_asked_for_under_a_strange_name_is_not_shown(site: Site, host: str) -> None:
    for path in ("/", "/sign-in"):
        assert site.ask(path, host=host).status == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8642", "127.0.0.1", "[::1]:8642", "192.168.1.7", "lab-1.", "Lab-1:80"])
def test_a_host_is_known_by_its_addresses_and_names(host: str) -> None:
    assert access_of(None, "127.0.0.1", ["lab-1"]).knows_host(host)


@pytest.mark.parametrize("address", [ANYWHERE, "192.168.1.7", "::", "lab-1"])
def test_another_address_than_this_host_s_own_needs_a_token(address: str) -> None:
    with raising(UserError, "QUADBENCH_SERVE_TOKEN"):
        access_of(None, address, [])
    assert access_of(TOKEN, address, []).lets_in(f"Bearer {TOKEN}", "")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_host_alone_needs_none(address: str) -> None:
    assert access_of(None, address, []).lets_in("", "")


@pytest.mark.parametrize("token", ["", "short", "x" * 501, "with\nline-ends-in-it", "ein-tökén-mit-umlauten"])
def test_a_token_that_is_none_is_refused_and_not_repeated(token: str) -> None:
    with raising(UserError, 16, 500) as refusal:
        access_of(token, "127.0.0.1", [])
    assert not token or token not in str(refusal.value)


def command(layout: Layout, *words: object) -> list[str]:
    return [sys.executable, "-m", "quadbench", "serve", "--results", str(layout.root), "--json", "--port", "0", *map(str, words)]


@pytest.mark.parametrize(
    ("end", "before"),
    [
        pytest.param(signal.SIGINT, "", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, "", marks=pytest.mark.slow),
        (signal.SIGINT, "trap '' INT; "),
    ],
)
def test_the_command_serves_until_it_is_asked_to_end(tmp_path: Path, end: signal.Signals, before: str) -> None:
    words = ["sh", "-c", before + 'exec "$@"', "sh", *command(Layout(tmp_path))]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    said = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    port = int(said["url"].rstrip("/").rpartition(":")[2])
    assert said == {"url": f"http://127.0.0.1:{port}/", "needs_token": False}
    assert Site(port).ask("/").status == 200
    process.send_signal(end)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--host", ANYWHERE], "QUADBENCH_SERVE_TOKEN"),
        (["--port", "65536"], "65536"),
        (["--host", "203.0.113.7"], "203.0.113.7"),
    ],
    ids=str,
)
def test_the_command_refuses(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if message in words:
        monkeypatch.setenv("QUADBENCH_SERVE_TOKEN", TOKEN)
    try:
        code = main(["serve", "--port", "0", *words])
    except SystemExit as refusal:
        code = refusal.code
    said = capsys.readouterr()
    assert code == 2
    says(said.err, message)
    assert TOKEN not in said.err + said.out
