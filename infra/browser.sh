#!/usr/bin/env bash
# The console's tests drive a real Chromium. This finds one, or brings one: by the system's packages
# where that is allowed, else by Playwright into the user's cache. Prints what it found.
set -euo pipefail
python="${1:-python3}"

found() {
  for name in "${GATEBOOK_CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1; then command -v "$name"; return 0; fi
  done
  local path
  path=$("$python" - <<'PYTHON' 2>/dev/null
from playwright.sync_api import sync_playwright
with sync_playwright() as p:
    print(p.chromium.executable_path)
PYTHON
  ) && [ -x "$path" ] && echo "$path"
}

found && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq >/dev/null 2>&1 || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null || true
else
  "$python" -m playwright install chromium || true
fi
found || {
  echo "no Chromium for the console's tests: install the package chromium, or name one in GATEBOOK_CHROMIUM" >&2
  exit 1
}
