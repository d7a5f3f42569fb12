"""A capture policy over the whole way: producer, Kafka, workers, index, findings, command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pipeline import Pipeline
from tests.waiting import wait_until

from gatebook.producers.adapters.call import identity, record_call
from gatebook.producers.config import ProducerSettings
from gatebook.producers.policy.match import Policy
from gatebook.producers.recorder import Recorder

WORDS = "the quiet zebra plays a violin"
POLICY = """
version = 1
name = "acme"
[retention]
metadata = "1y"
redacted = "30d"
[[rule]]
name = "silent"
match = { tenant = "clinic" }
level = "none"
[[rule]]
name = "lab"
match = { tenant = "lab" }
level = "redacted"
fields = { "user.name" = "drop", "user.id" = "digest" }
[[rule]]
name = "vault"
match = { tenant = "vault" }
level = "redacted"
searchable = false
[break_glass]
max_seconds = 3600
[break_glass.approvers]
"""
Document = dict[str, Any]


class Site:
    """A policy file with three approvers, a producer under it, and commands beside it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.policy = pipeline.home / "capture.toml"
        keys = [f'{name} = "{self._new_key(name)}"' for name in ("ada", "bob", "cyd")]
        self.text = POLICY + "\n".join(keys) + "\n"
        self.write(self.text)
        self.recorder = Recorder(
            ProducerSettings(
                kafka_bootstrap=pipeline.engines.kafka_bootstrap,
                namespace=pipeline.namespace,
                home=str(pipeline.home),
                service_name="slm",
                capture_policy=str(self.policy),
            )
        )

    def _new_key(self, name: str) -> str:
        return self.command("break-glass", "key", str(self._key(name))).strip()

    def _key(self, name: str) -> Path:
        return self.pipeline.home / f"{name}.pem"

    def write(self, text: str) -> None:
        draft = self.policy.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self.policy)

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "gatebook.cli.main", "policy", *arguments],
            env=self.pipeline.environment(),
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def signed(self, step: str, *more: str, by: str) -> str:
        key = ["--policy", str(self.policy), "--by", by, "--key", str(self._key(by))]
        return self.command("break-glass", step, *more, *key)

    def call(self, tenant: str) -> None:
        """One model call by a verified user."""
        who = identity(
            "grace", user_name="Grace H", organization_id=tenant, method="oidc",
            assurance="verified",
        )  # fmt: skip
        with who, record_call(model="slm", recorder=self.recorder) as call:
            call.request(messages=[{"role": "user", "content": WORDS}])
            call.output(WORDS)

    def found(self, **wanted: str) -> list[Document]:
        """Documents of the index by rule, level or action, oldest first."""
        found = sorted(self.pipeline.documents(), key=lambda one: str(one["@timestamp"]))
        return [one for one in found if wanted.items() <= self._told(one).items()]

    def _told(self, one: Document) -> dict[str, str]:
        capture = one["gatebook"].get("capture", {})
        return {
            "rule": capture.get("rule", ""),
            "level": capture.get("level", ""),
            "raise": capture.get("break_glass", ""),
            "action": one["event"]["action"],
        }

    def wait_for(self, **wanted: str) -> Document:
        return wait_until(str(wanted), lambda: self.found(**wanted), 90)[-1]


def test_what_the_policy_says_holds_on_the_whole_way(pipeline: Pipeline) -> None:
    """Level none names nobody, metadata keeps no content, redacted does; a raise by two approvals
    begins and ends, a broken file changes nothing and alerts, a dry run tells what another policy
    would have done."""
    site = Site(pipeline)
    pipeline.start("intake", "index", "detect")
    for tenant in ("clinic", "lab", "vault", "other"):
        site.call(tenant)
    assert site.recorder.flush(30).complete
    _check_levels(site)
    _check_break_glass(site)
    _check_dry_run(site)
    _check_broken(site)
    assert pipeline.documents("deadletter") == []
    logs = pipeline.logs()
    assert WORDS not in logs
    assert "planted" not in logs


def _check_levels(site: Site) -> None:
    silent, lab, vault = (site.wait_for(rule=rule) for rule in ("silent", "lab", "vault"))
    other = site.wait_for(rule="default", level="metadata")
    digest = Policy.read(site.text.encode()).digest
    first = site.wait_for(action="capture_policy_changed")
    assert first["gatebook"]["attributes"]["new_policy"] == digest
    for one in (silent, lab, vault, other):
        assert one["gatebook"]["capture"]["policy"] == "acme"
        assert one["gatebook"]["capture"]["policy_version"] == digest
    for trace in ("grace", "Grace", "clinic", WORDS, "model"):
        assert trace not in json.dumps(silent)
    assert silent["event"]["outcome"] == "success"
    assert "sequence" in silent["gatebook"]
    assert WORDS in lab["gen_ai"]["input"]["messages"]
    assert lab["user"]["id"].startswith("hmac_")
    assert "Grace" not in json.dumps(lab)
    assert lab["gatebook"]["retention"] == {"metadata": "1y", "redacted": "30d"}
    assert WORDS not in json.dumps(vault)
    assert vault["gatebook"]["sealed"]["redacted"]
    assert WORDS not in json.dumps(other)
    assert other["user"]["id"] == "grace"
    raw = b"".join(m.value() or b"" for m in site.pipeline.messages("access.v1"))
    assert b"clinic" not in raw
    assert WORDS.encode() not in raw


def _check_break_glass(site: Site) -> None:
    wanted = ["--tenant", "other", "--reason", "incident 7", "--for", "30m"]
    request = site.signed("request", *wanted, by="ada").split()[0]
    for name in ("bob", "cyd"):
        site.signed("approve", request, "--yes", by=name)
    begun = site.wait_for(action="break_glass_active")
    assert begun["gatebook"]["attributes"]["approved_by"] == "bob,cyd"
    site.call("other")
    during = site.wait_for(rule="default", **{"raise": request})
    assert during["gatebook"]["capture"]["level"] == "redacted"
    assert WORDS in during["gen_ai"]["input"]["messages"]
    site.signed("revoke", request, by="bob")
    ended = site.wait_for(action="break_glass_ended")
    assert ended["event"]["reason"] == "revoked"
    for action, count in (("requested", 1), ("approved", 2), ("revoked", 1)):
        assert len(site.found(action=f"break_glass_{action}")) == count
    site.call("other")
    wait_until(
        "the level of before", lambda: len(site.found(rule="default", level="metadata")) == 2
    )
    wait_until(
        "the finding of the raise",
        lambda: [f for f in site.pipeline.documents("finding") if f["rule"]["id"] == "break_glass"],
    )


def _check_dry_run(site: Site) -> None:
    """What was recorded at none is not known; the notices are no accesses."""
    new = site.pipeline.home / "new.toml"
    new.write_text(site.text.replace('"lab" }', '"other" }'))
    found = json.loads(site.command("dry-run", str(new), "--since", "1h", "--json"))
    moved = {(c["before"], c["after"]): c["count"] for c in found["changes"]}
    assert moved == {("metadata", "redacted"): 2, ("redacted", "metadata"): 1}
    assert (found["total"], found["unchanged"], found["unknown"]) == (6, 2, 1)
    table = site.command("dry-run", str(new), "--since", "1h", "--against", str(site.policy))
    assert "6 accesses since 1h" in table
    assert "metadata -> redacted" in table
    assert "gatebook show" in table


def _check_broken(site: Site) -> None:
    site.write(site.text.replace('"none"', '"planted"'))
    broken = site.wait_for(action="capture_policy_broken")
    assert broken["event"]["category"] == "configuration"
    assert "planted" not in json.dumps(broken)
    site.call("clinic")
    wait_until("still silent", lambda: len(site.found(rule="silent", level="none")) == 2)
    finding = wait_until(
        "the finding",
        lambda: [
            f
            for f in site.pipeline.documents("finding")
            if f["rule"]["id"] == "capture_policy_broken"
        ],
    )[0]
    assert "service slm" in finding["event"]["reason"]
    site.write(site.text)
    restored = wait_until(
        "the restored policy",
        lambda: [
            one
            for one in site.found(action="capture_policy_changed")
            if one["event"]["reason"] == "restored"
        ],
    )[0]
    assert restored["event"]["outcome"] == "success"
    assert site.recorder.close(30).complete
