"""The `gatebook` command: finds the subcommand, imports only what that needs, reports errors.

Exit codes: 0 good; 1 looked and found something wrong (or nothing); 2 wrong usage; 3 and above
are told by each command's help; 130 ended by Ctrl-C.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from importlib.metadata import version
from typing import Any

import click

from gatebook.schemas.errors import Fatal, GatebookError
from gatebook.schemas.settings_file import with_file

# Subcommand -> module that has it in its COMMANDS. A module is imported when it is needed, so
# that a model server needs neither Faust nor Elasticsearch.
COMMANDS = {
    "up": "engine_commands",
    "down": "engine_commands",
    "status": "engine_commands",
    "doctor": "engine_commands",
    "setup": "search_commands",
    "search": "search_commands",
    "tail": "search_commands",
    "show": "search_commands",
    "around": "export_commands",
    "export": "export_commands",
    "worker": "worker_commands",
    "reconcile": "worker_commands",
    "rules": "rules_commands",
    "backtest": "backtest_commands",
    "policy": "policy_commands",
    "alerts": "alerts_commands",
    "finding": "finding_commands",
    "demo": "demo_commands",
    "agent": "agent_commands",
    "import": "import_commands",
    "attach": "attach_commands",
    "keys": "keys_commands",
    "subject": "subject_commands",
    "serve": "serve_commands",
    "token": "serve_commands",
    "summary": "summary_commands",
    "archive": "archive_commands",
    "retention": "retention_commands",
    "settings": "settings_commands",
    "metrics": "settings_commands",
    "proxy": "proxy_commands",
}
EXIT_ERROR = 1
EXIT_MISSING_PACKAGE = 6
EXIT_INTERRUPTED = 130  # as a shell tells of SIGINT


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module_name = COMMANDS.get(cmd_name)
        if module_name is None:
            return None
        try:
            module = importlib.import_module(f"gatebook.cli.{module_name}")
        except ModuleNotFoundError as error:
            return _needs_extra(cmd_name, error.name or "")
        commands: list[click.Command] = module.COMMANDS
        return next(c for c in commands if c.name == cmd_name)


def _needs_extra(name: str, missing: str) -> click.Command:
    """A command that says what to install; help still lists it."""

    @click.command(name, help="Needs more packages: pip install 'gatebook[all]'.")
    def needs_extra() -> None:
        raise click.ClickException(
            f"`gatebook {name}` needs the package {missing}: pip install 'gatebook[all]'"
        )

    return needs_extra


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("gatebook"), prog_name="gatebook")
def cli() -> None:
    """Audit-ready access logs for small language models."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point. An error of ours prints what happened and what to do next, never a traceback."""
    try:
        os.environ.update(with_file(os.environ))  # children of ours are told, too
        _call(arguments)
    except GatebookError as error:
        _report(error, json_wanted="--json" in (arguments or sys.argv))
        sys.exit(int(getattr(error, "exit_code", EXIT_ERROR)))
    except ModuleNotFoundError as error:  # an extra that the command found missing as it ran
        if not error.name or error.name.startswith("gatebook"):
            raise
        _report(_missing(error.name), json_wanted="--json" in (arguments or sys.argv))
        sys.exit(EXIT_MISSING_PACKAGE)
    except Exception as error:
        if os.environ.get("GATEBOOK_LOG_LEVEL") == "DEBUG":
            raise
        _report(_unexpected(error), json_wanted="--json" in (arguments or sys.argv))
        sys.exit(EXIT_ERROR)


def _call(arguments: list[str] | None) -> None:
    """Run the command. A reader that has seen enough (`| head`) is no error of it."""
    try:
        cli.main(args=arguments, prog_name="gatebook", standalone_mode=True)
    except SystemExit as end:
        if _is_interrupted(end.__context__):
            sys.exit(EXIT_INTERRUPTED)
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        # What is still buffered has no reader; without this the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _is_interrupted(ended_by: BaseException | None) -> bool:
    """Tell Ctrl-C from a question that was answered with no."""
    return isinstance(ended_by, click.Abort) and isinstance(ended_by.__cause__, KeyboardInterrupt)


def _missing(package: str) -> Fatal:
    return Fatal(
        f"this command needs the package {package}, which is not installed",
        "run: pip install 'gatebook[all]'",
    )


def _unexpected(error: Exception) -> Fatal:
    """By class alone: the words of a foreign error may quote a record."""
    return Fatal(
        f"ended by {type(error).__name__}, which nobody expected",
        "run it again with GATEBOOK_LOG_LEVEL=DEBUG to see where, and report it",
    )


def _report(error: GatebookError, json_wanted: bool) -> None:
    next_step = str(getattr(error, "next_step", ""))
    if json_wanted:
        found: dict[str, Any] = {"error": str(error), "next_step": next_step}
        click.echo(json.dumps(found))
        return
    click.echo(f"gatebook: {error}", err=True)
    if next_step:
        click.echo(f"  what to do: {next_step}", err=True)


if __name__ == "__main__":
    main()
