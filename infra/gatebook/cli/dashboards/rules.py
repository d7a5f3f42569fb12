"""Prometheus alert rules for the pipeline itself, each with cases in which it fires and does not.

A counter with labels appears at its first count, without a zero before it: `increase` sees nothing
of that. So rules about such counters look for the series' first sample as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

CRITICAL = "critical"  # somebody is woken
WARNING = "warning"  # in working hours
PREFIX = "Gatebook"
INTERVAL_SECONDS = 30
README = "infra/dashboards/README.md"
# Not ours: what Prometheus itself and every Python process say.
FOREIGN = ("up", "process_start_time_seconds")


@dataclass(frozen=True, slots=True)
class Case:
    """Series (one sample a minute, in promtool's notation), the minute in which it is looked, and
    the labels of each alert that has to fire then."""

    series: dict[str, str]
    at_minutes: int
    fires: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One alert. `next_step` is what the on-call does first."""

    name: str
    expr: str
    for_minutes: int
    severity: str
    summary: str
    next_step: str
    cases: tuple[Case, ...] = field(default=())

    @property
    def alert(self) -> str:
        """Its name in Prometheus."""
        return PREFIX + self.name


def appeared(metric: str, labels: str, minutes: int, where: str = "") -> str:
    """Counted up within so many minutes, or first counted within them."""
    chosen = f"{metric}{{{where}}}" if where else metric
    group = f"by ({labels})"
    return (
        f"sum {group} (increase({chosen}[{minutes}m])) > 0 or "
        f"(sum {group} ({chosen}) > 0 unless sum {group} ({chosen} offset {minutes}m))"
    )


def _role(name: str) -> dict[str, str]:
    return {"role": name}


JOB = 'job="gatebook",instance="a"'
LAG = "gatebook_worker_lag_messages"
BATCHES = "gatebook_worker_batch_seconds_count"

RULES = (
    Rule(
        "Down",
        'up{job=~"gatebook.*"} == 0',
        2,
        CRITICAL,
        "{{ $labels.instance }} does not answer Prometheus.",
        "See that the process runs (`gatebook worker` starts dead ones anew), and its log.",
        (
            Case({f"up{{{JOB}}}": "1x5 0x10"}, 9, ({"job": "gatebook", "instance": "a"},)),
            Case({f"up{{{JOB}}}": "1 0 1x10"}, 9),
            Case({'up{job="other",instance="a"}': "0x10"}, 9),
        ),
    ),
    Rule(
        "WorkerMissing",
        " or ".join(
            f'absent({LAG}{{role="{role}"}})' for role in ("intake", "index", "detect", "notify")
        ),
        10,
        CRITICAL,
        "No worker of the role {{ $labels.role }} tells of itself.",
        "Start it (`gatebook worker`); give each role a port by GATEBOOK_METRICS_PORT.",
        (
            Case(
                {f'{LAG}{{role="{role}"}}': "0x20" for role in ("intake", "index", "detect")},
                15,
                (_role("notify"),),
            ),
            Case(
                {
                    f'{LAG}{{role="{role}"}}': "0x20"
                    for role in ("intake", "index", "detect", "notify")
                },
                15,
            ),
        ),
    ),
    Rule(
        "Lag",
        f"max by (role) ({LAG}) > 10000 and max by (role) (deriv({LAG}[10m])) >= 0",
        10,
        WARNING,
        "{{ $labels.role }} is more than 10,000 messages behind, and does not catch up.",
        "Add workers of that role, up to the topic's partitions; see what slows it down.",
        (
            Case({f'{LAG}{{role="index"}}': "0+2000x30"}, 25, (_role("index"),)),
            Case({f'{LAG}{{role="index"}}': "60000-2000x25"}, 24),
            Case({f'{LAG}{{role="index"}}': "500x30"}, 25),
        ),
    ),
    Rule(
        "Stalled",
        f"min by (instance, role) (min_over_time({LAG}[10m])) > 0 "
        f"and sum by (instance, role) (increase({BATCHES}[10m])) == 0",
        5,
        CRITICAL,
        "{{ $labels.role }} on {{ $labels.instance }} has work and has done none for 10 minutes.",
        "Its watchdog should have ended it: see its log. Where it waits for Kafka or "
        "Elasticsearch, see those.",
        (
            Case(
                {
                    f'{LAG}{{role="intake",instance="a"}}': "5x30",
                    f'{BATCHES}{{role="intake",instance="a"}}': "7x30",
                },
                25,
                ({"role": "intake", "instance": "a"},),
            ),
            Case(
                {
                    f'{LAG}{{role="intake",instance="a"}}': "5x30",
                    f'{BATCHES}{{role="intake",instance="a"}}': "0+1x30",
                },
                25,
            ),
            Case(
                {
                    f'{LAG}{{role="intake",instance="a"}}': "0x30",
                    f'{BATCHES}{{role="intake",instance="a"}}': "7x30",
                },
                25,
            ),
        ),
    ),
    Rule(
        "WatchdogRestarts",
        'changes(process_start_time_seconds{job=~"gatebook.*"}[30m]) > 2',
        0,
        WARNING,
        "{{ $labels.instance }} was started anew three times or more in half an hour.",
        "See why in its log: a watchdog ends a worker that makes no progress (exit code 75).",
        (
            Case(
                {f"process_start_time_seconds{{{JOB}}}": "1 2 3 4x10"},
                10,
                ({"job": "gatebook", "instance": "a"},),
            ),
            Case({f"process_start_time_seconds{{{JOB}}}": "1x5 2x10"}, 10),
        ),
    ),
    Rule(
        "DeadLetters",
        appeared("gatebook_dead_letters_total", "stage, reason", 15),
        0,
        WARNING,
        "Events went to the dead letters at {{ $labels.stage }}: {{ $labels.reason }}.",
        "Look at them: `gatebook search --kind deadletter --since 1h`.",
        (
            Case(
                {'gatebook_dead_letters_total{stage="intake",reason="oversize"}': "_x20 1x10"},
                25,
                ({"stage": "intake", "reason": "oversize"},),
            ),
            Case(
                {'gatebook_dead_letters_total{stage="index",reason="oversize"}': "3x20 4x10"},
                25,
                ({"stage": "index", "reason": "oversize"},),
            ),
            Case({'gatebook_dead_letters_total{stage="intake",reason="oversize"}': "3x60"}, 50),
        ),
    ),
    Rule(
        "ManyDeadLetters",
        "sum (rate(gatebook_dead_letters_total[10m])) "
        "> 0.01 * sum (rate(gatebook_intake_events_total[10m]))",
        10,
        CRITICAL,
        "More than one event in a hundred goes to the dead letters.",
        "Most likely a producer or a schema changed: see the reasons, then `gatebook doctor`.",
        (
            Case(
                {
                    'gatebook_dead_letters_total{stage="intake",reason="x"}': "0+5x40",
                    "gatebook_intake_events_total": "0+100x40",
                },
                30,
                ({},),
            ),
            Case(
                {
                    'gatebook_dead_letters_total{stage="intake",reason="x"}': "0+5x40",
                    "gatebook_intake_events_total": "0+10000x40",
                },
                30,
            ),
        ),
    ),
    Rule(
        "EventsLost",
        appeared("gatebook_intake_producer_losses_total", "reason", 15),
        0,
        CRITICAL,
        "Producers declare events that they lost: {{ $labels.reason }}.",
        "See the producer's spool, its disk, and the broker; the events cannot be had again.",
        (
            Case(
                {'gatebook_intake_producer_losses_total{reason="queue_full"}': "_x10 12x10"},
                15,
                ({"reason": "queue_full"},),
            ),
            Case({'gatebook_intake_producer_losses_total{reason="queue_full"}': "12x60"}, 50),
        ),
    ),
    Rule(
        "EventsDropped",
        appeared("gatebook_producer_events_dropped_total", "instance, reason", 15),
        0,
        CRITICAL,
        "{{ $labels.instance }} drops events: {{ $labels.reason }}.",
        "See its spool and its disk; GATEBOOK_DELIVERY_MODE says what it does when neither holds.",
        (
            Case(
                {'gatebook_producer_events_dropped_total{instance="a",reason="x"}': "_x10 1x10"},
                15,
                ({"instance": "a", "reason": "x"},),
            ),
            Case({'gatebook_producer_events_dropped_total{instance="a",reason="x"}': "4x60"}, 50),
        ),
    ),
    Rule(
        "SequenceGaps",
        "sum (increase(gatebook_intake_sequence_missing_total[15m])) > 0",
        5,
        WARNING,
        "Numbers are missing in what producers sent.",
        "A late frame may fill the gap. If not, the finding of the rule sequence_gap names the "
        "producer.",
        (
            Case({"gatebook_intake_sequence_missing_total": "0x10 3x20"}, 18, ({},)),
            Case({"gatebook_intake_sequence_missing_total": "3x60"}, 50),
        ),
    ),
    Rule(
        "RedactionFailed",
        appeared("gatebook_redaction_failed_total", "reason", 15),
        0,
        CRITICAL,
        "Content could not be redacted ({{ $labels.reason }}), so it was not stored.",
        "Nothing leaked. See what changed in rules or plug-ins: `gatebook rules` and intake's log.",
        (
            Case(
                {'gatebook_redaction_failed_total{reason="timeout"}': "_x10 1x10"},
                15,
                ({"reason": "timeout"},),
            ),
            Case({'gatebook_redaction_failed_total{reason="timeout"}': "9x60"}, 50),
        ),
    ),
    Rule(
        "SealedFailed",
        appeared("gatebook_sealed_failed_total", "reason", 15),
        0,
        CRITICAL,
        "Intake could not open content ({{ $labels.reason }}), so it was not stored.",
        "With key_lost a key is missing at intake: `gatebook keys list`, on both sides.",
        (
            Case(
                {'gatebook_sealed_failed_total{reason="key_lost"}': "_x10 1x10"},
                15,
                ({"reason": "key_lost"},),
            ),
            Case({'gatebook_sealed_failed_total{reason="key_lost"}': "2x60"}, 50),
        ),
    ),
    Rule(
        "NotSealed",
        appeared("gatebook_producer_events_unsealed_total", "instance, reason", 15),
        0,
        WARNING,
        "{{ $labels.instance }} could not seal content ({{ $labels.reason }}), and dropped it.",
        "Give it the public key: `gatebook keys list`, GATEBOOK_SEALING_PUBLIC_KEYS.",
        (
            Case(
                {
                    'gatebook_producer_events_unsealed_total{instance="a",reason="no_key"}': (
                        "_x10 1x10"
                    )
                },
                15,
                ({"instance": "a", "reason": "no_key"},),
            ),
            Case(
                {'gatebook_producer_events_unsealed_total{instance="a",reason="no_key"}': "1x60"},
                50,
            ),
        ),
    ),
    Rule(
        "SubjectKeysAway",
        "sum (increase(gatebook_subject_key_waits_total[5m])) > 0",
        5,
        CRITICAL,
        "Workers wait for keys of subjects, and index nothing meanwhile.",
        "See Elasticsearch, and the source of the wrapping key (GATEBOOK_SUBJECT_WRAPPING_KEYS).",
        (
            Case({"gatebook_subject_key_waits_total": "0x5 0+2x20"}, 20, ({},)),
            Case({"gatebook_subject_key_waits_total": "4x40"}, 30),
        ),
    ),
    Rule(
        "AlertDeliveryFailed",
        appeared("gatebook_notify_alerts_total", "target", 15, 'outcome="failure"'),
        0,
        CRITICAL,
        "Alerts do not reach {{ $labels.target }}.",
        "Try it: `gatebook alerts test`; meanwhile see `gatebook search --kind finding`.",
        (
            Case(
                {'gatebook_notify_alerts_total{target="pager",outcome="failure"}': "_x10 1x10"},
                15,
                ({"target": "pager"},),
            ),
            Case({'gatebook_notify_alerts_total{target="pager",outcome="success"}': "0+1x40"}, 30),
        ),
    ),
    Rule(
        "AlertsSlow",
        "histogram_quantile(0.95, sum by (le, target) (rate(gatebook_notify_seconds_bucket[15m])))"
        " > 60",
        10,
        WARNING,
        "Alerts take more than a minute from the event to {{ $labels.target }}.",
        "See which stage is behind: the chart of messages waiting, then the target itself.",
        (
            Case(
                {
                    'gatebook_notify_seconds_bucket{target="pager",le="60"}': "0x40",
                    'gatebook_notify_seconds_bucket{target="pager",le="300"}': "0+1x40",
                    'gatebook_notify_seconds_bucket{target="pager",le="+Inf"}': "0+1x40",
                },
                30,
                ({"target": "pager"},),
            ),
            Case(
                {
                    'gatebook_notify_seconds_bucket{target="pager",le="1"}': "0+1x40",
                    'gatebook_notify_seconds_bucket{target="pager",le="+Inf"}': "0+1x40",
                },
                30,
            ),
        ),
    ),
    Rule(
        "DetectionBehind",
        "max (gatebook_detect_behind_seconds) > 600",
        5,
        WARNING,
        "Detection is more than ten minutes behind the clock.",
        "See the lag of detect and of what comes before it, and producers' clocks.",
        (
            Case({"gatebook_detect_behind_seconds": "900x20"}, 15, ({},)),
            Case({"gatebook_detect_behind_seconds": "30x20"}, 15),
        ),
    ),
    Rule(
        "IndexBlocked",
        "max (gatebook_sink_paused_requests) > 0",
        2,
        CRITICAL,
        "Elasticsearch takes nothing: its disk is full, or writing is switched off.",
        "Free room or let retention run; workers go on by themselves. Kafka holds the events "
        "until its own retention ends.",
        (
            Case({"gatebook_sink_paused_requests": "0x5 2x10"}, 10, ({},)),
            Case({"gatebook_sink_paused_requests": "0 1 0x10"}, 10),
        ),
    ),
    Rule(
        "DiskFills",
        "max (gatebook_retention_disk_state) > 0",
        5,
        WARNING,
        "Elasticsearch's disk is fuller than the retention policy wants it.",
        "See what can go and what is held: `gatebook retention status`.",
        (
            Case({"gatebook_retention_disk_state": "1x20"}, 10, ({},)),
            Case({"gatebook_retention_disk_state": "0x20"}, 10),
        ),
    ),
    Rule(
        "DiskFull",
        "max (gatebook_retention_disk_state) > 2",
        0,
        CRITICAL,
        "Elasticsearch's disk is too full, and retention has nothing left to free.",
        "Add room before Elasticsearch blocks writing; see holds: `gatebook retention status`.",
        (
            Case({"gatebook_retention_disk_state": "3x20"}, 10, ({},)),
            Case({"gatebook_retention_disk_state": "2x20"}, 10),
        ),
    ),
    Rule(
        "RetentionFailed",
        appeared("gatebook_retention_runs_total", "result", 60, 'result="failed"'),
        0,
        WARNING,
        "A retention run failed.",
        "See its log; the next run goes on where it was.",
        (
            Case(
                {'gatebook_retention_runs_total{result="failed"}': "_x70 1x10"},
                75,
                ({"result": "failed"},),
            ),
            Case({'gatebook_retention_runs_total{result="done"}': "_x70 1x10"}, 75),
        ),
    ),
    Rule(
        "RetentionLate",
        "time() - max (gatebook_retention_last_success_timestamp_seconds != 0) > 2 * 86400",
        0,
        WARNING,
        "No retention run has ended well for two days: events stay longer than the policy says.",
        "See `gatebook retention status`, and that the schedule runs.",
        (
            # Time begins at 0 in promtool: the last success is two days before that.
            Case({"gatebook_retention_last_success_timestamp_seconds": "-172800x20"}, 10, ({},)),
            Case({"gatebook_retention_last_success_timestamp_seconds": "60x20"}, 10),
            Case({"gatebook_retention_last_success_timestamp_seconds": "0x20"}, 10),
        ),
    ),
    Rule(
        "RowsRejected",
        appeared("gatebook_sink_rows_total", "result", 15, 'result!~"indexed|duplicate"'),
        0,
        WARNING,
        "Elasticsearch rejects documents: {{ $labels.result }}.",
        "Look at the dead letters: `gatebook search --kind deadletter`; run `gatebook setup`.",
        (
            Case(
                {'gatebook_sink_rows_total{result="index_rejected"}': "_x10 1x10"},
                15,
                ({"result": "index_rejected"},),
            ),
            Case({'gatebook_sink_rows_total{result="indexed"}': "0+100x40"}, 30),
        ),
    ),
    Rule(
        "SpoolDegraded",
        "max by (instance) (gatebook_producer_spool_degraded) > 0",
        1,
        CRITICAL,
        "{{ $labels.instance }} cannot write its spool: events are in memory alone.",
        "See the disk and the permissions of GATEBOOK_SPOOL_DIR.",
        (
            Case(
                {'gatebook_producer_spool_degraded{instance="a"}': "0x5 1x10"},
                10,
                ({"instance": "a"},),
            ),
            Case({'gatebook_producer_spool_degraded{instance="a"}': "0x20"}, 10),
        ),
    ),
    Rule(
        "SpoolGrows",
        "max by (instance) (predict_linear(gatebook_producer_spool_bytes[30m], 3600)) "
        "> 1024 ^ 3 and max by (instance) (gatebook_producer_events_pending) > 0",
        15,
        WARNING,
        "The spool of {{ $labels.instance }} will have passed 1 GiB in an hour.",
        "See that the broker takes events. GATEBOOK_SPOOL_MAX_BYTES (1 GiB unless set) bounds it.",
        (
            Case(
                {
                    'gatebook_producer_spool_bytes{instance="a"}': "0+20000000x60",
                    'gatebook_producer_events_pending{instance="a"}': "5x60",
                },
                55,
                ({"instance": "a"},),
            ),
            Case(
                {
                    'gatebook_producer_spool_bytes{instance="a"}': "1000000x60",
                    'gatebook_producer_events_pending{instance="a"}': "5x60",
                },
                55,
            ),
        ),
    ),
    Rule(
        "CaptureDegraded",
        "max by (instance) (gatebook_producer_degrade_step) > 0",
        5,
        WARNING,
        "{{ $labels.instance }} captures less than its policy says: its buffers are full.",
        "See why it does not get rid of events: broker, network, spool.",
        (
            Case(
                {'gatebook_producer_degrade_step{instance="a"}': "1x20"}, 10, ({"instance": "a"},)
            ),
            Case({'gatebook_producer_degrade_step{instance="a"}': "0x20"}, 10),
        ),
    ),
    Rule(
        "PolicyBroken",
        "max by (instance) (gatebook_producer_policy_broken) > 0",
        1,
        CRITICAL,
        "{{ $labels.instance }} cannot use its capture policy; the last good one holds.",
        "Check the file: `gatebook policy check`.",
        (
            Case(
                {'gatebook_producer_policy_broken{instance="a"}': "1x20"}, 10, ({"instance": "a"},)
            ),
            Case({'gatebook_producer_policy_broken{instance="a"}': "0x20"}, 10),
        ),
    ),
    Rule(
        "BreakGlass",
        "max by (instance) (gatebook_producer_break_glass_active) > 0",
        0,
        WARNING,
        "A raised capture level is in force at {{ $labels.instance }}.",
        "See who asked and who approved: `gatebook policy break-glass status`.",
        (
            Case(
                {'gatebook_producer_break_glass_active{instance="a"}': "1x20"},
                10,
                ({"instance": "a"},),
            ),
            Case({'gatebook_producer_break_glass_active{instance="a"}': "0x20"}, 10),
        ),
    ),
)


# --- files -------------------------------------------------------------------------------------


def rules_file() -> str:
    """The rules as Prometheus reads them."""
    lines = [HEAD, "groups:", "  - name: gatebook", "    rules:"]
    for rule in RULES:
        lines += [
            f"      - alert: {rule.alert}",
            f"        expr: {json.dumps(rule.expr)}",
            f"        for: {rule.for_minutes}m",
            f"        labels: {json.dumps({'severity': rule.severity})}",
            "        annotations:",
            f"          summary: {json.dumps(rule.summary)}",
            f"          description: {json.dumps(rule.next_step)}",
            f"          runbook: {json.dumps(f'{README}#{rule.alert.lower()}')}",
        ]
    return "\n".join(lines) + "\n"


def tests_file() -> str:
    """The cases as `promtool test rules` reads them."""
    lines = [HEAD, "rule_files: [gatebook.rules.yml]", "evaluation_interval: 1m", "tests:"]
    for rule in RULES:
        for case in rule.cases:
            lines += _case(rule, case)
    return "\n".join(lines) + "\n"


HEAD = "# Written by `make dashboards`; do not edit."


def _case(rule: Rule, case: Case) -> Iterator[str]:
    yield "  - interval: 1m"
    yield "    input_series:"
    for series, values in case.series.items():
        yield f"      - series: {json.dumps(series)}"
        yield f"        values: {json.dumps(values)}"
    yield "    alert_rule_test:"
    yield f"      - eval_time: {case.at_minutes}m"
    yield f"        alertname: {rule.alert}"
    if not case.fires:
        yield "        exp_alerts: []"
        return
    yield "        exp_alerts:"
    for labels in case.fires:
        told = {
            "summary": _filled(rule.summary, labels),
            "description": rule.next_step,
            "runbook": f"{README}#{rule.alert.lower()}",
        }
        yield f"          - exp_labels: {json.dumps({**labels, 'severity': rule.severity})}"
        yield f"            exp_annotations: {json.dumps(told)}"


def _filled(text: str, labels: dict[str, str]) -> str:
    """What Prometheus makes of the labels in an annotation."""
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels.get(found[1], ""), text)
