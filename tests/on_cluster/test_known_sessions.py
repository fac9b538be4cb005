from tests.test_known_sessions import *  # noqa: F403
