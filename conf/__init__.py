"""Settings of zobench, as the package `zobench.conf` that Hydra reads by `pkg://zobench.conf`."""

from zobench.schema import register

register()
