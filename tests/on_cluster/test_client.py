from tests.test_client import *  # noqa: F403
