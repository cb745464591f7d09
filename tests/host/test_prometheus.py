"""Prometheus' own program has nothing to say against names, help texts and alerts, and alerts say what they should."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nwfilter_hook.operations.exposition import PROMETHEUS, exposition
from nwfilter_hook.storage.tallies import Tallies
from tests.support.netns import REPOSITORY
from tests.support.promtool import promtool
from tests.unit.operations.test_metrics import VIEWS, counted, families

pytestmark = pytest.mark.hook

RULES = REPOSITORY / "packaging/prometheus/nwfilter-hook.rules.yml"


def test_metrics(tmp_path: Path) -> None:
    """Its lint of everything that there can be."""
    text = exposition(families(VIEWS, counted(Tallies(str(tmp_path)))), PROMETHEUS)
    done = subprocess.run([promtool(), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    wrong = b"# TYPE wrongTotal counter\nwrongTotal 1\n"
    assert subprocess.run([promtool(), "check", "metrics"], input=wrong, capture_output=True, check=False).returncode


def test_alerts(tmp_path: Path) -> None:
    """They are read, and fire when they should."""
    subprocess.run([promtool(), "check", "rules", RULES], check=True, capture_output=True)
    shutil.copy(RULES, tmp_path)
    (tmp_path / "test.yml").write_text(ALERTS)
    done = subprocess.run([promtool(), "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done


ALERTS = """
rule_files: [nwfilter-hook.rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'nwfilter_hook_tap_troubled{guest="web", tap="vnet0", state="missing", instance="a"}'
        values: '1+0x20'
      - series: 'nwfilter_hook_watch_up{instance="a"}'
        values: '0+0x20'
      - series: 'nwfilter_hook_watch_up{instance="b"}'
        values: '1+0x20'
      - series: 'nwfilter_hook_watch_resync_timestamp_seconds{instance="a"}'
        values: '0+0x30'
      - series: 'nwfilter_hook_repaired_taps_total{by="verify", result="done", instance="a"}'
        values: '0+0x5 3+0x15'
    alert_rule_test:
      - {alertname: NwfilterTapQuarantined, eval_time: 10m, exp_alerts: []}
      - {alertname: NwfilterResyncOld, eval_time: 14m, exp_alerts: []}
      - alertname: NwfilterTapNotInForce
        eval_time: 10m
        exp_alerts:
          - exp_labels: {severity: critical, guest: web, tap: vnet0, state: missing, instance: a}
            exp_annotations:
              summary: 'vnet0 of web: missing'
              description: >-
                The kernel does not have the rules of this tap as recorded.
                Run: nwfilter-hook verify --repair
      - alertname: NwfilterWatchDown
        eval_time: 10m
        exp_alerts:
          - exp_labels: {severity: warning, instance: a}
            exp_annotations:
              summary: 'nwfilter-hook-watch does not run on a'
              description: >-
                Hot-plugged devices and flushed rules are not followed.
                Run: systemctl enable --now nwfilter-hook-watch
      - alertname: NwfilterRulesChanged
        eval_time: 8m
        exp_alerts:
          - exp_labels: {severity: warning, by: verify, result: done, instance: a}
            exp_annotations:
              summary: 'Somebody changed the rules of guests on a'
              description: 'They were put back, or could not be (result done). Run: journalctl NWFILTER_KIND=drift'
"""
