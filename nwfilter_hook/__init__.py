"""Per-guest packet filtering for libvirt: nwfilter XML compiled to nftables, one atomic transaction per event."""

__version__ = "0.1.0"
