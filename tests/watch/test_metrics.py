"""metrics, as a process: what has happened is counted; a file for node_exporter; the service's page."""

from __future__ import annotations

import os
import stat
import urllib.request
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.domains import domain
from tests.support.frames import OTHER, OTHER_IP, THIRD, ether, udp
from tests.support.libvirtd import wait_for
from tests.support.netns import command_line
from tests.watch.conftest import WEB, Hypervisor, Service


def samples(text: str) -> dict[str, float]:
    """By name and the labels' values, in the order of the labels' names."""
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return {
        " ".join([sample.name.removeprefix("nwfilter_hook_"), *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_happened_is_counted(hypervisor: Hypervisor) -> None:
    """A start, three spoofed frames, a refusal, a repair, a stop."""
    wire = hypervisor.wire
    before = samples(hypervisor.command("metrics").stdout)
    assert (before["up"], before["guests"], before["taps in_force"], before["watch_up"]) == (1, 0, 0, 0)
    wire.start("web", domain("web", [WEB]))
    assert not any(wire.passes(udp(src_ip=OTHER_IP)) for _ in range(3))
    hypervisor.command("replay", "none", "prepare")
    wire.apply("flush chain bridge nwfilter from/vnet0")
    assert samples(hypervisor.command("metrics").stdout)["taps in_force"] == 1, "show only looks for names"
    wire.apply("flush ruleset")
    found = samples(hypervisor.command("metrics").stdout)
    assert (found["taps missing"], found["tap_troubled web missing vnet0"]) == (1, 1)
    assert hypervisor.command("verify", "--repair").returncode == 0
    assert not any(wire.passes(udp(src_ip=OTHER_IP)) for _ in range(3))
    found = samples(hypervisor.command("metrics").stdout)
    drops = {
        tuple(name.split()[1:]): value for name, value in found.items() if name.startswith("dropped_packets_total ")
    }
    assert sum(drops.values()) >= 3, found
    assert all((guest, line.isdigit(), tap) == ("web", True, "vnet0") for _, guest, line, tap in drops), drops
    assert found["transaction_duration_seconds_count start done"] == 1
    assert found["repaired_taps_total verify done"] == 1
    assert found["conntrack_entries_limit"] > 0
    wire.stop("web", domain("web", [WEB]))
    found = samples(hypervisor.command("metrics").stdout)
    assert (found["guests"], found["transaction_duration_seconds_count remove done"]) == (0, 1)


def test_a_refused_start_is_counted(hypervisor: Hypervisor) -> None:
    """By operation and reason, whether the state directory was there before or not."""
    wire = hypervisor.wire
    ran = wire.hook("web", "start", domain("web", [WEB.replace("clean-traffic", "no-such")]))
    assert ran.returncode == 1
    assert samples(hypervisor.command("metrics").stdout)["refused_total start UnknownFilter"] == 1


def test_what_the_guard_drops(hypervisor: Hypervisor) -> None:
    """By interface; and whether it is as it should be."""
    hypervisor.runs("web", [WEB])
    assert samples(hypervisor.command("metrics").stdout)["guard_on"] == 0
    assert hypervisor.command("guard", "on", "--yes").returncode == 0
    hypervisor.wire.plug("vnet2")
    assert not hypervisor.wire.passes(ether(src=THIRD, dst=OTHER), "vnet2", "vnet1")
    found = samples(hypervisor.command("metrics").stdout)
    assert (found["guard_on"], found["guard_faults"]) == (1, 0)
    assert found["guard_unknown_ports"] >= 1
    assert found["guard_dropped_packets_total sent vnet2"] >= 1
    hypervisor.wire.apply("flush chain bridge nwfilter guard-from")
    assert samples(hypervisor.command("metrics").stdout)["guard_faults"] == 1


def test_textfile(hypervisor: Hypervisor, tmp_path: Path) -> None:
    """Whole or not at all, for all to read; a directory that is missing, full, or a file that is a link."""
    path = tmp_path / "nwfilter-hook.prom"
    assert hypervisor.command("metrics", "--textfile", str(path)).returncode == 0
    text = path.read_text()
    assert text.endswith("\n")
    assert "# EOF" not in text
    assert "nwfilter_hook_up 1.0" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    missing = hypervisor.command("metrics", "--textfile", str(tmp_path / "no/such/x.prom"))
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "there is no directory" in missing.stderr
    full = tmp_path / "full"
    full.mkdir()
    script = (
        f'cd {full}; mount -t tmpfs -o size=4k tmpfs .; cd $PWD; echo old >x.prom; "$@" || echo $?; ls -A; cat x.prom'
    )
    command = [
        *("unshare", "--mount", "sh", "-c", script, "sh"),
        *command_line(),
        "metrics",
        "--textfile",
        f"{full}/x.prom",
    ]
    done = hypervisor.wire.run(*command, environment=hypervisor.environment)
    assert done.stdout == "1\nx.prom\nold\n"
    assert "No space left on device; the old one stays" in done.stderr
    os.symlink("/etc/passwd", tmp_path / "link.prom")
    assert hypervisor.command("metrics", "--textfile", str(tmp_path / "link.prom")).returncode == 0
    assert not (tmp_path / "link.prom").is_symlink(), "what it led to is left alone"
    for wrong in (
        ["--format", "json"],
        ["--textfile", ""],
        ["--textfile", str(path), "--format", "openmetrics"],
        ["x"],
    ):
        assert hypervisor.command("metrics", *wrong).returncode == 2


def test_the_services_page(hypervisor: Hypervisor) -> None:
    """GET /metrics; a port that somebody has is told, and rules are watched."""
    wire = hypervisor.wire
    wire.run("ip", "link", "set", "lo", "up")
    wire.start("web", domain("web", [WEB]))
    with Service(hypervisor, "none\nlisten = 127.0.0.1:9918") as service:
        wait_for("listening", lambda: "metrics at http://127.0.0.1:9918/metrics" in service.said(), 20)
        request = urllib.request.Request(
            "http://127.0.0.1:9918/metrics", headers={"Accept": "application/openmetrics-text"}
        )
        with wire.inside(), urllib.request.urlopen(request, timeout=20) as answer:
            found = samples(answer.read().decode())
        assert (found["watch_up"], found["taps in_force"]) == (1, 1)
        wire.apply("flush ruleset")
        wait_for("told", lambda: "were changed" in service.said(), 10)
        with wire.inside(), urllib.request.urlopen(request, timeout=20) as answer:
            found = samples(answer.read().decode())
        assert (found["repaired_taps_total verify done"], found["taps in_force"]) == (1, 1)
        second = hypervisor.command("watch")
        assert "another nwfilter-hook watch runs already" in second.stderr
        assert service.end() == 0
    with Service(hypervisor, "none\nlisten = 192.0.2.1:9918") as service:
        wait_for("told", lambda: "no metrics at 192.0.2.1:9918: " in service.said(), 20)
        wait_for("watching", lambda: "watching: " in service.said(), 20)
        assert service.end() == 0
