"""One Elasticsearch node on loopback: its files, its settings and its process.

The node itself runs in `elasticsearch_node`, a Python process that hosts the Java machine.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import zipfile
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from gatebook.engines import jars, java
from gatebook.engines.processes import ProcessRecord, spawn
from gatebook.engines.settings import LOOPBACK, EngineSettings

TRANSPORT_MODULE = "transport-netty4"

# The same in every kind of engine we start (compose.yaml carries them as environment variables).
NODE_SETTINGS: dict[str, str] = {
    "cluster.name": "gatebook",
    "discovery.type": "single-node",
    # An index exists because the setup made it with its mapping, never by a typo.
    "action.auto_create_index": "false",
}


def node_settings(settings: EngineSettings) -> dict[str, str]:
    """The node's whole configuration. Disk watermarks stay at their defaults: a disk that
    fills up must block writes here as it does in production."""
    directory = settings.engines_dir / "elasticsearch"
    return NODE_SETTINGS | {
        "node.name": "gatebook-1",
        "network.host": LOOPBACK,
        "http.port": str(settings.elasticsearch_port),
        "transport.port": str(settings.elasticsearch_transport_port),
        "path.home": str(directory / "home"),
        "path.data": str(directory / "data"),
        "path.logs": str(settings.logs_dir),
        "path.repo": str(directory / "snapshots"),
        "http.type": "netty4",
        "transport.type": "netty4",
    }


def start(settings: EngineSettings) -> ProcessRecord:
    """Start the node's process on its data; it does not answer yet."""
    directory = settings.engines_dir / "elasticsearch"
    home, temporary_dir = directory / "home", directory / "tmp"
    for one in (home / "config", temporary_dir, directory / "data", directory / "snapshots"):
        one.mkdir(parents=True, exist_ok=True)
    settings.logs_dir.mkdir(parents=True, exist_ok=True)
    log4j = LOG4J.format(log=settings.logs_dir / "elasticsearch.log")
    (home / "config" / "log4j2.properties").write_text(log4j)
    _install_transport(home / "modules" / TRANSPORT_MODULE, settings.cache_dir)
    _link_zstd(home)
    plan = directory / "node.json"
    plan.write_text(json.dumps(_plan(settings, temporary_dir), indent=1))
    return spawn(
        [sys.executable, "-P", "-m", "gatebook.engines.elasticsearch_node", str(plan)],
        directory=directory,
        log=settings.logs_dir / "elasticsearch.out",
        environment=java.clean_environment(),
        port=settings.elasticsearch_port,
    )


def answers(port: int) -> bool:
    """Whether the node on `port` takes requests and has its primaries in place.

    A cluster with a red index still answers; `health` tells that apart.
    """
    status = health(LOOPBACK, port)
    return status is not None and status != "red"


def health(host: str, port: int, timeout_seconds: float = 5.0) -> str | None:
    """green, yellow or red; None where nothing answers in time."""
    connection = HTTPConnection(host, port, timeout=timeout_seconds)
    try:
        connection.request("GET", "/_cluster/health")
        return str(json.loads(connection.getresponse().read())["status"])
    except (OSError, HTTPException, ValueError, KeyError):
        return None
    finally:
        connection.close()


def zstd_library() -> Path | None:
    """The system's libzstd, which `codec: best_compression` needs; None where there is none."""
    for folder in ZSTD_FOLDERS.get(platform.system(), ()):
        for name in ("libzstd.so.1", "libzstd.dylib"):
            if (found := Path(folder) / name).exists():
                return found
    return None


_MACHINE = platform.machine()
ZSTD_FOLDERS: dict[str, tuple[str, ...]] = {
    "Linux": (f"/usr/lib/{_MACHINE}-linux-gnu", "/usr/lib64", "/usr/lib", "/lib64", "/lib"),
    "Darwin": ("/opt/homebrew/lib", "/usr/local/lib"),
}


def _link_zstd(home: Path) -> None:
    """Put libzstd where the server looks for its native libraries."""
    library = zstd_library()
    if library is None:
        return
    system = {"Linux": "linux", "Darwin": "darwin"}[platform.system()]
    machine = {"x86_64": "x64", "amd64": "x64", "arm64": "aarch64"}.get(_MACHINE, _MACHINE)
    folder = home / "lib" / "platform" / f"{system}-{machine}"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / ("libzstd.dylib" if system == "darwin" else "libzstd.so")
    link.unlink(missing_ok=True)
    link.symlink_to(library)


def _install_transport(module: Path, cache_dir: Path) -> None:
    """Lay out the network transport as the module folder that the server expects.

    Written anew at every start: if we die half-way, the next start begins from nothing.
    """
    shutil.rmtree(module, ignore_errors=True)
    module.mkdir(parents=True)
    group = jars.read_lock().groups["elasticsearch-transport"]
    for path in jars.jar_paths(group, cache_dir):
        (module / path.name).symlink_to(path)
        if path.name.startswith(TRANSPORT_MODULE):
            _extract_descriptor(path, module)


def _extract_descriptor(jar: Path, module: Path) -> None:
    inside = f"META-INF/es-plugins/{TRANSPORT_MODULE}/"
    with zipfile.ZipFile(jar) as archive:
        descriptor = archive.read(inside + "plugin-descriptor.properties").decode()
        policy = archive.read(inside + "entitlement-policy.yaml")
    # We run on the class path, so the descriptor must not name a Java module.
    lines = [line for line in descriptor.splitlines() if not line.startswith("modulename")]
    (module / "plugin-descriptor.properties").write_text("\n".join(lines) + "\n")
    (module / "entitlement-policy.yaml").write_bytes(policy)


def _plan(settings: EngineSettings, temporary_dir: Path) -> dict[str, Any]:
    """All that the node's process needs to know."""
    home = settings.engines_dir / "elasticsearch" / "home"
    class_path = jars.jar_paths(jars.read_lock().groups["elasticsearch"], settings.cache_dir)
    options = java.common_options(
        settings.elasticsearch_heap_mib, temporary_dir, settings.logs_dir, "elasticsearch"
    )
    return {
        "jvm": str(java.jvm_library()),
        "class_path": [str(path) for path in class_path],
        "options": [*options, *ELASTICSEARCH_OPTIONS, f"-Des.path.home={home}"],
        "settings": node_settings(settings),
    }


ELASTICSEARCH_OPTIONS = (
    "-Xrs",  # leave SIGTERM to us: the node is closed, then the process ends
    "--enable-native-access=ALL-UNNAMED",
    "-Dio.netty.noUnsafe=true",
    # The vector library is not published as a jar.
    "-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false",
    "-Dlog4j2.formatMsgNoLookups=true",
    "-Dlog4j.shutdownHookEnabled=false",
)

LOG4J = """status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log}
appender.file.filePattern = {log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d{{ISO8601}}] %-5p %c{{1.}} %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""
