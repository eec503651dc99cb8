"""The ops under the names and signatures of other people's code: :mod:`mmif.compat.stylegan`."""
