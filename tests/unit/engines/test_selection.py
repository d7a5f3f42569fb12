"""Which engines are chosen, and how the Docker kind talks to `docker`.

The `docker` here is a script that notes how it was called: what a real Docker does with the
containers is not shown by these tests.
"""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from gatebook.engines import compose, selection, state
from gatebook.engines.containers import DockerEngines, image
from gatebook.engines.elasticsearch import node_settings
from gatebook.engines.errors import (
    BadSetting,
    ContainerEngineFailed,
    EngineError,
    NotOurs,
    NotRunning,
)
from gatebook.engines.external import ExternalEngines
from gatebook.engines.kafka import server_properties
from gatebook.engines.processes import free_ports
from gatebook.engines.progress import Quiet
from gatebook.engines.settings import EngineSettings
from gatebook.engines.state import State

FAKE_DOCKER = """#!{python}
import json, sys
with open({calls!r}, "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if {fails} and sys.argv[1] in {fails}:
    sys.exit("docker: no such thing")
"""


class Docker:
    """A `docker` command that notes its calls."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.calls_file = folder / "calls"
        self.answer(fails=())
        monkeypatch.setenv("PATH", str(folder))

    def answer(self, fails: tuple[str, ...]) -> None:
        script = self.folder / "docker"
        script.write_text(
            FAKE_DOCKER.format(python=sys.executable, calls=str(self.calls_file), fails=fails)
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Docker(folder, monkeypatch)


@pytest.fixture
def no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def given(tmp_path: Path, **more: str) -> EngineSettings:
    return EngineSettings(home=tmp_path / "home", **more)  # type: ignore[arg-type] # test data


ADDRESSES = {"kafka_bootstrap": "127.0.0.1:1", "elasticsearch_url": "http://127.0.0.1:1"}


@pytest.mark.usefixtures("docker")
def test_addresses_go_before_docker(tmp_path: Path) -> None:
    """Whoever gives addresses means them."""
    assert selection.choose(given(tmp_path, **ADDRESSES)).kind == "external"


@pytest.mark.usefixtures("docker")
def test_docker_goes_before_embedded(tmp_path: Path) -> None:
    """A Docker that answers is used."""
    assert selection.choose(given(tmp_path)).kind == "docker"


@pytest.mark.usefixtures("no_docker")
def test_embedded_is_always_there(tmp_path: Path) -> None:
    """No address, no Docker: still engines."""
    assert selection.choose(given(tmp_path)).kind == "embedded"


def test_a_docker_command_without_an_engine_does_not_count(docker: Docker, tmp_path: Path) -> None:
    """The command may be installed while nothing answers it."""
    docker.answer(fails=("info",))
    assert selection.choose(given(tmp_path)).kind == "embedded"
    with pytest.raises(ContainerEngineFailed):
        selection.choose(given(tmp_path, engine="docker"))


@pytest.mark.parametrize("engine", ["embedded", "docker"])
@pytest.mark.usefixtures("docker")
def test_an_engine_asked_for_by_name_is_taken(tmp_path: Path, engine: str) -> None:
    """A name goes before addresses in the environment."""
    assert selection.choose(given(tmp_path, engine=engine, **ADDRESSES)).kind == engine


def test_external_without_addresses_is_refused(tmp_path: Path) -> None:
    """There is nothing to fall back to silently."""
    with pytest.raises(BadSetting):
        selection.choose(given(tmp_path, engine="external"))


@pytest.mark.usefixtures("docker")
@pytest.mark.parametrize("engine", ["embedded", "docker"])
def test_down_and_status_keep_to_what_up_started(tmp_path: Path, engine: str) -> None:
    """A Docker that appears later does not make `down` forget the embedded engines."""
    settings = given(tmp_path)
    settings.engines_dir.mkdir(parents=True)
    state.write(settings.engines_dir, State(engine=engine))
    assert selection.current(settings).kind == engine


@pytest.mark.parametrize(
    ("bootstrap", "kind"), [("127.0.0.1:19092", "embedded"), ("127.0.0.1:1", "external")]
)
def test_addresses_given_are_looked_at_before_old_engines(
    tmp_path: Path, bootstrap: str, kind: str
) -> None:
    """An `up` of last week must not stand for the engines that the workers use now."""
    url = "http://127.0.0.1:19200/"
    settings = given(tmp_path, kafka_bootstrap=bootstrap, elasticsearch_url=url)
    settings.engines_dir.mkdir(parents=True)
    state.write(settings.engines_dir, State(engine="embedded"))
    assert selection.status(settings).engine == kind
    assert selection.current(settings).kind == "embedded"  # `down` still stops those


def test_engines_of_somebody_else_are_never_touched(tmp_path: Path) -> None:
    """Killing and starting them is refused with the way out."""
    engines = ExternalEngines(given(tmp_path, **ADDRESSES))
    for refused in (engines.kill, engines.start_one):
        with pytest.raises(NotOurs, match="kafka") as caught:
            refused("kafka")
        assert "GATEBOOK_KAFKA_BOOTSTRAP" in caught.value.next_step


def test_an_address_without_an_answer_is_named(tmp_path: Path) -> None:
    """`up` with a wrong address fails at once, naming it."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    settings = given(tmp_path, kafka_bootstrap=address, elasticsearch_url=f"http://{address}")
    with pytest.raises(NotRunning, match=address):
        ExternalEngines(settings).start(Quiet())


def test_containers_publish_on_loopback_only(docker: Docker, tmp_path: Path) -> None:
    """A container that nothing guards must not be reachable from the network."""
    engines = DockerEngines(given(tmp_path))
    engines._up("kafka")
    engines._up("elasticsearch")
    runs = [call for call in docker.calls if call[0] == "run"]
    published = [call[call.index("--publish") + 1] for call in runs]
    assert published == ["127.0.0.1:19092:9092", "127.0.0.1:19200:9200"]
    assert [call[-1] for call in runs] == [image("kafka"), image("elasticsearch")]


def test_a_docker_that_refuses_is_quoted(docker: Docker, tmp_path: Path) -> None:
    """The last line of what docker said reaches the user."""
    docker.answer(fails=("run",))
    with pytest.raises(ContainerEngineFailed, match="no such thing"):
        DockerEngines(given(tmp_path))._up("kafka")


def test_two_homes_have_containers_of_their_own(tmp_path: Path) -> None:
    """A test run never touches the containers of `gatebook up`."""
    one = DockerEngines(EngineSettings(home=tmp_path / "one"))
    two = DockerEngines(EngineSettings(home=tmp_path / "two"))
    assert one._container["kafka"] != two._container["kafka"]


def test_the_compose_file_is_current() -> None:
    """Run `python -m gatebook.engines.compose > infra/compose.yaml` after a change."""
    committed = Path(__file__).parents[3] / "infra" / "compose.yaml"
    assert committed.read_text() == compose.render()


def test_embedded_engines_listen_on_loopback_only(tmp_path: Path) -> None:
    """Every listener and the node's host are loopback addresses."""
    settings = given(tmp_path)
    properties = server_properties(settings, tmp_path)
    for listener in (properties["listeners"] + "," + properties["advertised.listeners"]).split(","):
        assert listener.split("://")[1].startswith("127.0.0.1:")
    assert node_settings(settings)["network.host"] == "127.0.0.1"


def test_every_error_class_has_an_exit_code_of_its_own() -> None:
    """Scripts tell the causes apart by these."""
    codes = [error.exit_code for error in EngineError.__subclasses__()]
    assert sorted(codes) == list(range(1, len(codes) + 1))
