"""The compiled extension and nothing else; everything about the package is in pyproject.toml."""

from setuptools import setup
from setuptools.command.build_ext import build_ext


class BuildExtension(build_ext):
    """Say so when there is nothing to compile."""

    def run(self) -> None:
        """Build the extensions that are declared."""
        if not self.extensions:
            print("build_ext: this version has no C++ or CUDA sources, there is nothing to compile")
        super().run()


# In place: an editable checkout finds mmif/_C*.so, and wheels contain it all the same.
setup(cmdclass={"build_ext": BuildExtension}, options={"build_ext": {"inplace": "true"}})
