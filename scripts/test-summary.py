#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Summary of meson's testlog.json: the slowest tests, what was skipped, what failed, "N passed, N failed"."""
import json
import re
import sys


def failed_checks(test):
    """The failed checks in a test's TAP, each with the remarks that follow it."""
    lines = []
    keep = False
    for line in (test.get("stdout") or "").splitlines():
        keep = line.startswith(("not ok", "Bail out!")) or (keep and line.startswith("#"))
        if keep or line.startswith("# exit status") or line.startswith("# SEED"):
            lines.append("    " + line)
    if not any("not ok" in line for line in lines):
        lines += ["    " + line for line in (test.get("stdout") or "").splitlines()[-6:]]      # how far it came
    return lines + ["    " + line for line in (test.get("stderr") or "").splitlines() if line]


def main():
    with open(sys.argv[1], encoding="utf-8") as log:
        tests = [json.loads(line) for line in log]
    by_result = {"passed": [], "skipped": [], "failed": []}
    checks = 0
    for test in tests:
        result = test["result"]
        key = "passed" if result in ("OK", "EXPECTEDFAIL") else "skipped" if result == "SKIP" else "failed"
        by_result[key].append(test)
        checks += len(re.findall(r"^ok ", test.get("stdout") or "", re.MULTILINE))
    print("slowest tests:")
    for test in sorted(tests, key=lambda test: test["duration"], reverse=True)[:10]:
        print(f"  {test['duration']:7.1f} s  {test['name']}")
    for test in by_result["skipped"]:
        reason = re.search(r"# SKIP (.*)", test.get("stdout") or "")
        print(f"skipped: {test['name']}" + (f": {reason.group(1)}" if reason else ""))
    for test in by_result["failed"]:
        print(f"failed: {test['name']} ({test['result']})", *failed_checks(test)[:40], sep="\n")
    print(f"{len(tests)} tests with {checks} checks that passed, {len(by_result['skipped'])} tests skipped")
    print(f"{len(by_result['passed'])} passed, {len(by_result['failed'])} failed")
    return 1 if by_result["failed"] or not by_result["passed"] else 0


sys.exit(main())
