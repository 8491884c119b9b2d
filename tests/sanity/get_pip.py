"""Installs pip into the running Python from the copy that Python itself ships, then what the arguments name.

ansible-test wants get-pip.py for its virtual environments and downloads it from a host that a closed network does not reach.
"""

import ensurepip
import os
import runpy
import sys

ensurepip.bootstrap()
os.environ.pop("PIP_CONFIG_FILE", None)  # ensurepip turns the machine's pip settings off
# These two are options of get-pip.py alone.
sys.argv = ["pip", "install", *(a for a in sys.argv[1:] if a not in ("--no-setuptools", "--no-wheel"))]
runpy.run_module("pip", run_name="__main__")
