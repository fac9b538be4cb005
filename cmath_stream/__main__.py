"""`python -m cmath_stream`: the same program as `cmath-stream`."""

from cmath_stream.cli import main

main()
