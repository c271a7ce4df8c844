"""On PYTHONPATH of the programs under ``frzmq run``: lets each of them record, and runs the ``sitecustomize`` that it stands before.

Whatever is wrong here, such as an interpreter without frzmq, must not reach the program.
"""


def _chain() -> None:
    import importlib.machinery
    import importlib.util
    import os
    import sys

    here = os.path.dirname(os.path.abspath(__file__))
    path = [entry for entry in sys.path if os.path.abspath(entry) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        # in its place, as if this one were not there
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _record() -> None:
    try:
        from frzmq.tracer import autostart
    except Exception:  # noqa: BLE001  # another interpreter, or one too old: it is not recorded
        return
    autostart.begin_with_main()


_record()
_chain()
