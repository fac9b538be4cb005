"""`cmath-stream replay` around the walk of `cmath_stream.replay`: inputs, many at once, what comes out."""
