"""What the host routes for guests isn't dropped by somebody's policy: Docker closes FORWARD for everybody."""

from __future__ import annotations

from collections.abc import Iterator

from ...network.bridges import alone
from ...network.links import open_route
from ..findings import Finding, hint
from ..patient import Patient

_COMMANDS = {
    "Docker": "iptables -I DOCKER-USER -i {bridge} -j ACCEPT; iptables -I DOCKER-USER -o {bridge} -j ACCEPT",
    "firewalld": "firewall-cmd --permanent --zone=libvirt --change-interface={bridge} && firewall-cmd --reload",
    "ufw": "ufw route allow in on {bridge}",
}


def examine(patient: Patient) -> Iterator[Finding]:
    """A hint: a policy is to drop, and a bridge of guests has an address of the host, so that it routes for them."""
    with open_route() as route:
        routed = sorted(patient.bridges - set(alone(route, patient.bridges)))
    if not routed:
        return
    for each in patient.forwarding():
        if each.closed:
            whose = f", which {each.whose} has made," if each.whose else ""
            why = "what a filter lets through, and the host routes, is dropped unless a rule there accepts it"
            command = _COMMANDS.get(each.whose, "nft list ruleset").format(bridge=routed[0])
            yield hint(f"{each.name}{whose} drops by policy; the host routes for {', '.join(routed)}", why, command)
