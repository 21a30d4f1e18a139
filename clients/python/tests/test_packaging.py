"""The wheel and the source archive: what is in them, and that they work in an empty environment."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile

import pytest
from broker_for_tests import Broker
from test_readme import IN_PACKAGING

PACKAGE = pathlib.Path(__file__).resolve().parent.parent


def run(*command: object, **environment: str) -> str:
    """Runs a program that must succeed; says what it printed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=300,
        env={**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory with both archives, and all that installing them may need from elsewhere."""
    shelf = tmp_path_factory.mktemp("shelf")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", shelf, PACKAGE)
    pinned = [
        line
        for line in (PACKAGE / "requirements.txt").read_text().splitlines()
        if line.startswith(("websockets==", "hatchling=="))
    ]
    run(sys.executable, "-m", "pip", "download", "--quiet", "--dest", shelf, *pinned)
    return shelf


def only(shelf: pathlib.Path, pattern: str) -> pathlib.Path:
    (found,) = shelf.glob(pattern)
    return found


def test_the_wheel_holds_the_package_and_nothing_else(shelf: pathlib.Path) -> None:
    names = zipfile.ZipFile(only(shelf, "com_broker-*.whl")).namelist()
    ours = {f"com_broker/{path.name}" for path in (PACKAGE / "src/com_broker").glob("*.*")}
    assert "com_broker/py.typed" in ours
    assert {name for name in names if ".dist-info/" not in name} == ours
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_the_source_archive_builds_and_has_the_samples(shelf: pathlib.Path) -> None:
    with tarfile.open(only(shelf, "com_broker-*.tar.gz")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "samples/console.py"):
        assert name in names
    assert not [name for name in names if name.startswith(("tests", "target"))]


def test_the_metadata_is_fit_for_pypi(shelf: pathlib.Path) -> None:
    archives = [only(shelf, "com_broker-*.whl"), only(shelf, "com_broker-*.tar.gz")]
    checked = run(sys.executable, "-m", "twine", "check", "--strict", *archives)
    assert checked.count("PASSED") == 2
    metadata = run(sys.executable, "-c", METADATA, archives[0])
    for line in (
        "Name: com-broker",
        "Requires-Python: >=3.9",
        "License-Expression: MIT",
        "Description-Content-Type: text/markdown",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
        "extra == 'websocket'",
    ):
        assert line in metadata
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert all("extra == " in line for line in required), "something is needed without any extra"


METADATA = """
import sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
(name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
print(archive.read(name).decode())
"""

PROGRAM = """
import sys
from com_broker import Client, Unsupported
keys = {"application_key": "my_app_secret_key", "profile_key": "my_agent_secret_key"}
try:
    with Client(sys.argv[1], login="wheel", ca=sys.argv[2], **keys) as client:
        client.send(client.session.destination, "it works")
        print(client.receive(10).text)
except Unsupported as unsupported:
    print(unsupported)
"""


@pytest.mark.parametrize("origin", ["clone", "wheel", "source"])
def test_it_installs_and_works_in_an_empty_environment(
    origin: str, shelf: pathlib.Path, broker: Broker, tmp_path: pathlib.Path
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    # What else is needed is taken from here, and from nowhere else.
    offline = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(shelf),
    }
    # As README.md has it, in a clone; or from an archive.
    commands: tuple[str, ...] = IN_PACKAGING
    if origin != "clone":
        archive = only(shelf, f"com_broker-*.{'whl' if origin == 'wheel' else 'tar.gz'}")
        commands = tuple(one.replace("./clients/python", str(archive)) for one in commands)
    plain, with_websocket = commands

    def install(command: str) -> None:
        run("sh", "-ec", f"cd '{clone(tmp_path)}'\n{command}", **offline)

    def say(scheme: str) -> str:
        return run(
            programs / "python", "-W", "error", "-c", PROGRAM, broker.url(scheme), broker.authority
        )

    install(plain)
    assert say("tcp") == say("tls") == "it works\n"
    assert 'pip install "websockets>=15"' in say("wss")
    install(with_websocket)
    assert say("ws") == say("wss") == "it works\n"


def clone(directory: pathlib.Path) -> pathlib.Path:
    """A clone of the repository, as far as this package goes."""
    made = directory / "clone"
    if not made.exists():
        names = run("git", "-C", PACKAGE, "ls-files", "-co", "--exclude-standard").splitlines()
        for name in names:
            target = made / "clients" / "python" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PACKAGE / name, target)
    return made
