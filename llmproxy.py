#!/usr/bin/env python3
"""llmproxy: one local address for every model you can reach, in nothing but Python's standard library.

The kernel is in `plugins/_kernel.py`; here is only what has to be done before the first import. Nothing imports this
file: it runs as `__main__`, and a module that imported it by name would get a second copy.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any, List


class Later(ModuleType):
    """Stands for a module of the standard library, which is imported when something of it is first wanted.

    What the interpreter has for this, importlib.util.LazyLoader, imports it as soon as an `import` finds it, and may
    give a second thread half of it before Python 3.12.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        vars(self).update(__spec__=importlib.util.find_spec(name), _lock=threading.Lock())

    def _itself(self) -> ModuleType:
        with self._lock:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)  # waits for a thread that has begun to

    def __getattr__(self, name: str) -> Any:
        found = vars(self)[name] = getattr(self._itself(), name)
        return found

    def __setattr__(self, name: str, value: object) -> None:
        vars(self)[name] = value
        setattr(self._itself(), name, value)

    def __dir__(self) -> List[str]:
        return dir(self._itself())


#: What comes with `http.server`, or is here for a question that most houses are never asked. OpenSSL alone, which ssl
#: and hashlib bring, takes 5 MiB. Nothing that trouble is told with: it has to be here when no file can be opened.
SELDOM = ["calendar", "datetime", "hashlib", "hmac", "html", "ipaddress", "locale", "mimetypes", "random", "secrets"]
SELDOM += ["shutil", "subprocess", "tempfile", "tokenize", *(["ssl"] if importlib.util.find_spec("_ssl") else [])]
sys.modules.update({name: Later(name) for name in SELDOM if name not in sys.modules})
gc.disable()  # until the house stands: what is made before stays

from plugins._kernel import main

if __name__ == "__main__":
    sys.exit(main())
