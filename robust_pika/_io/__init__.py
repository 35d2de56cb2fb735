"""Private: the engine of the library. It changes without notice; import nothing of it from outside."""
