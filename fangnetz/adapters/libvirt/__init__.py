"""libvirt on one host, as `ports.Hypervisor`. The only place that knows the word "domain" in libvirt's sense."""

from fangnetz.adapters.libvirt.hypervisor import LibvirtHypervisor

__all__ = ["LibvirtHypervisor"]
