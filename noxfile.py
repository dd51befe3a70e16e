"""The lowest and the newest direct versions that are supported: ``nox -s lowest`` and ``nox -s newest``.

torch is the version of the other tests: others are tried by hand (docs/versions.md), since they are large.
"""

import nox

nox.options.default_venv_backend = "venv"

# a core of the tests: training, resume, the command line from end to end, and the gates of every PEFT method
# on models like BERT; `nox -s lowest -- tests/routing` runs the whole gate matrix
GATES = ("tests/routing/test_gate_matrix.py", "-k", "bert")
CORE = (
    "tests/trainer/test_compat.py",
    "tests/trainer/test_restart.py",
    "tests/cli/test_train.py",
)
TORCH = "torch==2.13.0"
TOOLS = ("pytest>=9", "pytest-xdist>=3.8", "hypothesis>=6.150")
LOWEST = (
    "transformers==5.5.4",
    "peft==0.18.0",
    "accelerate==1.10.1",
    "datasets==4.0.0",
    "numpy==2.0.2",
    "pandas==2.2.2",
    "pyarrow==21.0.0",
    "scikit-learn==1.5.0",
    "scipy==1.13.0",
)
NEWEST = ("transformers==5.24.0", "peft==0.21.2")


@nox.session
def lowest(session: nox.Session) -> None:
    """The lowest direct versions of pyproject.toml."""
    # peft 0.18 says so of every model without a name when it saves an adapter
    _run(session, LOWEST, "-W", "ignore:Could not find a config file:UserWarning")


@nox.session
def newest(session: nox.Session) -> None:
    """The newest versions that have been tried."""
    _run(session, NEWEST)


def _run(session: nox.Session, versions: tuple[str, ...], *options: str) -> None:
    session.install(TORCH, *versions, "-e", ".", *TOOLS)
    for tests in [session.posargs] if session.posargs else [CORE, GATES]:
        session.run("pytest", "-q", "-n", "auto", "-m", "not slow", *options, *tests)
