"""The bridge between a thin script and Snakemake, and between a script and a developer's shell."""

from __future__ import annotations

import argparse
import atexit
import functools
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visae.config.sections import from_plain
from visae.errors import VisaeError
from visae.notices import repeat_warnings
from visae.space import explained_lack

logger = logging.getLogger(__name__)

# Bytes: freed blocks up to the first stay with the process, as long as all that is free is below the second.
_KEPT = {"mmap_threshold": 1 << 28, "trim_threshold": 1 << 29}


@dataclass(frozen=True)
class Job:
    """What a script may know of its job: files, wildcards, resources and one canonical spec, never the config."""

    input: Any
    output: Any
    wildcards: Any
    resources: Any
    text: str
    log: Path

    @functools.cached_property
    def spec(self) -> dict[str, Any]:
        """Return the job's spec: settings, seed, device, and what the rule added."""
        return json.loads(self.text)

    def settings(self, kind: Any) -> Any:
        """Return the config section that this job runs with, as its frozen dataclass."""
        return from_plain(kind, self.spec["settings"])

    @property
    def seed(self) -> int:
        """The study's seed, which each stage adds to its own."""
        return self.spec["seed"]

    @property
    def device(self) -> str:
        """Return auto, cpu or cuda."""
        return self.spec["device"]


def prepare_environment() -> None:
    """Let jobs import visae from this checkout, in whatever environment they run, and keep the memory they free.

    glibc gives back to the system each block above 32 MB as soon as it is freed, and every batch of a forward pass then
    has its pages mapped anew: 15 % of a pass's processor time. Other systems do not read the variable; what a user has
    set in it stays.
    """
    source = str(Path(__file__).parents[1])
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([source, *(path for path in before if path and path != source)])
    os.environ.setdefault("GLIBC_TUNABLES", ":".join(f"glibc.malloc.{name}={size}" for name, size in _KEPT.items()))


@contextmanager
def running_job(namespace: dict[str, Any]) -> Iterator[Job]:
    """Yield the job of a script, log to its `log:` file, and turn expected errors into one clear message.

    Under Snakemake the job is the injected `snakemake` object. Run by hand, `python scripts/NAME.py TARGET
    [--configfile FILE]` looks up the job that makes TARGET and runs it here, where a debugger can follow.

    Parameters
    ----------
    namespace
        The script's `globals()`.
    """
    snakemake = namespace.get("snakemake") or _looked_up(namespace["__doc__"])
    spec, log = snakemake.params.spec, Path(snakemake.log[0])
    job = Job(snakemake.input, snakemake.output, snakemake.wildcards, snakemake.resources, spec, log)
    with _logging_to(log):
        try:
            repeat_warnings(snakemake.input)
            yield job
        except VisaeError as error:
            logger.error("%s: %s", type(error).__name__, error)
            sys.exit(1)
        except BaseException as error:
            if full := explained_lack(error, Path(snakemake.output[0]).parent):
                logger.error("%s", full)
                sys.exit(1)
            logger.exception("the job failed")
            raise
    if namespace.get("__name__") == "__main__":
        _leave()


def _leave() -> None:
    """End the process of a job that is done: taking apart what torch has loaded costs a third of loading it."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        return  # somebody still works; Python waits for them
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    except OSError as error:
        if full := explained_lack(error, path.parent):
            sys.exit(full)
        raise
    # To its end, so that others may write to it too: a waiting job adds what the job on the cluster says.
    handlers: list[logging.Handler] = [logging.FileHandler(path, mode="a"), logging.StreamHandler(sys.stderr)]
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, datefmt="%H:%M:%S", handlers=handlers, force=True)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        for handler in handlers:
            handler.close()
        logging.basicConfig(force=True)


def _looked_up(description: str | None) -> Any:
    """Find the job that makes the target named on the command line, without running anything."""
    parser = argparse.ArgumentParser(description=f"{description} (run one job by hand, outside Snakemake)")
    parser.add_argument("target", type=Path, help="a file that the workflow makes, such as results/models/…/model.json")
    parser.add_argument("--configfile", type=Path, help="configuration; default: config/config.yaml")
    parser.add_argument("--snakefile", type=Path, default=Path("Snakefile"))
    arguments = parser.parse_args()
    return job_of(arguments.target, arguments.snakefile, arguments.configfile)


def job_of(target: Path, snakefile: Path, configfile: Path | None = None) -> Any:
    """Return Snakemake's job that makes `target`: its input, output, params, wildcards and log.

    Raises
    ------
    VisaeError
        If no rule makes it.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[configfile] if configfile else []),
            snakefile=snakefile,
        )
        dag_api = workflow.dag(DAGSettings(targets={str(target)}, forceall=False))
        inner = dag_api.workflow_api._workflow
        inner._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
        inner._build_dag()
        for job in inner.dag.jobs:
            if str(target) in map(str, job.output):
                return job
    raise VisaeError(f"{target}: no rule makes it")
