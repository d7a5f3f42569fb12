"""`gatebook doctor --producer`: follows one event, and says where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.pipeline import Pipeline

DOCTOR = (sys.executable, "-m", "gatebook.cli.main", "doctor", "--producer")


def doctor(pipeline: Pipeline, wait: float, **environment: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and the hops by name, in order."""
    done = subprocess.run(
        [*DOCTOR, "--json", "--wait", str(wait)],
        env=pipeline.environment(**environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.stdout, done.stderr
    return done.returncode, {hop["name"]: hop for hop in json.loads(done.stdout)}


def test_an_event_is_followed_into_the_index(pipeline: Pipeline) -> None:
    """Each hop with its time; the probe can be told from accesses."""
    pipeline.start("intake", "index")
    code, hops = doctor(pipeline, 60)
    assert (code, list(hops)) == (0, ["spool", "kafka", "intake", "index"])
    times = [hop["seconds"] for hop in hops.values()]
    assert times == sorted(times)
    assert times[0] > 0
    (document,) = pipeline.documents()
    assert document["event"]["action"] == "probe"
    assert document["event"]["id"] == hops["index"]["event_id"]

    said = subprocess.run(
        [*DOCTOR, "--wait", "60"],
        env=pipeline.environment(GATEBOOK_DELIVERY_MODE="best_effort"),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert said.returncode == 0
    assert "in memory" in said.stdout
    assert said.stdout.rstrip().endswith("All is well.")


def test_it_says_at_which_worker_an_event_stopped(pipeline: Pipeline) -> None:
    """Without intake it does not come out of Kafka, without index not into the index."""
    code, hops = doctor(pipeline, 2)
    assert (code, list(hops)) == (1, ["spool", "kafka", "intake"])
    assert hops["intake"]["verdict"] == "fail"
    assert "worker intake" in hops["intake"]["next_step"]

    pipeline.start("intake")
    pipeline.wait_members("intake", 1)
    code, hops = doctor(pipeline, 15)
    assert (code, list(hops)) == (1, ["spool", "kafka", "intake", "index"])
    assert [hop["verdict"] for hop in hops.values()] == ["ok", "ok", "ok", "fail"]
    assert "worker index" in hops["index"]["next_step"]


def test_it_says_what_is_wrong_before_the_workers(pipeline: Pipeline) -> None:
    """A broker that is not there, a topic that is not there, a spool or setting that is wrong."""
    code, hops = doctor(pipeline, 1, GATEBOOK_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert (code, list(hops)) == (1, ["spool", "kafka"])
    assert "no broker lets us in at 127.0.0.1:1" in hops["kafka"]["detail"]

    code, hops = doctor(pipeline, 1, GATEBOOK_NAMESPACE="nowhere")
    assert "there is no topic nowhere.access.v1" in hops["kafka"]["detail"]
    assert "gatebook setup" in hops["kafka"]["next_step"]

    blocked = pipeline.home / "blocked"
    blocked.write_text("a file where a folder should be")
    code, hops = doctor(pipeline, 1, GATEBOOK_SPOOL_DIR=str(blocked))
    assert (code, list(hops)) == (1, ["spool"])
    assert "cannot be written" in hops["spool"]["detail"]

    code, hops = doctor(pipeline, 1, GATEBOOK_DELIVERY_MODE="sometimes")
    assert (code, list(hops)) == (1, ["settings"])
    assert "GATEBOOK_DELIVERY_MODE" in hops["settings"]["detail"]
