"""The command line: a table of verbs, each loaded when it is called, and one place where errors become one line."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

import click

from embridge_edge import __version__
from embridge_edge.errors import DONE, INTERRUPTED, INTERRUPTED_SAYS, WRONG_INPUT, EdgeError

VERBS: Mapping[str, str] = {
    "inspect": "Show what recordings hold and whether their signals are usable.",
    "synth": "Make armband recordings with known poses, without hardware.",
    "features": "Compute features of recordings and write them as a Parquet or HDF5 table.",
    "train": "Train the EMBridge teacher on recordings.",
    "sweep": "Choose values of a recipe by trials that several workers share.",
    "pretrain": "Train one encoder on unlabelled recordings of several bands, and fit a small head on it.",
    "describe": "Print what an ONNX model of others takes and gives, as a description to fill in.",
    "distill": "Distil a teacher into a student for a device.",
    "prune": "Prune a student to fewer channels, hidden units, heads and queries.",
    "quantize": "Quantize a student to int8.",
    "export": "Write a checkpoint or a quantized model as TFLite and ONNX.",
    "bridge": "Write an int8 .tflite as a C library, bit-exact with its reference.",
    "check": "Say how good a checkpoint or an artifact is.",
    "profile": "Measure an artifact's latency and memory on a target.",
    "benchmark": "Compare EMBridge with its baselines and without each of its parts.",
    "deploy": "Do all of it for a target, with gates.",
    "sign": "Sign a bundle's manifest.",
    "verify": "Check a bundle against its manifest, and the manifest against its signature.",
    "targets": "List the known targets and their budgets.",
    "doctor": "Say what this machine has, what it lacks, and what mends it.",
}

# Which extra brings a module that a verb imports when it runs.
EXTRAS: Mapping[str, str] = {
    "ai_edge_litert": "tflite",
    "ai_edge_quantizer": "tflite",
    "cryptography": "sign",
    "flatbuffers": "tflite",
    "jinja2": "report",
    "litert_torch": "tflite",
    "matplotlib": "report",
    "nncf": "qat",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "optuna": "sweep",
    "psycopg": "sweep",
    "pyarrow": "features",
    "safetensors": "train",
    "sklearn": "train",
    "sqlalchemy": "sweep",
    "tflite_micro": "tflite",
    "tomli_w": "sweep",
    "torch": "train",
}


class VerbGroup(click.Group):
    """A group that knows its commands' names and imports their modules only when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"embridge_edge.verbs.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            raise EdgeError(f"Unknown verb {args[0]!r}; choose one of {', '.join(VERBS)}.")
        return super().resolve_command(ctx, args)


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="embridge-edge")
def cli() -> None:
    """Carry an EMG gesture model from recordings to an armband or a phone.

    Exit status: 0 done, 2 wrong input or environment, 3 a gate or a verification missed, 130 interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit status."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; whatever is wrong becomes one line on stderr."""
    stdout = sys.stdout
    try:
        result = cli.main(
            args=None if arguments is None else list(arguments), prog_name="embridge-edge", standalone_mode=False
        )
    except EdgeError as error:
        return _say(str(error), error.exit_status)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return WRONG_INPUT
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        path = where.command_path if where is not None else "embridge-edge"
        message = error.format_message().rstrip(".")
        return _say(f"{message}{'' if message.endswith('?') else ';'} see {path} --help.", WRONG_INPUT)
    except (click.Abort, KeyboardInterrupt):
        return _say(INTERRUPTED_SAYS, INTERRUPTED)
    except SystemExit:
        # How click ends when whoever reads the output has gone, as `head` does: it puts a wrapper around stdout. Nothing is
        # wrong then; any other exit keeps its status.
        if sys.stdout is not stdout:
            return DONE
        raise
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        return _say(
            f"This needs {module}, which is not installed; pip install 'embridge-edge[{EXTRAS[module]}]'.", WRONG_INPUT
        )
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        place = f" {error.filename}" if error.filename else ""
        return _say(
            f"Cannot use{place}: {error.strerror}; check the path, its permissions and the free space.", WRONG_INPUT
        )
    return result if isinstance(result, int) else DONE


def _say(message: str, status: int) -> int:
    click.echo("embridge-edge: " + " ".join(message.split()), err=True)
    return status
