"""Build the wheel and the source distribution, and test both in an environment of their own.

``python tools/check_package.py [--keep DIR]`` builds from the working tree into a temporary folder, or into DIR, and
looks at what is in both. Then it makes an environment, installs there NumPy, rich and the wheel, without the wheel's
other dependencies, and runs what is to work without JAX: ``import multimodal_pad``, all data-side modules, and the
command. Then it does the same with the source distribution in place of the wheel. JAX is left out because it
takes minutes to install, and because nothing shows better that the data side doesn't import it.

It needs the packages ``build`` and ``hatchling`` and a package index, and takes about a minute. pip builds the source
distribution on its own, with the requirements of ``[build-system]``. Faults go to stderr, and the status is 1.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from email.message import Message
from email.parser import Parser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "multimodal_pad"
INSTALLED = ("numpy", "rich")
"""The dependencies that the data side and the command need; the other ones belong to the model side."""

IN_SDIST = {
    *(
        PACKAGE,
        "docs",
        "experiments",
        "tests",
        "tools",
        "PKG-INFO",
        "pyproject.toml",
        "Makefile",
        ".gitignore",
    ),
    *("ARCHITECTURE.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md"),
}
SDIST_LIMIT = 2 * 2**20
"""Bytes; a folder of results or a cache included by mistake would be larger."""

TRY = """
import importlib, importlib.metadata, importlib.util, pathlib, sys
import multimodal_pad
heavy = {name for name in ("jax", "jaxlib", "flax", "optax", "scipy", "rich") if name in sys.modules}
assert not heavy, f"import multimodal_pad loads {sorted(heavy)}"
assert importlib.util.find_spec("jax") is None, "jax is installed here: what follows would show nothing"
versions = {multimodal_pad.__version__, importlib.metadata.version("multimodal-pad"), sys.argv[1]}
assert len(versions) == 1, f"versions differ: {sorted(versions)}"
package = pathlib.Path(multimodal_pad.__file__).parent
paths = [path.relative_to(package.parent).with_suffix("") for path in sorted(package.rglob("*.py"))]
names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
light = [name for name in names if name.split(".")[1:2] == [] or name.split(".")[1] not in sys.argv[2].split(",")]
imported = 0
for name in light:
    try:
        importlib.import_module(name)
        imported += 1
    except multimodal_pad.PaddingError as error:  # it names the extra that it needs
        assert "pip install" in str(error), (name, error)
print(f"{imported} of {len(names)} modules are imported without JAX")
"""
MODEL_SIDE = "models,compiling,training,serving,grain"
"""Packages that need JAX or an extra; all others must be importable without."""


def source_version(root: Path) -> str:
    """Read ``__version__``, the source of all other versions, without importing anything."""
    for node in ast.parse((root / PACKAGE / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__version__"]:
            return str(ast.literal_eval(node.value))
    raise SystemExit(f"{root / PACKAGE / '__init__.py'} has no line __version__ = '...'")


def source_files(root: Path) -> set[str]:
    """List the files of the package by their names in a wheel."""
    paths = (path for path in (root / PACKAGE).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix() for path in paths}


def wheel_faults(wheel: Path, root: Path) -> list[str]:
    """List the faults of a wheel, which must have the package's files, its version, licence and command."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (folder,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
        commands = archive.read(f"{folder}/entry_points.txt").decode() if f"{folder}/entry_points.txt" in names else ""
    inside = {name for name in names if not name.startswith(f"{folder}/")}
    faults = listed("not in the wheel", source_files(root) | {f"{PACKAGE}/py.typed"}, inside)
    faults += [f"in the wheel, and not in {PACKAGE}/: {name}" for name in sorted(inside - source_files(root))]
    if f"{folder}/licenses/LICENSE" not in names:
        faults.append("the wheel has no LICENSE")
    if f"{PACKAGE}.cli:main" not in commands:
        faults.append("the wheel has no command multimodal-pad")
    return faults + metadata_faults(metadata, root)


def sdist_faults(sdist: Path, root: Path) -> list[str]:
    """List the faults of a source distribution, which must have the listed files, no others, and be small."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if "/" in name}
    faults = listed("not in the source distribution", source_files(root), names)
    top = {name.split("/")[0] for name in names}
    faults += listed("not in the source distribution", IN_SDIST - {".gitignore"}, top)
    faults += [f"in the source distribution, and not meant to be: {name}" for name in sorted(top - IN_SDIST)]
    faults += [f"in the source distribution: {name}" for name in sorted(names) if name.endswith((".pyc", ".so"))]
    if (size := sdist.stat().st_size) > SDIST_LIMIT:
        faults.append(f"the source distribution has {size:,} bytes; at most {SDIST_LIMIT:,} are meant")
    return faults


def listed(what: str, wanted: Iterable[str], there: set[str]) -> list[str]:
    """Make a line for each name that is missing."""
    return [f"{what}: {name}" for name in sorted(set(wanted) - there)]


def metadata_faults(metadata: Message, root: Path) -> list[str]:
    """Compare the metadata of a wheel with the source and pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    said = {
        "Version": ([metadata["Version"]], [source_version(root)]),
        "Classifier": (metadata.get_all("Classifier", []), project["classifiers"]),
        "Provides-Extra": (metadata.get_all("Provides-Extra", []), list(project["optional-dependencies"])),
    }
    return [
        f"{field} in METADATA: {sorted(got)}, and in the source {sorted(meant)}"
        for field, (got, meant) in said.items()
        if sorted(got) != sorted(meant)
    ]


def requirements(root: Path) -> list[str]:
    """Return the dependencies of :data:`INSTALLED` with their bounds in pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [line for line in project["dependencies"] if re.split(r"[^\w-]", line)[0] in INSTALLED]


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command and return its output; a failure ends the check with all of it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nstatus {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def try_installed(folder: Path, binaries: Path, root: Path) -> str:
    """Run everything that must work without JAX, outside the source tree; return a sentence on what was imported."""
    version = source_version(root)
    said = run(binaries / "python", "-I", "-c", TRY, version, MODEL_SIDE, cwd=folder)
    command = binaries / "multimodal-pad"
    if (printed := run(command, "--version", cwd=folder).strip()) != f"multimodal-pad {version}":
        raise SystemExit(f"multimodal-pad --version prints {printed!r}, and the version is {version}")
    for words in (["--help"], ["plan", "--help"], ["convert", "--help"], ["inspect", "--help"]):
        if not run(command, *words, cwd=folder).startswith("usage: multimodal-pad"):
            raise SystemExit(f"multimodal-pad {' '.join(words)} prints no usage")
    return said.strip()


def check(out: Path, work: Path) -> list[str]:
    """Build into ``out``, test in ``work``, and return the faults."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=work)
    version = source_version(ROOT)
    wheel, sdist = out / f"{PACKAGE}-{version}-py3-none-any.whl", out / f"{PACKAGE}-{version}.tar.gz"
    if faults := wheel_faults(wheel, ROOT) + sdist_faults(sdist, ROOT):
        return faults
    print(f"built {wheel.name} ({wheel.stat().st_size:,} bytes) and {sdist.name} ({sdist.stat().st_size:,} bytes)")
    venv.create(work / "venv", with_pip=True)
    binaries = work / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = [binaries / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, *requirements(ROOT), cwd=work)
    for built in (wheel, sdist):
        run(*pip, "--force-reinstall", "--no-deps", built, cwd=work)
        print(f"{built.name}: {try_installed(work, binaries, ROOT)}, and the command runs")
    return []


def main() -> int:
    """Run the check; return status 0 where there are no faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", metavar="DIR", type=Path, help="leave wheel and source distribution in DIR")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory(prefix="package-") as work:
        out = keep.resolve() if keep else Path(work) / "dist"
        faults = check(out, Path(work))
    print(*faults, sep="\n", end="\n" if faults else "", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
