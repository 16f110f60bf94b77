"""`./xp notebook` for real: its environment, its server on loopback, the notebooks in it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.synthetic_run import make_run

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = Path(os.environ.get("DISCOVERY_XP_VENV", REPOSITORY / ".venv"))
MADE_WITHIN_S = 900  # the first time; JupyterLab is fetched


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working directory with results in it."""
    made = tmp_path_factory.mktemp("notebook")
    make_run(made / "results", sites=2, latency_ms=10)
    return made


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Start the server; yield the URL that it prints, token included."""
    log = folder / "log"
    environment = {**os.environ, "JUPYTER_TOKEN": "guessed", **_places(folder)}
    with log.open("w") as output:
        server = subprocess.Popen(
            [REPOSITORY / "xp", "notebook", "results", "--no-browser", "--port", str(free_port())],
            cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            until = time.monotonic() + MADE_WITHIN_S
            while not (found := re.search(r"http://\S+\?token=[0-9a-f]{32,}", log.read_text())):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.5)
            yield found[0]
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            assert server.wait(30) == 0


def _places(folder: Path) -> dict[str, str]:
    """Return the variables that keep Jupyter's own files out of the home of who runs this."""
    names = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    return {name: str(folder / name.lower()) for name in names}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def status_of(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.timeout(MADE_WITHIN_S + 120)
def test_the_server_answers_on_loopback_to_its_token_alone(url: str) -> None:
    place, _, token = url.partition("?token=")
    root = re.match(r"http://127\.0\.0\.1:\d+", place)
    assert root is not None, url
    contents = f"{root[0]}/api/contents/2-paper-tables.ipynb"
    assert status_of(url) == 200
    assert status_of(contents) == 403
    assert status_of(f"{contents}?token=guessed") == 403
    assert status_of(f"{contents}?token={token}") == 200
    said = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    port = root[0].rpartition(":")[2]
    listening = [line.split()[3] for line in said.splitlines()]
    assert [each for each in listening if each.endswith(f":{port}")] == [f"127.0.0.1:{port}"]


def test_a_notebook_that_is_saved_is_paired_with_a_text(url: str, folder: Path) -> None:
    place, _, token = url.partition("?token=")
    root = re.match(r"http://127\.0\.0\.1:\d+", place)
    assert root is not None, url
    address = f"{root[0]}/api/contents/3-latency.ipynb?token={token}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        content = json.loads(answer.read())["content"]
    content["cells"].append(
        {"cell_type": "code", "metadata": {}, "source": "runs[:1]", "outputs": [],
         "execution_count": None, "id": "mine"}
    )  # fmt: skip
    body = json.dumps({"type": "notebook", "format": "json", "content": content}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(address, body, headers, method="PUT"), timeout=30
    ) as answer:
        assert answer.status == 200
    text = (folder / "notebooks-on-results/3-latency.py").read_text()
    assert "# # 3. What latency does\n" in text
    assert text.endswith("# %%\nruns[:1]\n")


def test_the_notebooks_run_in_its_environment(url: str, folder: Path) -> None:
    own = folder / "notebooks-on-results"
    done = subprocess.run(
        [f"{ENVIRONMENT}-notebook/bin/jupyter-execute", "--inplace",
         own / "2-paper-tables.ipynb", own / "1-one-run.ipynb"],
        capture_output=True, text=True, check=False, cwd=own,
        env={**os.environ, **_places(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, said in (("2-paper-tables", "18 of 20"), ("1-one-run", "18 ACTIVE")):
        cells = json.loads((own / f"{name}.ipynb").read_text())["cells"]
        assert said in json.dumps([cell.get("outputs", []) for cell in cells])
