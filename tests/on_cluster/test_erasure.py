from tests.test_erasure import *  # noqa: F403
