from tests.test_redis_reader import *  # noqa: F403

# They look at how a single server waits; tests/test_redis_cluster.py has a cluster's way.
del test_a_stream_deleted_under_a_waiting_reader_returns  # noqa: F821
del test_a_read_that_is_cancelled_gives_its_entries_later  # noqa: F821
