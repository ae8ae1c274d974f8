"""S3 for tests: moto's server -> an S3 service on loopback or a lab's host, in a process of its own that ends with the tests."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest

from support.lab import Host, inside

_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(sys.argv[1], 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class S3Server:
    """A server that runs. Each test takes a bucket of its own."""

    def __init__(self, port: int, host: Host | None = None) -> None:
        self._host = host
        self.environment = {
            "AWS_ENDPOINT_URL_S3": f"http://{host.address if host else '127.0.0.1'}:{port}",
            "AWS_ACCESS_KEY_ID": "loopback",
            "AWS_SECRET_ACCESS_KEY": "loopback-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self._numbers = count()

    def new_bucket(self) -> str:
        """Make an empty bucket and return the URL of a folder in it."""
        name = f"bucket{next(self._numbers)}"
        self._call("create_bucket", Bucket=name)
        return f"s3://{name}/lab"

    def deny(self, url: str, action: str) -> None:
        """Let nobody do an action, as `s3:PutObject`, in the bucket of a URL."""
        bucket = url.split("/")[2]
        rule = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": f"arn:aws:s3:::{bucket}/*"}
        self._call("put_bucket_policy", Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [rule]}))

    def _call(self, name: str, **words: Any) -> Any:
        return inside(self._host, lambda: getattr(self._client(), name)(**words))

    def _client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.environment["AWS_DEFAULT_REGION"],
        )


@contextmanager
def running_s3(host: Host | None = None) -> Iterator[S3Server]:
    """Start a server, and stop it at the end; skip the test where moto or obstore is not installed."""
    for package in ("moto", "obstore"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'quadbench[farm,dev]'")
    command = [sys.executable, "-c", _SERVER, host.address if host else "127.0.0.1"]
    process = subprocess.Popen(
        host.command(*command) if host else command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield S3Server(int(process.stdout.readline()), host)
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()
