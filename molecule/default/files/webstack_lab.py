"""Python in the lab's servers: keeps compiled what Ansible sends, which is the same libraries as sources in an archive with every task."""

import _imp
import marshal
import os
import zipimport

CACHE = "/run/webstack-lab"
compile_source = zipimport._compile_source


def compiled(path, source):
    """Stands in for the function of this name in zipimport; called with a module's path in the archive and its source, as bytes."""
    kept = f"{CACHE}/{_imp.source_hash(len(source), source).hex()}"
    try:
        with open(kept, "rb") as file:
            code = marshal.load(file)  # noqa: S302 - root's own
        _imp._fix_co_filename(code, path)
    except OSError:
        code = compile_source(path, source)
        os.makedirs(CACHE, mode=0o700, exist_ok=True)
        with open(f"{kept}.{os.getpid()}", "wb") as file:
            marshal.dump(code, file)
        os.replace(file.name, kept)
    return code


if os.geteuid() == 0:
    zipimport._compile_source = compiled
