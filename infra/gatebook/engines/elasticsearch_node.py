"""The process of one Elasticsearch node: `python -m gatebook.engines.elasticsearch_node PLAN`.

The server's own launcher needs files that are not published as jars, so this process hosts the
Java machine and starts the node through the same classes that the launcher calls.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

CLOSE_TIMEOUT_SECONDS = 20
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def main(plan_path: str) -> None:
    """Run the node until a stop signal, then close it."""
    # Blocked before the Java threads exist, so that they inherit it and only we get the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    plan = json.loads(Path(plan_path).read_text())
    node = start_node(plan)
    signal.sigwait(STOP_SIGNALS)
    close_node(node)


def start_node(plan: dict[str, Any]) -> Any:
    """Start the Java machine and the node in it; returns when the node takes requests."""
    import jpype

    jpype.startJVM(
        *plan["options"],
        jvmpath=plan["jvm"],
        classpath=plan["class_path"],
        convertStrings=True,
        interrupt=False,  # signals are ours
    )
    environment = _environment(plan["settings"])
    log_configurator = jpype.JClass("org.elasticsearch.common.logging.LogConfigurator")
    log_configurator.registerErrorListener()
    log_configurator.setNodeName(plan["settings"]["node.name"])
    log_configurator.configure(environment, False)
    node = jpype.JClass("org.elasticsearch.node.Node")(environment, _plugins(environment))
    return node.start()


def close_node(node: Any) -> None:
    """Close the node in order. If we die here, its translog brings back what was acknowledged."""
    import jpype

    node.prepareForClose()
    node.close()
    seconds = jpype.JClass("java.util.concurrent.TimeUnit").SECONDS
    node.awaitClose(CLOSE_TIMEOUT_SECONDS, seconds)


def _environment(settings: dict[str, str]) -> Any:
    import jpype

    java_paths = jpype.JClass("java.nio.file.Paths")
    home = java_paths.get(settings["path.home"])
    builder = jpype.JClass("org.elasticsearch.common.settings.Settings").builder()
    for key, value in settings.items():
        builder.put(key, value)
    preparer = jpype.JClass("org.elasticsearch.node.InternalSettingsPreparer")
    no_properties = jpype.JClass("java.util.HashMap")()
    node_name = jpype.JProxy(
        "java.util.function.Supplier", dict={"get": lambda: settings["node.name"]}
    )
    return preparer.prepareEnvironment(
        builder.build(), no_properties, home.resolve("config"), node_name
    )


def _plugins(environment: Any) -> Any:
    import jpype

    loader = jpype.JClass("org.elasticsearch.plugins.PluginsLoader")
    modules = loader.loadModulesBundles(environment.modulesDir(), False)
    none = jpype.JClass("java.util.HashSet")()
    exports = jpype.JClass("java.util.HashMap")()
    return loader.createPluginsLoader(modules, none, exports, False)


if __name__ == "__main__":
    main(sys.argv[1])
