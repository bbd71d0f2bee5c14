"""The cluster file: YAML, environment and secret files in, frozen Settings or every fault out.

Defaults live here (and, for timing, in core.policy) and nowhere else. Secrets are places, read when needed.
"""

from __future__ import annotations

from fangnetz.settings.domain import (
    BlockDisk,
    FileDisk,
    IscsiDisk,
    ShortVm,
    StorageLease,
    domain_uuid,
    domain_xml,
)
from fangnetz.settings.domain_facts import DomainFacts, read_domain, vm_doc_from_xml
from fangnetz.settings.faults import SettingsFault, faults_text
from fangnetz.settings.fitness import Unfit, UnfitLevel, unfit_for_ha
from fangnetz.settings.load import Inspection, Role, check_settings, inspect_settings, load_settings
from fangnetz.settings.schema import DRIVERS, Driver
from fangnetz.settings.secrets import Secret
from fangnetz.settings.show import settings_as_tree
from fangnetz.settings.values import (
    REDIS_SERVERS,
    REDIS_USERS,
    ControllerSettings,
    DeviceSettings,
    FlowerSettings,
    HostSettings,
    Login,
    RedisServer,
    RedisSettings,
    RedisUser,
    Settings,
)

__all__ = [
    "DRIVERS",
    "REDIS_SERVERS",
    "REDIS_USERS",
    "BlockDisk",
    "ControllerSettings",
    "DeviceSettings",
    "DomainFacts",
    "Driver",
    "FileDisk",
    "FlowerSettings",
    "HostSettings",
    "Inspection",
    "IscsiDisk",
    "Login",
    "RedisServer",
    "RedisSettings",
    "RedisUser",
    "Role",
    "Secret",
    "Settings",
    "SettingsFault",
    "ShortVm",
    "StorageLease",
    "Unfit",
    "UnfitLevel",
    "check_settings",
    "domain_uuid",
    "domain_xml",
    "faults_text",
    "inspect_settings",
    "load_settings",
    "read_domain",
    "settings_as_tree",
    "unfit_for_ha",
    "vm_doc_from_xml",
]
