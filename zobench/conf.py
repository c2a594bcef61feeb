"""The package `zobench.conf` of a checkout, for Hydra's `pkg://zobench.conf`.

A wheel has the folder conf/ here, in place of this file; in a checkout it is at the top level.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location

from zobench.paths import conf_dir
from zobench.schema import register

_init = conf_dir() / "__init__.py"
_spec = spec_from_file_location(__name__, _init, submodule_search_locations=[str(_init.parent)])
assert _spec is not None
sys.modules[__name__] = module_from_spec(_spec)
register()  # as _init does; executing that would leave a __pycache__ among the settings
