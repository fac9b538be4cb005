from tests.test_redis_lease import *  # noqa: F403
