"""What is handed to users: the wheel holds everything, and the single file runs with nothing else around it."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from replayforge.serve_process import ServeProcess
from tests.support.daemon_process import REPOSITORY, HttpClient, until

BARE_PYTHON = (sys.executable, "-S")  # without the packages that are installed here
SOURCES = ("replayforge", "static", "pyproject.toml", "README.md")
HANDLERS = """
from replayforge import Handlers

handlers = Handlers()


@handlers.on("greet")
async def greet(event, ctx):
    return {"greeting": f"Hello, {event.payload['name']}"}
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what is packaged and the wheel of it, built once for all processes that run tests."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "package"
    shared.mkdir(exist_ok=True)
    with once(shared, "wheel-done") as first:
        if first:
            copy_source(shared / "source")
            # That it names what builds it is shown by whoever installs it from source, at the cost of an environment.
            options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(shared / "wheel")]
            pip("wheel", str(shared / "source"), *options)
    return shared


@contextmanager
def once(shared: Path, name: str) -> Iterator[bool]:
    """Tell whether this process is the first that came to the end of this; the others wait for it."""
    done = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not done.exists()
        done.touch()


def copy_source(copy: Path) -> None:
    """Make a clean copy of what is packaged, so that building leaves nothing in the checkout."""
    for name in SOURCES:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, copy / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, copy / name)


def wheel_in(built: Path) -> Path:
    """Return the one wheel."""
    (path,) = (built / "wheel").glob("*.whl")
    return path


def single_file_of(wheel: Path, made: Path) -> None:
    """Do what `shiv -c replayforge -o replayforge.pyz .` does, with the wheel that is built already.

    What the wheel says it needs is taken from where it is installed: to choose among all versions that an index has
    takes pip longer than everything else.
    """
    made.parent.mkdir(exist_ok=True)
    packages = made.parent / "packages"
    for one in needed(wheel):
        copy_installed(one, packages)
    options = ["-q", "-c", "replayforge", "-o", str(made), "--uncompressed", "--no-compile"]
    build([sys.executable, "-m", "shiv", *options, "--site-packages", str(packages), "--no-deps", str(wheel)])


def needed(wheel: Path) -> list[Distribution]:
    """Return what the wheel says that it needs, and what that needs in turn, as it is installed."""
    found: dict[str, Distribution] = {}
    seen: set[str] = set()
    (metadata,) = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA")]
    lines = zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
    wanted = list(wanted_by([line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")], set()))
    while wanted:
        one = wanted.pop()
        if str(one) not in seen:
            seen.add(str(one))
            found[one.name] = distribution(one.name)
            assert one.specifier.contains(found[one.name].version), one
            wanted += wanted_by(found[one.name].requires or [], one.extras)
    return list(found.values())


def wanted_by(lines: list[str], extras: set[str]) -> Iterator[Requirement]:
    """Yield the requirements that hold here, with these extras."""
    for one in map(Requirement, lines):
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield one


def copy_installed(one: Distribution, directory: Path) -> None:
    """Copy what a distribution has put among the packages."""
    for file in one.files or []:
        if ".." not in file.parts and file.suffix != ".pyc":
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file.locate(), directory / file)


@pytest.fixture(scope="session")
def source(built: Path) -> Path:
    return built / "source"


@pytest.fixture(scope="session")
def wheel(built: Path) -> zipfile.ZipFile:
    """The wheel, built as pip builds it."""
    return zipfile.ZipFile(wheel_in(built))


@pytest.fixture(scope="session")
def single_file(built: Path) -> Path:
    path = built / "single" / "replayforge.pyz"
    with once(built, "single-done") as first:
        if first:
            single_file_of(wheel_in(built), path)
    return path


def pip(*arguments: str) -> None:
    """Run pip."""
    build([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments])


def build(command: list[str]) -> None:
    """Run a command that builds; skips the test, and says so, where there is no pip."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named pip" in done.stdout + done.stderr:
        pytest.skip("there is no pip in this environment, so nothing can be built")
    assert done.returncode == 0, done.stdout + done.stderr


def bare_environment(single_file: Path, directory: Path) -> dict[str, str]:
    """Return the environment of somebody who has only the file, which is unpacked at its first use."""
    return {"PATH": os.environ["PATH"], "HOME": str(directory), "SHIV_ROOT": str(single_file.parent / "unpacked")}


@contextmanager
def served(single_file: Path, directory: Path, *options: str) -> Iterator[HttpClient]:
    """Run `serve` from the single file on a free port."""
    command = [*BARE_PYTHON, str(single_file), "serve", "--port", "0", "--data-dir", "data", *options]
    with (directory / "stderr.txt").open("w") as stderr:
        started = subprocess.Popen(
            command, cwd=directory, stdout=subprocess.PIPE, stderr=stderr, env=bare_environment(single_file, directory)
        )
    process = ServeProcess(started)
    try:
        client = HttpClient(process.wait_listening())
        yield client
        client.close()
    finally:
        process.kill()


def packaged_files(source: Path) -> set[str]:
    """Return the files of the checkout as they are named in the wheel."""
    inside = {str(path.relative_to(source)) for path in source.glob("replayforge/**/*") if path.is_file()}
    static = {f"replayforge/{path.relative_to(source)}" for path in source.glob("static/**/*") if path.is_file()}
    return inside | static


def test_the_wheel_holds_every_file(source: Path, wheel: zipfile.ZipFile) -> None:
    """Every file of the package, and every static file, is in the wheel with its own bytes, and nothing else is."""
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == packaged_files(source)
    sql = "replayforge/stores/sql/sqlite.sql"
    assert wheel.read(sql) == (source / sql).read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "replayforge/static/css/base.css",
        "replayforge/static/js/main.js",
        "replayforge/web/templates/layout.html",
        "replayforge/stores/sql/sqlite.sql",
        "replayforge/stores/sql/sqlite/0001_initial.sql",
        "replayforge/forgelog/FORMAT.md",
    ],
)
def test_the_wheel_holds_what_is_no_python(wheel: zipfile.ZipFile, name: str) -> None:
    """Static files, templates, SQL and the description of the log on disk travel with the code."""
    assert name in wheel.namelist()


@pytest.mark.slow
def test_the_single_file_says_its_version(single_file: Path, tmp_path: Path) -> None:
    """`version` of the single file is the version of the package."""
    command = [*BARE_PYTHON, str(single_file), "version"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=bare_environment(single_file, tmp_path)
    )
    number = re.search(r'^version = "(.+)"$', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert number is not None
    assert done.stdout.startswith(f"replayforge {number[1]},")


@pytest.mark.slow
def test_the_single_file_serves_its_pages(single_file: Path, tmp_path: Path) -> None:
    """Run from an empty directory it serves a page, and every static file that the page names."""
    with served(single_file, tmp_path) as http:
        page = http.request("GET", "/", headers={"Accept": "text/html"})
        assert page.status == 200
        named = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.body.decode())
        assert any(path.endswith(".css") for path in named)
        assert any(path.endswith(".js") for path in named)
        for path in named:
            answer = http.request("GET", path)
            assert (answer.status, bool(answer.body)) == (200, True), path


@pytest.mark.slow
def test_the_single_file_runs_handlers_from_a_file(single_file: Path, tmp_path: Path) -> None:
    """An event sent to the single file runs through a handler in a file of the user's own."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    with served(single_file, tmp_path, "--handlers", "handlers.py") as http:
        event = {"workflow_id": "w", "event_type": "greet", "payload": {"name": "Zoë"}}
        event_id = http.post("/api/events", event).json()["id"]
        ended = until(lambda: succeeded(http, event_id), what="the event to succeed")
    assert ended["result"] == {"greeting": "Hello, Zoë"}


def succeeded(http: HttpClient, event_id: str) -> dict[str, object] | None:
    event: dict[str, object] = http.get(f"/api/events/{event_id}")
    return event if event["status"] == "succeeded" else None


@pytest.mark.slow
def test_the_single_file_plays_the_demo(single_file: Path, tmp_path: Path) -> None:
    """The demo of the single file starts, kills and restarts its daemon, and adds up."""
    options = ["--events", "60", "--exit-when-done", "--worker-crashes", "0", "--port", "0"]
    done = subprocess.run(
        [*BARE_PYTHON, str(single_file), "demo", *options], capture_output=True, text=True, check=False,
        cwd=tmp_path, env=bare_environment(single_file, tmp_path), timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill -9" in done.stdout
    assert "accepted 72 = " in done.stdout
