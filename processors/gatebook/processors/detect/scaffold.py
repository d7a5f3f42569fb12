"""`gatebook rules new`: a folder with a rule that works, to be changed into the one wanted."""

from __future__ import annotations

import re
from pathlib import Path

from gatebook.processors.detect.registry import detector_ids, retired_ids
from gatebook.schemas.errors import Fatal

RULE_TOML = """\
id = "{id}"
name = "{name}"
version = "1"                       # raise it when stored states mean something else
severity = "warning"                # info, warning, error, critical
risk_score = 47
runbook = "runbook.md"
owasp_llm = ["LLM10:2025"]
mitre_atlas = ["AML.T0029"]
references = []
blind_spots = [
  "A caller that stays below the threshold in every window is not seen.",
]

[detect]
kind = "count"                      # count, distinct, ratio, first_seen, baseline, silence, custom
scope = "principal"                 # what is counted together
window = "tumbling"                 # tumbling, hopping, session, sliding
where = {{ outcome = "failure" }}     # fields of Access
unit = "failed accesses"
says = "{{who}}: {{observed}} {{unit}}{{window}}, limit {{threshold}}"
search = "event.outcome:failure"

[[escalate]]
times = 5.0
severity = "error"

[parameters]
threshold = 5
window_seconds = 60
"""
LOGIC_PY = '''\
"""Which accesses count. Delete this file where [detect].where says it all."""

from __future__ import annotations

from gatebook.processors.detect.access import Access
from gatebook.processors.detect.kinds.count import CountParameters


def matches(access: Access, parameters: CountParameters) -> bool:
    """Anything but cancelled calls."""
    return access.reason != "client_aborted"
'''
CASES_TOML = """\
[[case]]
name = "fires_at_the_threshold"
says = "Five failures within a minute fire once; it is over after a quiet time."
document = {{ event = {{ outcome = "failure" }}, gatebook = {{ principal = "acme/eve" }} }}
steps = [
  {{ repeat = 6, every_seconds = 2 }},
  {{ at_seconds = 900, time = true }},
]
expect = [ {{ gatebook = {{ observed = 5.0 }} }} ]
resolved = [ {{ gatebook = {{ occurrences = 2 }} }} ]

[[case]]
name = "quiet_below_the_threshold"
says = "Four failures within a minute do not fire."
document = {{ event = {{ outcome = "failure" }}, gatebook = {{ principal = "acme/eve" }} }}
steps = [ {{ repeat = 4, every_seconds = 2 }} ]
expect = []
"""
RUNBOOK_MD = """\
# {name}

**What it says.** One principal had `threshold` failed accesses within `window_seconds`.

1. Open the search link and group by `event.reason`.
2. Decide whether it is the owner of the identity; if not, revoke `gatebook.identity.key_id`.
3. Tell the owner of the client (`gatebook.service.team`).

**When it is noise.** Raise `threshold`.
"""
FILES = {
    "rule.toml": RULE_TOML,
    "logic.py": LOGIC_PY,
    "cases.toml": CASES_TOML,
    "runbook.md": RUNBOOK_MD,
}
RULE_ID = re.compile(r"[a-z][a-z0-9_]{2,63}")


def make_rule(rule_id: str, root: Path) -> Path:
    """A folder `rule_id` below `root` whose cases hold. Fatal where the id cannot be used or the
    folder is there already; nothing is overwritten."""
    if not RULE_ID.fullmatch(rule_id):
        raise Fatal(f"{rule_id!r} is no rule id", "use a-z, 0-9 and _, 3 to 64 characters")
    if rule_id in detector_ids() or rule_id in retired_ids():
        raise Fatal(f"{rule_id} is or was a rule of the package", "choose another id")
    folder = root / rule_id
    if folder.exists():
        raise Fatal(f"{folder} is there already", "choose another id or delete it")
    folder.mkdir(parents=True)
    name = rule_id.replace("_", " ").capitalize()
    for file, text in FILES.items():
        said = text if file == "logic.py" else text.format(id=rule_id, name=name)
        (folder / file).write_text(said, encoding="utf-8")
    return folder
