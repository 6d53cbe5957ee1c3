"""Makes the messages from the .proto files of the repository while building.
Everything else is in pyproject.toml."""

import pathlib
import tempfile

from setuptools import setup
from setuptools.command.build_py import build_py

PROTO = pathlib.Path(__file__).resolve().parents[3] / "proto/zcbroker/v1"
NAMES = ["errors", "broker", "admin", "launcher"]


def generate(into):
    # Only here: setuptools runs this file also to ask what a build needs.
    from grpc_tools import protoc  # pylint: disable=import-outside-toplevel
    builtin = pathlib.Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as root:
        # As zcbroker.v1, since a top-level `proto` would be other people's.
        package = pathlib.Path(root, "zcbroker/v1")
        package.mkdir(parents=True)
        files = []
        for name in NAMES:
            text = (PROTO / f"{name}.proto").read_text(encoding="utf-8")
            file = package / f"{name}.proto"
            file.write_text(text.replace('import "proto/zcbroker/', 'import "zcbroker/'), encoding="utf-8")
            files.append(str(file))
        if protoc.main(["protoc", f"-I{root}", f"-I{builtin}", f"--python_out={into}", f"--pyi_out={into}",
                        f"--grpc_python_out={into}", *files]) != 0:
            raise RuntimeError(f"the messages could not be made from {PROTO}")


class BuildWithMessages(build_py):
    def run(self):
        super().run()
        generate("src" if self.editable_mode else self.build_lib)


setup(cmdclass={"build_py": BuildWithMessages})
