"""What flatnce's users need in Python: trained encoders, the objectives, and the logs of runs.

    flatnce.load_encoder(path)      a pre-trained trunk as a torch.nn.Module
    flatnce.FlatNCE(temperature)    the objective for a training loop of one's own
    flatnce.InfoNCE(temperature)    the same for InfoNCE, as SimCLR trains
    flatnce.read_run(directory)     settings and curves of a run as dicts and lists

The program itself is the command `flatnce`. Importing this package imports nothing else: PyTorch is imported when
`load_encoder`, `FlatNCE` or `InfoNCE` is first named.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._encoder import Encoder, load_encoder
    from ._objectives import FlatNCE, InfoNCE
    from ._run import read_run

    __version__: str

__all__ = ["Encoder", "FlatNCE", "InfoNCE", "load_encoder", "read_run"]

_HOMES = {
    "Encoder": "_encoder",
    "load_encoder": "_encoder",
    "FlatNCE": "_objectives",
    "InfoNCE": "_objectives",
    "read_run": "_run",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("flatnce")
    if name not in _HOMES:
        raise AttributeError(f"module 'flatnce' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"flatnce.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), "__version__", *__all__])
