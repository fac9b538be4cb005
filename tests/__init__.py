"""The contract: one file a module, fakes beside them."""
