"""
Commands of ebtables, iptables and ip6tables, as libvirt's own driver issues them for a filter, read as our rules.

In:  the text of such commands, `\\` at the end of lines that go on.
Out: by tree ("from", "to", "from-l3", "to-l3") what the compiled filter must hold, spelled as in `compiling`.

libvirt's chains: libvirt-J-TAP and libvirt-P-TAP (ebtables) are what the guest sends and gets at layer 2. FJ and HJ
(iptables) both see what the guest sends at layer 3, FP what it gets; in FJ and HJ a packet passes by RETURN.

Not everything can be taken over as it is; each exception has its number in nwfilter-differences(7), or is
said here:
* no packet toward the guest can be rejected in the bridge family: REJECT in FP is drop;
* --ip-tos is the value that the filter calls dscp (difference 2);
* a rule that can never match (TCP flags outside their mask) isn't made at all;
* --icmp-type 255 is any type in the kernel's matcher, so there is no condition.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator

_CHAINS = {"libvirt-J-vnet0": "from", "libvirt-P-vnet0": "to", "FP-vnet0": "to-l3", "FJ-vnet0": "from-l3"}
_PROTOCOLS = {"tcp": 6, "udp": 17, "udplite": 136, "esp": 50, "ah": 51, "sctp": 132, "icmp": 1, "igmp": 2}
_FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32, "ALL": 63, "NONE": 0}
_IGNORED = ("-w", "--concurrent")
_VALUES_IGNORED = ("-t", "-m", "--comment")
_SINGLE = ("--arp-gratuitous",)


def expected_rules(text: str) -> dict[str, list[str]]:
    """The rules by tree, each as "CONDITIONS VERDICT", its conditions sorted."""
    trees: dict[str, list[str]] = {}
    host: list[str] = []
    for line in text.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line)
        command = _Command(program, words)
        if command.never_matches:
            continue
        if command.chain == "HJ-vnet0":
            host.append(command.spelled())
        else:
            trees.setdefault(_CHAINS[command.chain], []).append(command.spelled())
    assert host == trees.get("from-l3", []), "libvirt treats what goes to the host as what goes beyond it"
    return trees


class _Command:
    """One `-A CHAIN … -j TARGET`."""

    def __init__(self, program: str, words: list[str]) -> None:
        self.chain = ""
        self.never_matches = False
        self._target = ""
        self._is_ipv6 = program == "ip6tables"
        self._conditions: set[str] = set()
        if program != "ebtables":
            self._conditions.add(f"ether-type={'0x86dd' if self._is_ipv6 else '0x800'}")
        for option, value, sign in _options(words):
            if option == "-A":
                self.chain = value
            elif option == "-j":
                self._target = value
            elif program == "ebtables":
                self._conditions.update(_ethernet(option, value, sign))
            else:
                self._conditions.update(self._internet(option, value, sign))

    def spelled(self) -> str:
        """The command as a rule."""
        verdict = {"RETURN": "accept", "ACCEPT": "accept", "DROP": "drop", "REJECT": "reject"}[self._target]
        if verdict == "reject" and self.chain == "FP-vnet0":
            verdict = "drop"
        return " ".join([*sorted(self._conditions), verdict])

    def _internet(self, option: str, value: str, sign: str) -> Iterator[str]:
        ip = "ip6" if self._is_ipv6 else "ip"
        if option == "-p":
            if value != "all":
                yield f"{'l4-protocol' if self._is_ipv6 else 'ip-protocol'}={_PROTOCOLS[value]}"
        elif option in ("--source", "--destination"):
            yield from _address(f"{ip}-{'src' if option == '--source' else 'dst'}", value, sign)
        elif option == "--mac-source":
            yield f"ether-src{sign}{value}"
        elif option == "--dscp":
            yield f"{ip}-dscp{sign}{value}"
        elif option in ("--sport", "--dport"):
            yield _range("src-port" if option == "--sport" else "dst-port", value, sign)
        elif option == "--ctstate":
            yield f"ct-state={','.join(sorted(value.lower().split(',')))}"
        elif option == "--ctdir":
            yield f"ct-direction={value.lower()}"
        elif option == "--icmp-type":
            yield from _icmp_type(value, sign)
        elif option == "--tcp-flags":
            mask, flags = value.split("/")
            if _bits(flags) & ~_bits(mask):
                self.never_matches = True
            else:
                yield f"tcp-flags&{_bits(mask):#x}{sign}{_bits(flags):#x}"
        else:
            raise AssertionError(f"unknown option {option}")


def _options(words: list[str]) -> Iterator[tuple[str, str, str]]:
    """(option, value, sign); --tcp-flags, which takes two values, has them as MASK/FLAGS."""
    rest = list(words)
    sign = "="
    while rest:
        option = rest.pop(0)
        if option == "!":
            sign = "!="
        elif option in _VALUES_IGNORED:
            rest.pop(0)
        elif option in _SINGLE:
            yield option, "", sign
            sign = "="
        elif option not in _IGNORED:
            value = rest.pop(0)
            if value == "!":
                value, sign = rest.pop(0), "!="
            if option == "--tcp-flags":
                value += "/" + rest.pop(0)
            yield option, value, sign
            sign = "="


def _ethernet(option: str, value: str, sign: str) -> Iterator[str]:
    if option == "-p":
        number = {"ipv4": "0x800", "ipv6": "0x86dd", "arp": "0x806"}.get(value.lower(), value)
        yield f"ether-type{sign}{int(number, 0):#x}"
    elif option in ("-s", "-d"):
        address, _, mask = value.partition("/")
        field = "ether-src" if option == "-s" else "ether-dst"
        yield from _masked_mac(field, address, mask or "ff:ff:ff:ff:ff:ff", sign)
    elif option.startswith("--arp-"):
        yield from _arp(option, value, sign)
    elif option in ("--ip-source", "--ip-destination", "--ip6-source", "--ip6-destination"):
        version, side = option[2:].split("-")
        yield from _address(f"{version}-{'src' if side == 'source' else 'dst'}", value, sign)
    elif option in ("--ip-protocol", "--ip6-protocol"):
        yield f"{'ip-protocol' if option == '--ip-protocol' else 'l4-protocol'}{sign}{value}"
    elif option.endswith("-port"):
        yield _range("src-port" if "source" in option else "dst-port", value, sign)
    elif option == "--ip-tos":
        yield f"ip-dscp{sign}{int(value, 0)}"
    else:
        raise AssertionError(f"unknown option {option}")


def _arp(option: str, value: str, sign: str) -> Iterator[str]:
    if option in ("--arp-htype", "--arp-opcode", "--arp-ptype"):
        name = option[2:]
        yield f"{name}{sign}{int(value, 0):#x}" if name == "arp-ptype" else f"{name}{sign}{value}"
        return
    # an address is only there if the lengths say so: of Ethernet, and of IPv4
    yield from ("arp-hlen=6", "arp-plen=4")
    if option == "--arp-gratuitous":
        yield from ("arp-ptype=0x800", f"arp-src-ip{sign}arp-dst-ip")
    else:
        yield from (
            "arp-htype=1",
            f"{option[2:].replace('mac-src', 'src-mac').replace('mac-dst', 'dst-mac')}{sign}{value}",
        )


def _masked_mac(field: str, address: str, mask: str, sign: str) -> Iterator[str]:
    bits = [int(octet, 16) for octet in mask.split(":")]
    masked = ":".join(f"{int(octet, 16) & bit:02x}" for octet, bit in zip(address.split(":"), bits))
    yield f"{field}{sign}{masked}" if set(bits) == {0xFF} else f"{field}&{mask}{sign}{masked}"


def _address(field: str, value: str, sign: str) -> Iterator[str]:
    network = ipaddress.ip_interface(value).network
    if network.prefixlen == network.max_prefixlen:
        yield f"{field}{sign}{network.network_address}"
    elif network.prefixlen:
        yield f"{field}&{network.netmask}{sign}{network.network_address}"


def _range(field: str, value: str, sign: str) -> str:
    low, _, high = value.partition(":")
    return f"{field}{sign}{low}" if high in ("", low) else f"{field}{sign}{low}..{high}"


def _icmp_type(value: str, sign: str) -> Iterator[str]:
    assert sign == "="
    number, _, code = value.partition("/")
    if number != "255":
        yield f"icmp-type={number}"
        if code:
            yield f"icmp-code={code}"


def _bits(flags: str) -> int:
    result = 0
    for flag in flags.split(","):
        result |= _FLAGS[flag]
    return result
