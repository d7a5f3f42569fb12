"""Resolve the engines' Java artifacts and pin each by checksum (a maintainers' script).

    python infra/lock_jars.py            writes infra/gatebook/engines/jars.lock.json
    python infra/lock_jars.py --check    exits 1 where the committed lock differs

Users never run this: `gatebook up` reads the committed lock and downloads just those files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from jgo.maven import MavenContext

LOCK_FILE = Path(__file__).parent / "gatebook" / "engines" / "jars.lock.json"

KAFKA_VERSION = "4.1.1"
ELASTICSEARCH_VERSION = "9.5.3"
APICURIO_VERSION = "3.0.9"
LOG4J_VERSION = "2.24.3"  # what Kafka's own release carries; without a binding it logs nothing

KAFKA = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    # Named, not inherited: jgo mediates unlike Maven and would bring kafka-clients 3.8.0.
    f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}",
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}",
)
ELASTICSEARCH = (f"org.elasticsearch:elasticsearch:{ELASTICSEARCH_VERSION}",)
TRANSPORT = (f"org.elasticsearch.plugin:transport-netty4:{ELASTICSEARCH_VERSION}",)

Jar = dict[str, Any]


def resolve(context: MavenContext, coordinates: tuple[str, ...]) -> dict[str, Jar]:
    """Every run-time artifact that `coordinates` need, by repository path."""
    wanted = [context.create_dependency(coordinate) for coordinate in coordinates]
    roots, transitive = context.resolver.resolve(wanted)
    jars = (describe(dependency.artifact) for dependency in roots + transitive)
    return {jar["path"]: jar for jar in jars}


def describe(artifact: Any) -> Jar:
    file = artifact.resolve()
    return {
        "group": artifact.groupId,
        "artifact": artifact.artifactId,
        "version": artifact.version,
        "classifier": artifact.classifier or None,
        "path": (artifact.component.path_prefix / artifact.filename).as_posix(),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "size": file.stat().st_size,
    }


def apicurio_release(context: MavenContext) -> dict[str, Jar]:
    """The schema registry that tests use: one archive with all it needs inside."""
    project = context.project("io.apicurio", "apicurio-registry-app")
    release = describe(project.at_version(APICURIO_VERSION).artifact("all", "tar.gz"))
    return {release["path"]: release}


def build_lock(context: MavenContext) -> dict[str, Any]:
    kafka = resolve(context, KAFKA)
    elasticsearch = resolve(context, ELASTICSEARCH)
    with_transport = resolve(context, ELASTICSEARCH + TRANSPORT)
    # The server loads its transport from a module folder of its own, off the class path.
    transport = {path: jar for path, jar in with_transport.items() if path not in elasticsearch}
    groups = {
        "kafka": (KAFKA_VERSION, kafka),
        "elasticsearch": (ELASTICSEARCH_VERSION, elasticsearch),
        "elasticsearch-transport": (ELASTICSEARCH_VERSION, transport),
        "apicurio": (APICURIO_VERSION, apicurio_release(context)),
    }
    return {"groups": {name: _group(version, jars) for name, (version, jars) in groups.items()}}


def _group(version: str, jars: dict[str, Jar]) -> dict[str, Any]:
    return {"version": version, "jars": sorted(jars.values(), key=lambda jar: str(jar["path"]))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--repository", type=Path, help="keep downloads here (a Maven repository)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=arguments.repository or Path(scratch), timeout=60)
        text = json.dumps(build_lock(context), indent=1) + "\n"
    if arguments.check:
        same = LOCK_FILE.read_text() == text
        sys.stdout.write("the lock is current\n" if same else "the lock differs: run lock_jars\n")
        return 0 if same else 1
    LOCK_FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
